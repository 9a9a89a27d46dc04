"""Pairs made of any images: `colorize:DATA`, `edges:DATA`, `super_resolution:DATA`, `inpaint:DATA`.

`target` is the image, and `source` is what a task leaves of it.
"""

from collections.abc import Callable

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Rows
from tfgen.data.source import Key, Source
from tfgen.data.spec import DataError
from tfgen.data.synthetic import Varied

FACTOR = 4  # by which super-resolution's source is coarser
STEP = 64  # a straight edge between greys that differ by more is drawn
HIDDEN = 128  # the grey of what inpainting hides


def task(kind: str, name: str, base: Source) -> Source:
    """The images of a data set as pairs: `source`, `target` and `label` where there is one.

    Args:
        kind: one of `KINDS`.
        name: of the data set, for messages.
        base: the data set.

    Raises:
        DataError: if it has no images, or none in colour that are to be coloured.
    """
    if "image" not in base.keys:
        raise DataError(
            f"{kind}: needs a data set with 'image'; {name!r} has {', '.join(base.keys)}."
        )
    image = base.keys["image"]
    if kind == "colorize" and image.shape[-1] == 1:
        raise DataError(f"colorize: needs images in colour; those of {name!r} are grey.")
    number, make = KINDS[kind]
    channels = 1 if make in (luma, edges) else image.shape[-1]

    def change(rows: Rows, words: tf.Tensor) -> Rows:
        others = {"label": rows["label"]} if "label" in rows else {}
        return {"source": make(rows["image"], words), "target": rows["image"], **others}

    keys = {"source": Key((*image.shape[:2], channels), image.dtype), "target": image}
    if "label" in base.keys:
        keys["label"] = base.keys["label"]
    return Source(
        keys=keys,
        num_classes=base.num_classes,
        sizes=base.sizes,
        open=lambda split: Varied(base.open(split), change, number, kind, split),
    )


def luma(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """The brightness of uint8 [B, H, W, 1 or 3]: [B, H, W, 1], 0.299 R + 0.587 G + 0.114 B."""
    del words
    if image.shape[-1] == 1:
        return image
    weighted = tf.cast(image, tf.int32) * tf.constant([299, 587, 114])
    return tf.cast((tf.reduce_sum(weighted, axis=-1, keepdims=True) + 500) // 1000, tf.uint8)


def edges(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """Black lines on white where uint8 [B, H, W, C] changes: [B, H, W, 1], 0 or 255.

    Where Sobel's gradient of the brightness is longer than that of a straight edge of `STEP`.
    """
    gradient = tf.image.sobel_edges(tf.cast(luma(image, words), tf.float32))
    steep = tf.reduce_sum(tf.square(gradient), axis=-1) > (4.0 * STEP) ** 2
    return tf.cast(tf.where(steep, 0, 255), tf.uint8)


def coarse(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """uint8 [B, H, W, C] at a quarter of its size (antialiased) and back, both bicubic."""
    del words
    sides = image.shape[1:3]
    small = [max(1, side // FACTOR) for side in sides]
    pixels = tf.image.resize(tf.cast(image, tf.float32), small, "bicubic", antialias=True)
    pixels = tf.image.resize(pixels, sides, "bicubic")
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)


def hidden(image: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """uint8 [B, H, W, C] with a grey rectangle of half its sides, at a place drawn by words."""
    inside = []
    for axis in (1, 2):
        length = image.shape[axis] // 2
        start = draws.integers(words[:, axis - 1], image.shape[axis] - length + 1)
        place = tf.range(image.shape[axis], dtype=tf.int64) - start[:, tf.newaxis]
        inside.append((place >= 0) & (place < length))
    covered = inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis]
    return tf.where(covered[..., tf.newaxis], tf.constant(HIDDEN, tf.uint8), image)


# The words that are drawn for each image, and what makes the source of it and of them.
KINDS: dict[str, tuple[int, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]] = {
    "colorize": (0, luma),
    "edges": (0, edges),
    "super_resolution": (0, coarse),
    "inpaint": (2, hidden),
}
