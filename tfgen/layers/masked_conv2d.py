"""A convolution that keeps to raster order: a pixel sees only pixels that come before it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class MaskedConv2D(keras.layers.Layer):
    """A convolution whose output at (i, j) sees the rows above i, and in row i the pixels before j.

        y[i, j] = activation(b + sum_(r, c) x[i + r, j + c] W[r, c]),   r < 0, or r = 0 and c < 0

    At (i, j) itself the channels are in `groups` of equal size, one after the other, e.g. three for
    the colours of an image: a group sees those before it and, with mask "B", itself. A stack of
    these layers, the first with mask "A" and the others with "B", is autoregressive.

    For example `MaskedConv2D(32, 7, "A")` maps [64, 28, 28, 1] to [64, 28, 28, 32], each pixel from
    the three rows above it and three pixels on its left; its kernel is [4, 7, 1, 32], as the rows
    below have no weights. Images are padded with zeros to keep their size.

    Reference: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu. Pixel Recurrent Neural Networks.
    ICML 2016, section 3.4 and figure 2 (masks A and B, the order of colours).

    Args:
        filters: output channels, a multiple of `groups`.
        kernel_size: odd sides of the unmasked kernel, an integer or (rows, columns).
        mask: "A" or "B".
        groups: of the channels of input and output.
        activation: after the affine map; None is linear.
        use_bias: whether there is a b.
        kernel_initializer: of W; what is masked has no influence.
        bias_initializer: of b.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range, or there is nothing that a pixel would see.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        mask: str,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        sides = (kernel_size,) * 2 if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(sides) != 2 or any(side < 1 or side % 2 == 0 for side in sides):
            raise ValueError(f"kernel_size must be odd. Received: kernel_size={kernel_size}")
        if mask not in ("A", "B"):
            raise ValueError(f"mask must be 'A' or 'B'. Received: mask={mask!r}")
        if groups < 1 or filters < 1 or filters % groups:
            raise ValueError(
                "filters must be a multiple of groups, both more than 0. "
                f"Received: filters={filters}, groups={groups}"
            )
        if mask == "A" and sides == (1, 1) and groups == 1:
            raise ValueError(
                "with mask 'A' and one group a pixel sees only others: kernel_size must be 3 or "
                f"more. Received: kernel_size={kernel_size}"
            )
        self.filters, self.kernel_size, self.mask, self.groups = filters, sides, mask, groups
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: tuple) -> None:
        """Makes W and b, for inputs [B, H, W, C]."""
        channels = input_shape[-1]
        if len(input_shape) != 4 or channels % self.groups:
            raise ValueError(
                f"{self.name} takes [B, H, W, C], C a multiple of groups={self.groups}. "
                f"Received: input shape {tuple(input_shape)}"
            )
        rows, columns = (side // 2 for side in self.kernel_size)
        seen = np.ones((rows + 1, 2 * columns + 1, channels, self.filters), np.float32)
        seen[rows, columns + 1 :] = 0.0
        of_inputs = np.arange(channels)[:, np.newaxis] * self.groups // channels
        of_outputs = np.arange(self.filters) * self.groups // self.filters
        here = of_inputs < of_outputs if self.mask == "A" else of_inputs <= of_outputs
        seen[rows, columns] = here
        self.seen = seen
        self.kernel = self.add_weight(
            shape=seen.shape, initializer=self.kernel_initializer, name="kernel"
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.filters,), initializer=self.bias_initializer, name="bias"
            )

    def masked_kernel(self) -> tf.Tensor:
        """W, 0 where it is masked: [rows above and this one, columns, inputs, outputs]."""
        kernel = tf.convert_to_tensor(self.kernel)
        return kernel * tf.cast(self.seen, kernel.dtype)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, filters]."""
        rows, columns = (side // 2 for side in self.kernel_size)
        # TensorFlow's kernels with explicit padding take more than twice the time of these two.
        padded = tf.pad(inputs, [[0, 0], [rows, 0], [columns, columns], [0, 0]])
        outputs = tf.nn.conv2d(padded, self.masked_kernel(), 1, "VALID")
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[B, H, W, C] -> [B, H, W, filters]."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "mask": self.mask,
            "groups": self.groups,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
