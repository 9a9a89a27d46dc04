"""A dense layer with weight normalisation and its data-dependent start."""

from typing import Any

import keras
import tensorflow as tf

_EPSILON = 1e-12  # Under the roots, so that a kernel or a variance of 0 gives no infinity.


@keras.saving.register_keras_serializable("tfgen")
class WeightNormDense(keras.layers.Layer):
    """A dense layer in which length and direction of each unit's weights are apart.

        y = activation(t g + b),   t = x V / ||V||

    with the norm of each column of V and one g and b a unit. `initialize` sets g and b such that
    over a given batch the values before the activation have mean 0 and variance 1:

        g = 1 / std(t),   b = -mean(t) / std(t)

    For example 784 inputs and 1000 units: V is [784, 1000], g and b [1000].

    Reference: T. Salimans, D. P. Kingma. Weight Normalization. NeurIPS 2016, eq. 2 (weights), 5-6
    (data-dependent start).

    Args:
        units: number of outputs.
        activation: after the affine map; None is linear.
        train_scale: whether g is trained; it begins as 1.
        kernel_initializer: of V, whose directions are all that matters of it.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        train_scale: bool = True,
        kernel_initializer: Any = "random_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if units < 1:
            raise ValueError(f"units must be 1 or more. Received: units={units}")
        self.units, self.train_scale = units, train_scale
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple) -> None:
        """Makes V, g and b, for inputs [..., A]."""
        # Without autocast they are float32 in mixed precision too.
        self.direction = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            autocast=False,
            name="direction",
        )
        self.scale = self.add_weight(
            shape=(self.units,),
            initializer="ones",
            trainable=self.train_scale,
            autocast=False,
            name="scale",
        )
        self.bias = self.add_weight(
            shape=(self.units,), initializer="zeros", autocast=False, name="bias"
        )

    def _unit_kernel(self) -> tf.Tensor:
        v = tf.convert_to_tensor(self.direction)
        return v * tf.math.rsqrt(tf.reduce_sum(v**2, axis=0) + _EPSILON)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[..., A] -> [..., units]."""
        kernel = tf.cast(self._unit_kernel() * self.scale, inputs.dtype)
        return self.activation(inputs @ kernel + tf.cast(self.bias, inputs.dtype))

    def initialize(self, inputs: tf.Tensor) -> tf.Tensor:
        """Sets g and b by a batch [N, ..., A], and returns what the layer makes of it."""
        if not self.built:
            self.build(inputs.shape)
        projected = tf.cast(inputs, tf.float32) @ self._unit_kernel()
        mean, var = tf.nn.moments(projected, list(range(projected.shape.rank - 1)))
        scale = tf.math.rsqrt(var + _EPSILON)
        self.scale.assign(scale)
        self.bias.assign(-mean * scale)
        return self(inputs)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[..., A] -> [..., units]."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "train_scale": self.train_scale,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
