"""A dense layer that keeps to an order: unit j sees only inputs that come before it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class MaskedDense(keras.layers.Layer):
    """A dense layer with a mask made of degrees.

        y = activation(x (W * M) + b),   M_ij = 1 if in_degrees[i] <= out_degrees[j], else 0

    With `strict` the comparison is <. For example in_degrees (1, 2, 3) and out_degrees (1, 2, 2)
    map [64, 3] to [64, 3], the first unit seeing the first input and the others the first two.
    Layers in a row whose degrees fit, the last one strict, make an autoregressive network.

    Reference: M. Germain, K. Gregor, I. Murray, H. Larochelle. MADE: Masked Autoencoder for
    Distribution Estimation. ICML 2015, eq. 8 (hidden layers) and 9 (output).

    Args:
        in_degrees: one integer for each input.
        out_degrees: one integer for each unit.
        strict: whether a unit of degree d sees inputs below d only, and not d.
        activation: after the affine map; None is linear.
        use_bias: whether there is a b.
        kernel_initializer: of W; what is masked has no influence.
        bias_initializer: of b.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if there are no degrees, or other than one for each input.
    """

    def __init__(
        self,
        in_degrees: Sequence[int],
        out_degrees: Sequence[int],
        strict: bool = False,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if not len(in_degrees) or not len(out_degrees):
            raise ValueError(
                "in_degrees and out_degrees need one integer each at least. "
                f"Received: {len(in_degrees)} and {len(out_degrees)}"
            )
        self.in_degrees = [int(d) for d in in_degrees]
        self.out_degrees = [int(d) for d in out_degrees]
        self.strict, self.use_bias = strict, use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        below, above = np.array(self.in_degrees)[:, np.newaxis], np.array(self.out_degrees)
        self.mask = (below < above if strict else below <= above).astype(np.float32)

    def build(self, input_shape: tuple) -> None:
        """Makes W and b, for inputs [..., len(in_degrees)]."""
        if input_shape[-1] != len(self.in_degrees):
            raise ValueError(
                f"{self.name} has {len(self.in_degrees)} in_degrees and so takes as many inputs. "
                f"Received: input shape {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            shape=self.mask.shape, initializer=self.kernel_initializer, name="kernel"
        )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(len(self.out_degrees),), initializer=self.bias_initializer, name="bias"
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., len(in_degrees)] -> [..., len(out_degrees)]."""
        kernel = tf.convert_to_tensor(self.kernel)
        outputs = tf.matmul(inputs, kernel * tf.cast(self.mask, kernel.dtype))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[..., len(in_degrees)] -> [..., len(out_degrees)]."""
        return (*input_shape[:-1], len(self.out_degrees))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "in_degrees": self.in_degrees,
            "out_degrees": self.out_degrees,
            "strict": self.strict,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
