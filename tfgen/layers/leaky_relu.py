"""A leaky ReLU for critics whose gradient is penalised."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class LeakyReLU(keras.layers.LeakyReLU):
    """`keras.layers.LeakyReLU` that knows its second derivative to be 0.

    TensorFlow differentiates its kernel to a tensor of zeros, which a gradient penalty then takes
    back through every layer below: two products a layer for nothing. Here that path ends.

    For example with negative_slope = 0.2: [-1, 2] -> [-0.2, 2].
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """max(x, 0) + negative_slope * min(x, 0)."""
        slope = float(self.negative_slope)

        @tf.custom_gradient
        def leaky_relu(x: tf.Tensor) -> tuple:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                return tf.raw_ops.LeakyReluGrad(
                    gradients=upstream, features=tf.stop_gradient(x), alpha=slope
                )

            return tf.nn.leaky_relu(x, slope), gradient

        return leaky_relu(tf.convert_to_tensor(inputs))
