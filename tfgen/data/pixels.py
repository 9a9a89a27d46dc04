"""From stored pixels (uint8, 0..255) to the range that a system wishes."""

import dataclasses

import tensorflow as tf

from tfgen.data import draws
from tfgen.data.spec import BINARIZATIONS, IMAGE_RANGES, DataError

_FIXED_SEED = 0  # "fixed" binarisation is the same for everybody, for ever


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Turns uint8 images into batch images.

    image_range:
      "unit": grey / 255, float32 [0, 1].
      "symmetric": 2 * grey / 255 - 1, float32 [-1, 1].
      "binary": float32 {0, 1}, by `binarization`.
      "uint8": as stored.

    binarization, used by "binary" alone, with p = grey / 255:
      "dynamic": Bernoulli(p), drawn anew at each use from (seed, position in the stream).
      "fixed": Bernoulli(p), drawn once from the example's index in its split (Salakhutdinov and
        Murray 2008 fixed MNIST so; this draw is not theirs).
      "threshold": p > 0.5.
    """

    image_range: str = "unit"
    binarization: str = "dynamic"

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.image_range, IMAGE_RANGES, "image range"),
            (self.binarization, BINARIZATIONS, "binarization"),
        ):
            if value not in allowed:
                raise DataError(f"Unknown {what} {value!r}; one of {', '.join(allowed)}.")

    @property
    def dtype(self) -> str:
        """The dtype of batch images."""
        return "uint8" if self.image_range == "uint8" else "float32"

    @property
    def fixed(self) -> bool:
        """Whether the stored images are to be binarised once (`binarize_fixed`)."""
        return self.image_range == "binary" and self.binarization == "fixed"

    def __call__(self, image: tf.Tensor, key: int, position: tf.Tensor) -> tf.Tensor:
        """Maps uint8 [B, H, W, C] to the wished range, the same shape.

        Args:
            image: stored pixels, 0..255 (with "fixed" already only 0 and 255).
            key: key of the noise stream (`draws.stream_key`).
            position: int64 scalar, position of the first row in that stream.
        """
        if self.image_range == "uint8":
            return image
        if self.image_range == "binary":
            if self.binarization == "dynamic":
                return tf.cast(draws.bernoulli(image, key, position), tf.float32)
            return tf.cast(image > 127, tf.float32)
        unit = tf.cast(image, tf.float32) / 255.0
        return unit if self.image_range == "unit" else 2.0 * unit - 1.0


def binarize_fixed(image: tf.Tensor, split: str, index: tf.Tensor) -> tf.Tensor:
    """The one draw of "fixed": uint8 [B, H, W, C] -> uint8 {0, 255}; row i is example index + i."""
    key = draws.stream_key(_FIXED_SEED, f"fixed/{split}")
    return tf.cast(draws.bernoulli(image, key, index), tf.uint8) * 255


def resize(image: tf.Tensor, size: int | tuple[int, int], method: str = "lanczos3") -> tf.Tensor:
    """Resizes the shorter side to `size` and crops the centre square, or resizes the whole image.

    Args:
        image: uint8 [H, W, C], e.g. [218, 178, 3].
        size: side of the result, e.g. 64: [218, 178, 3] -> [78, 64, 3] -> [64, 64, 3]; or its
            height and width, whatever the aspect.
        method: a `tf.image.resize` method; applied with antialiasing.

    Returns:
        uint8 [size, size, C], or [height, width, C].
    """
    height, width = scaled = (size, size) if isinstance(size, int) else size
    if isinstance(size, int):
        shape = tf.shape(image)[:2]
        short = tf.reduce_min(shape)
        scaled = tf.cast(tf.round(shape * size / short), tf.int32)  # shorter side exactly `size`
    resized = tf.image.resize(tf.cast(image, tf.float32), scaled, method=method, antialias=True)
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    part = resized[top : top + height, left : left + width]
    part = tf.cast(tf.round(tf.clip_by_value(part, 0.0, 255.0)), tf.uint8)
    return tf.ensure_shape(part, [height, width, image.shape[-1]])
