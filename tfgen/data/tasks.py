"""Translations that any images are an example of: `colorize:DATA` and the like.

`target` is an image of the data set, `source` what a model is to make it from:

colorize           its luma, 0.299 R + 0.587 G + 0.114 B, one channel
edges              its edges, black lines on white, one channel: Sobel's gradient above a sixth of
                   the largest there can be
super_resolution   the image at a quarter of its sides, bicubic, brought back to its size
inpaint            the image with a grey square of half its sides, anywhere inside
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Rows
from tfgen.data.source import Key, Source
from tfgen.data.spec import DataError
from tfgen.data.synthetic import Varied

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_EDGE = 1 / 6  # of the largest gradient of one channel, above which there is an edge
_SMALLER = 4
_HIDDEN = 128  # grey of what is to be painted
_WORDS = 2  # for each image: top and left of a square

Task = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def task_source(task: str, base: Source, name: str) -> Source:
    """The images of a data set as `target`, and as `source` what is to become of them.

    Args:
      task: one of `TASKS`.
      base: a data set with the key `image`.
      name: of the whole, for messages.

    Raises:
      DataError: if the images cannot be an example of the task.
    """
    height, width, channels = base.keys["image"].shape
    if task == "colorize" and channels != 3:
        raise DataError(f"--data={name} needs colour images; these are grey.")
    if task == "super_resolution" and min(height, width) < 2 * _SMALLER:
        raise DataError(
            f"--data={name} needs images of at least {2 * _SMALLER}x{2 * _SMALLER}; these are "
            f"{height}x{width}."
        )
    make = TASKS[task]
    kept = {key: k for key, k in base.keys.items() if key != "image"}
    grey = task in ("colorize", "edges")

    def change(rows: Rows, words: tf.Tensor) -> Rows:
        others = {key: rows[key] for key in rows if key != "image"}
        return {**others, "source": make(rows["image"], words), "target": rows["image"]}

    return dataclasses.replace(
        base,
        keys={
            **kept,
            "source": Key((height, width, 1 if grey else channels), "uint8"),
            "target": base.keys["image"],
        },
        open=lambda split: Varied(base.open(split), change, _WORDS, task, split),
    )


def luma(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """uint8 [B, H, W, 1 or 3] -> uint8 [B, H, W, 1]."""
    if image.shape[-1] == 1:
        return image
    grey = tf.reduce_sum(tf.cast(image, tf.float32) * tf.constant(_LUMA), -1, keepdims=True)
    return tf.cast(tf.round(grey), tf.uint8)


def edges(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """uint8 [B, H, W, 1 or 3] -> uint8 [B, H, W, 1], 0 at edges and 255 elsewhere."""
    slopes = tf.image.sobel_edges(tf.cast(image, tf.float32) / 255.0)  # [B, H, W, C, 2], up to 4
    strongest = tf.reduce_max(tf.norm(slopes, axis=-1), axis=-1, keepdims=True)
    return tf.where(strongest > 4.0 * _EDGE, tf.constant(0, tf.uint8), tf.constant(255, tf.uint8))


def coarse(image: tf.Tensor, words: tf.Tensor | None = None) -> tf.Tensor:
    """uint8 [B, H, W, C] -> the same of a quarter of the detail."""
    height, width = image.shape[1:3]
    small = tf.image.resize(
        tf.cast(image, tf.float32),
        [max(1, height // _SMALLER), max(1, width // _SMALLER)],
        method="bicubic",
        antialias=True,
    )
    back = tf.image.resize(small, [height, width], method="bicubic")
    return tf.cast(tf.round(tf.clip_by_value(back, 0.0, 255.0)), tf.uint8)


def hidden(image: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """uint8 [B, H, W, C] with a grey square where uniform words [B, 2] say."""
    inside = []
    for axis, word in ((1, words[:, 0]), (2, words[:, 1])):
        length = image.shape[axis]
        start = draws.integers(word, length - length // 2 + 1)
        at = tf.range(length, dtype=tf.int64) - start[:, tf.newaxis]
        inside.append((at >= 0) & (at < length // 2))
    square = inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis, :]
    return tf.where(square[..., tf.newaxis], tf.constant(_HIDDEN, tf.uint8), image)


TASKS: dict[str, Task] = {
    "colorize": luma,
    "edges": edges,
    "super_resolution": coarse,
    "inpaint": hidden,
}
