"""Data sets made of draws: two Gaussian mixtures in the plane, and stacked digits.

References: ring and grid of Gaussians: Srivastava et al. 2017, "VEEGAN", section 4.1; stacked
MNIST: Metz et al. 2017, "Unrolled Generative Adversarial Networks", section 3.3.2.
"""

import math

import numpy as np
import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Generated, Rows, Table
from tfgen.data.source import Key, Source
from tfgen.data.spec import SPLITS

_SIZES = {"train": 100_000, "validation": 10_000, "test": 10_000}  # train is nominal
MIXTURES = ("ring8", "grid25")


def centres(name: str) -> np.ndarray:
    """Means of the mixture, float32 [modes, 2]; mode k is row k.

    ring8: radius 2, counter-clockwise from (2, 0). grid25: {-4, -2, 0, 2, 4}^2, x slowest.
    """
    if name == "ring8":
        angle = 2.0 * math.pi * np.arange(8) / 8
        return np.stack([2.0 * np.cos(angle), 2.0 * np.sin(angle)], axis=1).astype("float32")
    axis = np.arange(-4.0, 5.0, 2.0)
    return (
        np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")
    )


def deviation(name: str) -> float:
    """Standard deviation of each mode, in each direction."""
    return {"ring8": 0.02, "grid25": 0.05}[name]


def scale(name: str) -> float:
    """Standard deviation of the mixture in each direction; its mean is 0."""
    return math.sqrt(float(np.mean(np.square(centres(name)))) + deviation(name) ** 2)


def mixture(name: str) -> Source:
    """`ring8` or `grid25`: `point` float32 [B, 2] and `label`, its mode."""
    means, sigma = centres(name), deviation(name)

    def draw(key: int, position: tf.Tensor, count: tf.Tensor | int) -> Rows:
        word = draws.words(key, position, count, 3)
        mode = draws.integers(word[:, 0], len(means))
        noise = draws.normals(word[:, 1], word[:, 2])
        point = tf.gather(tf.constant(means), mode) + sigma * noise
        return {"point": point, "label": tf.cast(mode, tf.int32)}

    return Source(
        keys={"point": Key((2,), "float32"), "label": Key((), "int32")},
        num_classes=len(means),
        sizes=_SIZES,
        open=lambda split: Generated(_SIZES[split], draw, split),
    )


def stacked(base: Source) -> Source:
    """Three digits of `base` as red, green and blue; label = 100 * red + 10 * green + blue.

    Each split is drawn from the same split of `base`, the three digits independently.
    """
    height, width, _ = base.keys["image"].shape

    def open_split(split: str) -> Generated:
        digits = base.open(split)
        if not isinstance(digits, Table):
            raise TypeError(f"stacked digits need a table; got {type(digits).__name__}")

        def draw(key: int, position: tf.Tensor, count: tf.Tensor | int) -> Rows:
            chosen = draws.integers(draws.words(key, position, count, 3), digits.size)  # [B, 3]
            rows = digits.take(tf.reshape(chosen, [-1]))
            image = tf.reshape(rows["image"], [-1, 3, height, width])
            if isinstance(count, int):
                image = tf.ensure_shape(image, [count, 3, height, width])
            label = tf.reshape(rows["label"], [-1, 3]) * tf.constant([100, 10, 1])
            return {
                "image": tf.transpose(image, [0, 2, 3, 1]),
                "label": tf.reduce_sum(label, axis=1),
            }

        return Generated(_SIZES[split], draw, split)

    return Source(
        keys={"image": Key((height, width, 3), "uint8"), "label": Key((), "int32")},
        num_classes=1000,
        sizes={split: _SIZES[split] for split in SPLITS},
        open=open_split,
    )
