"""Optimisers whose update is one kernel."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` that updates each variable by TensorFlow's fused kernel.

    The same arithmetic, theta -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon),
    in one pass over the memory instead of one for each operation. Falls back to Keras' own update
    for AMSGrad and sparse gradients.

    Reference: D. P. Kingma, J. Ba. Adam. ICLR 2015, section 2 (the efficient order).
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: tf.Tensor) -> None:
        """Moves one variable and its two moments."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        beta1, beta2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta1, step),
            beta2_power=tf.pow(beta2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=tf.constant(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )
