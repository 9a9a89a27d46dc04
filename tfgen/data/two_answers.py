"""Paired images with two right answers: a shape in grey, and the same in red or in blue.

A fair coin chooses the colour, anew for each position in the training stream; in order it is fixed
for each index. Who minimises a distance answers with a mixture of both; the paper of pix2pix
(Isola et al. 2017, section 1) gives an adversarial loss against this.
"""

import dataclasses

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Rows, Split, Table
from tfgen.data.source import Key, Source
from tfgen.data.synthetic import Varied, table_of

SIDE = 16  # of an image, in pixels
COLOURS = ((0.90, 0.15, 0.15), (0.15, 0.25, 0.90))  # RGB of red and blue
_CHANNELS = 3


def answers(source: tf.Tensor) -> tf.Tensor:
    """Both right answers for a source.

    Args:
        source: float [B, H, W, 1] in [0, 1].

    Returns:
        float [B, 2, H, W, 3] in [0, 1]: the shape in red, and in blue.
    """
    colours = tf.reshape(tf.constant(COLOURS, source.dtype), [1, len(COLOURS), 1, 1, _CHANNELS])
    return source[:, tf.newaxis] * colours


def two_answers(base: Source) -> Source:
    """`source` uint8 [16, 16, 1]: digits of `base`, enlarged; `target` [16, 16, 3]; `label`."""

    def open_split(split: str) -> Split:
        digits = table_of(base, split)

        def take(indices: tf.Tensor) -> Rows:
            rows = digits.take(indices)
            image = tf.image.resize(tf.cast(rows["image"], tf.float32), [SIDE, SIDE], "bilinear")
            return {"source": tf.cast(tf.round(image), tf.uint8), "label": rows["label"]}

        return Varied(Table(digits.size, take), _toss, 1, "colours", split)

    return dataclasses.replace(
        base,
        keys={
            "source": Key((SIDE, SIDE, 1), "uint8"),
            "target": Key((SIDE, SIDE, _CHANNELS), "uint8"),
            "label": base.keys["label"],
        },
        open=open_split,
    )


def _toss(rows: Rows, words: tf.Tensor) -> Rows:
    """`rows` with one of the two answers."""
    both = answers(tf.cast(rows["source"], tf.float32) / 255.0)
    coin = draws.integers(words[:, 0], len(COLOURS))
    target = tf.gather(both, coin, axis=1, batch_dims=1)
    return {**rows, "target": tf.cast(tf.round(255.0 * target), tf.uint8)}
