"""Paired images like facades: a plan of rectangles in flat colours, and the same with textures.

`source` shows six classes in flat colours, `target` the texture of each. The first four have the
same mean colour, as have the last two: what tells them apart is waves of four pixels, whose phase
is random. Who minimises a distance to the target renders them alike, as the mean over phases is
flat; `metrics.recogniser` tells them apart.

All is drawn from (seed, position): four rectangles upon a background.
"""

import math

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Generated, Rows
from tfgen.data.source import Key, Source
from tfgen.data.synthetic import SIZES

SIDE = 32  # of an image, in pixels
PERIOD = 4  # of the waves, in pixels
WAVE = 0.20  # amplitude of stripes; that of checks is larger by sqrt(2), for the same variance
_WARM, _COOL = (0.60, 0.48, 0.38), (0.38, 0.50, 0.62)
CLASSES = ("plain", "horizontal", "vertical", "checks", "cool horizontal", "cool vertical")
PALETTE = (  # RGB of each class in `source`
    (0.10, 0.10, 0.60),
    (0.90, 0.75, 0.10),
    (0.80, 0.15, 0.15),
    (0.15, 0.65, 0.25),
    (0.55, 0.15, 0.65),
    (0.15, 0.75, 0.80),
)
MEANS = (_WARM, _WARM, _WARM, _WARM, _COOL, _COOL)  # RGB of each class in `target`, on average
# Whether the texture of each class waves along (rows, columns): stripes that are horizontal wave
# from row to row.
WAVES = ((0, 0), (1, 0), (0, 1), (1, 1), (1, 0), (0, 1))
_RECTANGLES = 4
_LEAST, _MOST = 8, 18  # sides of rectangles, in pixels
_WORDS = 1 + 5 * _RECTANGLES + 2 * len(CLASSES)


def mosaic() -> Source:
    """`source` and `target`, uint8 [32, 32, 3]; `segmentation` int32 [32, 32], the class."""

    def draw(key: int, position: tf.Tensor, count: tf.Tensor | int) -> Rows:
        words = draws.words(key, position, count, _WORDS)
        segmentation = _plan(words[:, : -2 * len(CLASSES)])
        # In float64: float32 functions round by the place in their vector, see `draws.normals`.
        phases = tf.cast(words[:, -2 * len(CLASSES) :], tf.float64) * (2.0 * math.pi * 2.0**-32)
        return {
            "source": _pixels(tf.gather(tf.constant(PALETTE, tf.float64), segmentation)),
            "target": _pixels(_textured(segmentation, phases)),
            "segmentation": segmentation,
        }

    image = Key((SIDE, SIDE, 3), "uint8")
    return Source(
        keys={"source": image, "target": image, "segmentation": Key((SIDE, SIDE), "int32")},
        num_classes=None,
        sizes=SIZES,
        open=lambda split: Generated(SIZES[split], draw, split),
    )


def _plan(words: tf.Tensor) -> tf.Tensor:
    """Words [B, 1 + 5 * rectangles] -> the class of each pixel, int32 [B, 32, 32]."""
    place = tf.range(SIDE, dtype=tf.int64)
    background, rest = words[:, 0], tf.reshape(words[:, 1:], [-1, _RECTANGLES, 5])
    classes = draws.integers(background, len(CLASSES))[:, tf.newaxis, tf.newaxis]
    plan = tf.tile(classes, [1, SIDE, SIDE])
    for word in tf.unstack(rest, axis=1):
        inside = []
        for at in (0, 2):  # rows, columns: a length and then a place
            length = _LEAST + draws.integers(word[:, at], _MOST - _LEAST + 1)
            start = draws.integers(word[:, at + 1], SIDE + 1 - length)[:, tf.newaxis]
            inside.append((place >= start) & (place < start + length[:, tf.newaxis]))
        rectangle = inside[0][:, :, tf.newaxis] & inside[1][:, tf.newaxis]
        of_rectangle = draws.integers(word[:, 4], len(CLASSES))[:, tf.newaxis, tf.newaxis]
        plan = tf.where(rectangle, of_rectangle, plan)
    return tf.cast(plan, tf.int32)


def _textured(segmentation: tf.Tensor, phases: tf.Tensor) -> tf.Tensor:
    """The texture of each pixel's class: float64 [B, 32, 32, 3] in [0, 1]."""
    angle = tf.range(SIDE, dtype=tf.float64) * (2.0 * math.pi / PERIOD)
    of_class = []
    for number, (along_rows, along_columns) in enumerate(WAVES):
        down, across = (
            tf.cos(angle + phases[:, at, tf.newaxis]) for at in (2 * number, 2 * number + 1)
        )
        wave = WAVE * tf.ones([1, SIDE, SIDE], tf.float64)
        if along_rows:
            wave *= down[:, :, tf.newaxis]
        if along_columns:
            wave *= across[:, tf.newaxis]
        height = math.sqrt(2.0) if along_rows and along_columns else 1.0
        of_class.append(height * wave if along_rows or along_columns else tf.zeros_like(wave))
    waves = tf.stack([tf.broadcast_to(w, tf.shape(segmentation)) for w in of_class], axis=-1)
    wave = tf.gather(waves, segmentation, axis=-1, batch_dims=3)
    return tf.gather(tf.constant(MEANS, tf.float64), segmentation) + wave[..., tf.newaxis]


def _pixels(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(255.0 * image), tf.uint8)
