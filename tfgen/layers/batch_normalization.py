"""Batch norm by one kernel."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm, whose training on one device is a single kernel of TensorFlow.

    The same layer with the same weights, whose moving variance is of the same biased kind. Keras
    builds it of sums and products, which read the images several times and, in bfloat16, cast them
    twice. What the kernel cannot do is done as Keras does it: inference, several replicas, masks,
    renormalisation, other axes than the last. For example [64, 14, 14, 128] -> [64, 14, 14, 128] by
    128 means, [64, 1024] -> [64, 1024] by 1024.

    Reference: S. Ioffe, C. Szegedy. Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift. ICML 2015, algorithm 1.

    Args: those of `keras.layers.BatchNormalization`.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """[B, C] or [B, H, W, C] -> the same shape."""
        if not training or not self.trainable or not self._is_plain(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        inputs = tf.convert_to_tensor(inputs)
        maps = inputs if inputs.shape.rank == 4 else inputs[:, tf.newaxis, tf.newaxis]
        channels = (inputs.shape[-1],)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=self.gamma.value if self.scale else tf.ones(channels),
            offset=self.beta.value if self.center else tf.zeros(channels),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        number = tf.cast(tf.size(maps) // channels[0], tf.float32)
        variance *= (number - 1) / number  # The kernel's is the unbiased one.
        for moving, found in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + found * (1.0 - self.momentum))
        return outputs if inputs.shape.rank == 4 else outputs[:, 0, 0]

    def _is_plain(self, inputs: Any, mask: Any) -> bool:
        rank = len(inputs.shape)
        replica = tf.distribute.get_replica_context()
        alone = replica is not None and replica.num_replicas_in_sync == 1
        last = self.axis in (-1, rank - 1)
        float32 = self.variable_dtype == "float32"
        return rank in (2, 4) and last and float32 and mask is None and alone and not self.renorm
