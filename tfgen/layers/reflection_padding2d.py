"""Padding that mirrors an image at its edges."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class ReflectionPadding2D(keras.layers.Layer):
    """Mirrors `padding` pixels beyond each edge; the pixel at the edge is not repeated.

    For example with padding 1 the row 1 2 3 becomes 2 1 2 3 2, and [4, 32, 32, 3] becomes
    [4, 34, 34, 3].

    Args:
        padding: pixels at each edge, 0 or more and less than the sides of the images.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if the padding is negative, or an image is too small for it.
    """

    def __init__(self, padding: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if padding < 0:
            raise ValueError(f"padding must be 0 or more. Received: padding={padding}")
        self.padding = padding

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H + 2 padding, W + 2 padding, C]."""
        if any(side is not None and side <= self.padding for side in inputs.shape[1:3]):
            raise ValueError(
                f"padding {self.padding} mirrors images whose sides are at least "
                f"{self.padding + 1}. Received: {inputs.shape[1]}x{inputs.shape[2]}"
            )
        edge = [self.padding, self.padding]
        return tf.pad(inputs, [[0, 0], edge, edge, [0, 0]], mode="REFLECT")

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Both sides are longer by 2 padding."""
        batch, *sides, channels = input_shape
        return batch, *(s if s is None else s + 2 * self.padding for s in sides), channels

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "padding": self.padding}
