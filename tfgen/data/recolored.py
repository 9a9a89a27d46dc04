"""Unpaired domains with a known answer: digits in grey on black, and as ink on striped paper.

`a` is a digit in grey on black, as RGB; `b` is another one through `paint`. In training a comes
from the first half of the training split and b from the second, so that no pair exists. In
validation and test, b is `paint(a)` of the same row: what a translation should give is known (to
what resizing does to the stripes, where images are resized).
"""

from collections.abc import Callable

import tensorflow as tf

from tfgen.data.pipeline import Rows, Split, Table
from tfgen.data.source import Key, Source
from tfgen.data.synthetic import table_of
from tfgen.data.unpaired import Unpaired

PAPER = (0.95, 0.90, 0.72)  # RGB where there is no ink
INK = (0.08, 0.12, 0.45)  # RGB where all is ink
STRIPES = 0.02  # how much lighter or darker the stripes are


def paint(image: tf.Tensor) -> tf.Tensor:
    """A grey digit as dark blue ink on yellowish paper with faint diagonal stripes.

        f(x) = paper + (ink - paper) x + stripes,    stripes = +-0.02 by (row + column) mod 4 < 2

    Args:
        image: float [B, H, W, 3] in [0, 1], grey: the three channels are the same.

    Returns:
        float [B, H, W, 3] in [0, 1].
    """
    paper, ink = (tf.constant(colour, image.dtype) for colour in (PAPER, INK))
    return paper + (ink - paper) * image + _stripes(image)


def unpaint(image: tf.Tensor) -> tf.Tensor:
    """The grey digit that `paint` makes this of; of another image the nearest one.

    Args:
        image: float [B, H, W, 3] in [0, 1].

    Returns:
        float [B, H, W, 3] in [0, 1], grey.
    """
    paper, ink = (tf.constant(colour, image.dtype) for colour in (PAPER, INK))
    across = ink - paper
    along = tf.reduce_sum((image - _stripes(image) - paper) * across, axis=-1, keepdims=True)
    grey = along / tf.reduce_sum(tf.square(across))
    return tf.repeat(tf.clip_by_value(grey, 0.0, 1.0), 3, axis=-1)


def recolored(base: Source, side: int) -> Source:
    """The digits of `base` and others of them, painted.

    Args:
        base: grey images with labels, in memory.
        side: of the canvas; images are enlarged by the largest whole factor that fits (8x8 on
            16x16: each pixel becomes 2x2) and lie in its middle (28x28 on 32x32).
    """
    classes = base.num_classes

    def open_split(split: str) -> Split:
        images = table_of(base, split)
        if split == "train":
            half = images.size // 2
            return Unpaired(
                _part(images, 0, half, lambda rows: {**rows, "image": _on_canvas(rows, side)}),
                _part(images, half, images.size - half,
                      lambda rows: {**rows, "image": _painted(_on_canvas(rows, side))}),
            )  # fmt: skip
        return _part(images, 0, images.size, pair)

    def pair(rows: Rows) -> Rows:
        image, label = _on_canvas(rows, side), rows["label"]
        return {"a": image, "b": _painted(image), "label_a": label, "label_b": label}

    half = base.sizes["train"] // 2
    image, label = Key((side, side, 3), "uint8"), Key((), "int32")
    return Source(
        keys={"a": image, "b": image, "label_a": label, "label_b": label},
        num_classes=classes,
        sizes={**base.sizes, "train": base.sizes["train"] - half},
        own_sizes={"a": {**base.sizes, "train": half}},
        open=open_split,
        apart=True,
    )


def has_partners(name: str) -> bool:
    """Whether a row's `b` is the true translation of its `a` in validation and test."""
    return name.startswith("recolored_")


def _part(images: Table, start: int, size: int, change: Callable[[Rows], Rows]) -> Table:
    """Some rows of a table in sequence, changed."""
    return Table(size, lambda indices: change(images.take(indices + start)))


def _on_canvas(rows: Rows, side: int) -> tf.Tensor:
    """uint8 [B, h, w, 1] -> [B, side, side, 3], enlarged and in the middle of black."""
    image = rows["image"]
    height, width = image.shape[1:3]
    factor = side // max(height, width)
    image = tf.repeat(tf.repeat(image, factor, axis=1), factor, axis=2)
    rows_left, columns_left = side - factor * height, side - factor * width
    around = [(left // 2, left - left // 2) for left in (rows_left, columns_left)]
    return tf.repeat(tf.pad(image, [(0, 0), *around, (0, 0)]), 3, axis=-1)


def _painted(image: tf.Tensor) -> tf.Tensor:
    """`paint` of stored pixels, uint8."""
    return tf.cast(tf.round(255.0 * paint(tf.cast(image, tf.float32) / 255.0)), tf.uint8)


def _stripes(image: tf.Tensor) -> tf.Tensor:
    """[H, W, 1], as large as an image."""
    height, width = tf.shape(image)[1], tf.shape(image)[2]
    place = tf.range(height)[:, tf.newaxis] + tf.range(width)
    lighter = tf.cast(place % 4 < 2, image.dtype)[..., tf.newaxis]
    return STRIPES * (2.0 * lighter - 1.0)
