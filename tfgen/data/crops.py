"""Images of one size: resized, cropped and flipped, by chance in training (`tfgen.jitter`)."""

import dataclasses

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.images import Size
from tfgen.data.pipeline import Finish, Plan, Rows, Split, count_of
from tfgen.data.source import Key, Source
from tfgen.data.spec import DataError
from tfgen.jitter import Jitter

_WORDS = 3  # of one crop: from the top, from the left, flipped or not


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What images are resized to as they are read; see `images.read_pixels`.

    Attributes:
        train: for the training split.
        held_out: for validation and test.
    """

    train: Size = None
    held_out: Size = None

    @classmethod
    def of(cls, image_size: int | None, jitter: Jitter | None) -> "Sizes":
        """The sizes that `tfgen.data.load` is asked for.

        Raises:
            DataError: if both ask for one.
        """
        if jitter is None:
            return cls(image_size, image_size)
        if image_size is not None and jitter.resize is not None:
            height, width = jitter.resize
            raise DataError(
                "Images are resized by --image_size or by --resize, not by both. Received: "
                f"--image_size={image_size} --resize={height},{width}"
            )
        if image_size is not None:
            return cls(image_size, image_size)
        return cls(jitter.resize, jitter.resize and (jitter.crop or jitter.resize))

    def split(self, name: str) -> Size:
        """The size for one split."""
        return self.train if name == "train" else self.held_out

    @property
    def square(self) -> int | None:
        """The side, where it is one that images are also cropped to; else None."""
        return self.train if isinstance(self.train, int) else None

    @property
    def parts(self) -> "Sizes":
        """Those of images that an image is made of, which are not resized whole."""
        return Sizes(self.square, self.square)


def sized(key: Key, size: Size) -> Key:
    """An image's key once it is resized."""
    if size is None:
        return key
    sides = (size, size) if isinstance(size, int) else size
    return Key((*sides, *key.shape[2:]), key.dtype)


def resized(source: Source, size: int | None) -> Source:
    """A source of square images made in code, resized in each batch; None to leave them."""
    return source if size is None else jittered("", source, Jitter(resize=(size, size)))


def jittered(name: str, source: Source, jitter: Jitter | None) -> Source:
    """`source` with its images resized, cropped and flipped; None changes nothing.

    What is laid out as an image (a mask, a segmentation) is treated with it, resized without
    mixing values. All keys of an example share the crop and the flip, unless `source.apart`.

    Raises:
        DataError: if there are no images, or the crop is larger than they are.
    """
    if jitter is None:
        return source
    images = {key: k for key, k in source.keys.items() if k.is_image}
    if not images:
        raise DataError(
            f"--resize, --crop and --flip are for images; data set {name!r} has none, it has "
            f"{', '.join(source.keys)}."
        )
    sides = {k.shape[:2] for k in images.values()}
    maps = {key: k for key, k in source.keys.items() if key in images or k.shape[:2] in sides}
    held = {key: jitter.resize or k.shape[:2] for key, k in maps.items()}
    for key in images:
        _check_crop(name, key, held[key], jitter)
    taken = {key: jitter.crop or size for key, size in held.items()}

    def open_split(split: str) -> Split:
        at = taken if split != "train" and jitter.resize else held
        return Jittered(source.open(split), at, taken, jitter.flip, source.apart)

    keys = {key: Key((*taken[key], *k.shape[2:]), k.dtype) for key, k in maps.items()}
    return dataclasses.replace(source, keys={**source.keys, **keys}, open=open_split)


def _check_crop(name: str, key: str, held: tuple[int, ...], jitter: Jitter) -> None:
    if jitter.crop is None or (jitter.crop[0] <= held[0] and jitter.crop[1] <= held[1]):
        return
    what = "are resized to" if jitter.resize else "are"
    raise DataError(
        f"--crop={jitter.crop[0]},{jitter.crop[1]} (height, width) is larger than the images "
        f"{key!r} of data set {name!r}, which {what} {held[0]},{held[1]}; give a smaller --crop or "
        "a larger --resize."
    )


@dataclasses.dataclass(frozen=True)
class Jittered:
    """A split whose images are resized, cropped and flipped.

    In training crop and flip are functions of (seed, position in the stream); `ordered` takes the
    centre and flips nothing.

    Attributes:
        base: the split that is changed.
        held: (height, width) that each image and map is resized to if it is not of that size.
        taken: (height, width) of the part of it that is taken.
        flip: whether half of them are flipped in training.
        apart: whether each key has draws of its own.
    """

    base: Split
    held: dict[str, tuple[int, ...]]
    taken: dict[str, tuple[int, ...]]
    flip: bool
    apart: bool

    @property
    def size(self) -> int:
        """See `Split`."""
        return self.base.size

    def train(self, plan: Plan, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""
        number = _WORDS * (len(self.held) if self.apart else 1)
        key = draws.stream_key(plan.seed, "jitter")

        def change(rows: Rows, position: tf.Tensor) -> Rows:
            words = draws.words(key, position, count_of(rows), number)
            of_key = tf.split(words, number // _WORDS, axis=1)
            if not self.apart:
                of_key = of_key * len(self.held)
            parts = dict(zip(self.held, of_key, strict=True))
            changed = {
                name: _random_part(value, self.taken[name], parts[name], self.flip)
                for name, value in self._fitted(rows).items()
            }
            return finish({**rows, **changed}, position)

        return self.base.train(plan, change)

    def ordered(self, batch_size: int, size: int, finish: Finish) -> tf.data.Dataset:
        """See `Split`."""

        def change(rows: Rows, position: tf.Tensor) -> Rows:
            fitted = self._fitted(rows)
            changed = {name: _centre(value, self.taken[name]) for name, value in fitted.items()}
            return finish({**rows, **changed}, position)

        return self.base.ordered(batch_size, size, change)

    def _fitted(self, rows: Rows) -> Rows:
        """The images and maps among `rows`, of the size that they are held at."""
        return {name: _resize(rows[name], size) for name, size in self.held.items() if name in rows}


def _resize(value: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """[B, H, W, ...] -> [B, *size, ...]: images by Lanczos (antialiased), maps by the nearest."""
    if tuple(value.shape[1:3]) == tuple(size):
        return value
    if value.dtype == tf.uint8:
        image = tf.image.resize(tf.cast(value, tf.float32), size, "lanczos3", antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 255.0)), tf.uint8)
    flat = value.shape.rank == 3
    image = tf.image.resize(value[..., tf.newaxis] if flat else value, size, "nearest")
    return image[..., 0] if flat else image


def _centre(value: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    height, width = size
    top, left = (value.shape[1] - height) // 2, (value.shape[2] - width) // 2
    return value[:, top : top + height, left : left + width]


def _random_part(
    value: tf.Tensor, size: tuple[int, ...], words: tf.Tensor, flip: bool
) -> tf.Tensor:
    """A part of each of [B, H, W, ...] at a place drawn by words [B, 3], flipped or not."""
    for axis, length in enumerate(size, start=1):
        room = value.shape[axis] - length
        index = tf.range(length, dtype=tf.int64)[tf.newaxis]
        turn = flip and axis == 2
        if turn:
            index = tf.where(draws.integers(words[:, 2:3], 2) == 1, length - 1 - index, index)
        if room:
            index += draws.integers(words[:, axis - 1, tf.newaxis], room + 1)
        if turn or room:
            value = tf.gather(value, index, axis=axis, batch_dims=1)
    return value
