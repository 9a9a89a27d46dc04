"""Data sets made of draws: Gaussian mixtures in the plane; stacked, placed and layered digits.

References: ring and grid of Gaussians: Srivastava et al. 2017, "VEEGAN", section 4.1; stacked
MNIST: Metz et al. 2017, "Unrolled Generative Adversarial Networks", section 3.3.2.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfgen.data import draws
from tfgen.data.pipeline import Finish, Generated, Plan, Rows, Split, Table, count_of
from tfgen.data.source import Key, Source
from tfgen.data.spec import SPLITS, DataError

SIZES = {"train": 100_000, "validation": 10_000, "test": 10_000}  # train is nominal
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
        sizes=SIZES,
        open=lambda split: Generated(SIZES[split], draw, split),
    )


def table_of(base: Source, split: str) -> Table:
    """A split of `base` that gives any example by its index."""
    opened = base.open(split)
    if not isinstance(opened, Table):
        raise TypeError(f"rows are needed by index; got {type(opened).__name__}")
    return opened


def stacked(base: Source) -> Source:
    """Three digits of `base` as red, green and blue; label = 100 * red + 10 * green + blue.

    Each split is drawn from the same split of `base`, the three digits independently.
    """
    height, width, _ = base.keys["image"].shape

    def open_split(split: str) -> Generated:
        digits = table_of(base, split)

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

        return Generated(SIZES[split], draw, split)

    return Source(
        keys={"image": Key((height, width, 3), "uint8"), "label": Key((), "int32")},
        num_classes=1000,
        sizes={split: SIZES[split] for split in SPLITS},
        open=open_split,
    )


def placed(base: Source, side: int) -> Source:
    """The images of `base`, each somewhere on a black canvas of side x side; all else as there.

    They lie anywhere inside with the same probability.

    Raises:
        DataError: if an image is larger than the canvas.
    """
    height, width, channels = base.keys["image"].shape
    if max(height, width) > side:
        raise DataError(
            f"Images to be placed must be {side}x{side} at most, the size of the canvas. "
            f"Received: {width}x{height}; give a smaller --image_size."
        )

    def place(rows: Rows, words: tf.Tensor) -> Rows:
        image = rows["image"]
        for axis in (1, 2):
            length = image.shape[axis]
            start = draws.integers(words[:, axis - 1], side - length + 1)
            # A black row and column at the end is what the canvas shows around the image.
            image = tf.pad(image, [[0, int(a == axis)] for a in range(4)])
            index = tf.range(side, dtype=tf.int64) - start[:, tf.newaxis]  # [B, side]
            index = tf.where((index >= 0) & (index < length), index, length)
            image = tf.gather(image, index, axis=axis, batch_dims=1)
        return {**rows, "image": image}

    return dataclasses.replace(
        base,
        keys={**base.keys, "image": Key((side, side, channels), "uint8")},
        open=lambda split: Varied(base.open(split), place, 2, "places", split),
    )


def layered(base: Source) -> Source:
    """The images of `base` as ink in front of grey stripes, with attributes and a mask.

    The ink has a brightness from 0.6 to 1 and lies upon stripes from 0.1 to 0.5, two periods of
    which cross the image in any direction:

        image = ink (0.6 + 0.4 w) + (1 - ink) (0.3 + 0.2 cos(4 pi (u cos t + v sin t) + phase))

    with places (u, v) in [0, 1)^2 and w, t, phase uniform. `attributes` float32 [B, A] are the
    one-hot of the label and w, all of the foreground; `mask` float32 [B, H, W, 1] is 1 where
    ink > 1/2.
    """
    height, width, _ = base.keys["image"].shape
    classes = base.num_classes or 0
    u = tf.range(width, dtype=tf.float64) / width
    v = tf.range(height, dtype=tf.float64)[:, tf.newaxis] / height

    def layer(rows: Rows, words: tf.Tensor) -> Rows:
        # In float64: float32 functions round by the place in their vector, see `draws.normals`.
        numbers = tf.cast(words, tf.float64) * 2.0**-32
        brightness, turn, phase = tf.unstack(numbers[:, tf.newaxis, tf.newaxis], axis=-1)
        angle = math.pi * turn
        along = u * tf.cos(angle) + v * tf.sin(angle)  # [B, H, W]
        stripes = 0.3 + 0.2 * tf.cos(4.0 * math.pi * along + 2.0 * math.pi * phase)
        ink = tf.cast(rows["image"], tf.float64) / 255.0
        stripes, level = stripes[..., tf.newaxis], (0.6 + 0.4 * brightness)[..., tf.newaxis]
        image = ink * level + (1.0 - ink) * stripes
        of_label = tf.one_hot(rows["label"], classes)
        return {
            **rows,
            "image": tf.cast(tf.round(255.0 * image), tf.uint8),
            "attributes": tf.concat([of_label, tf.cast(numbers[:, :1], tf.float32)], axis=1),
            "mask": tf.cast(ink > 0.5, tf.float32),
        }

    return dataclasses.replace(
        base,
        keys={
            **base.keys,
            "attributes": Key((classes + 1,), "float32"),
            "mask": Key((height, width, 1), "float32"),
        },
        open=lambda split: Varied(base.open(split), layer, 3, "layers", split),
    )


@dataclasses.dataclass(frozen=True)
class Varied:
    """A split whose rows are changed by draws of their own.

    In training the draws are a function of (seed, position in the stream), so that an example has
    others in each epoch; in `ordered` they are one of the example's index, whatever the seed.

    Attributes:
        base: the split that is changed.
        change: (rows, uint32 words [B, number]) -> rows.
        number: of words for each row.
        stream: names the draws.
        name: the split, which names the fixed draws of `ordered`.
    """

    base: Split
    change: Callable[[Rows, tf.Tensor], Rows]
    number: int
    stream: str
    name: str

    @property
    def size(self) -> int:
        """See `Split`."""
        return self.base.size

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        key = draws.stream_key(plan.seed, self.stream)
        return self.base.train(plan, self._changed(key, finish))

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        key = draws.stream_key(0, f"{self.stream}/{self.name}")
        return self.base.ordered(batch_size, size, self._changed(key, finish))

    def _changed(self, key: int, finish: Finish) -> Finish:
        """`finish` after the rows have been changed by the draws of a key."""

        def change(rows: Rows, position: tf.Tensor) -> Rows:
            words = draws.words(key, position, count_of(rows), self.number)
            return finish(self.change(rows, words), position)

        return change
