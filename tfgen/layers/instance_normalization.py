"""Normalisation by the statistics of what is at hand: of each image, or of a training batch."""

from typing import Any

import keras
import tensorflow as tf

_OF_THE_KERNEL = ("float16", "bfloat16", "float32")  # What TensorFlow's fused batch norm takes.


@keras.saving.register_keras_serializable("tfgen")
class InstanceNormalization(keras.layers.Layer):
    """Scales each channel of each image to mean 0 and variance 1, then by a learnt affine map.

        y = gamma (x - mean(x)) / sqrt(var(x) + epsilon) + beta,   over the image's pixels

    No moving average is kept: training and inference are the same, and an image's result does not
    depend on its batch. For example [4, 32, 32, 64] -> [4, 32, 32, 64] by 4 * 64 means.

    Reference: D. Ulyanov, A. Vedaldi, V. Lempitsky. Instance Normalization: The Missing Ingredient
    for Fast Stylization. arXiv:1607.08022, eq. 2.

    Args:
        epsilon: added to the variance, above 0.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if epsilon is not above 0, or inputs are not [B, H, W, C].
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        if epsilon <= 0:
            raise ValueError(f"epsilon must be more than 0. Received: epsilon={epsilon}")
        self.epsilon = epsilon

    def build(self, input_shape: tuple) -> None:
        """Makes gamma and beta [C], in float32 whatever the precision of the rest."""
        if len(input_shape) != 4:
            raise ValueError(
                f"{self.name} takes images [B, H, W, C]. Received: input shape {input_shape}"
            )
        self.gamma, self.beta = (
            self.add_weight(
                shape=(input_shape[-1],),
                initializer=init,
                autocast=False,
                dtype="float32",
                name=name,
            )
            for name, init in (("gamma", "ones"), ("beta", "zeros"))
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        if inputs.shape[0] == 1 and inputs.dtype.name in _OF_THE_KERNEL:
            return self._fused(inputs)
        return self._over(inputs, [1, 2])

    def _over(self, inputs: tf.Tensor, axes: list[int]) -> tf.Tensor:
        """Scaled by the mean and the variance over these axes."""
        mean, variance = tf.nn.moments(tf.cast(inputs, tf.float32), axes, keepdims=True)
        # Their variance is around a constant. What is 0 here gives it the second derivatives of the
        # variance around the mean, which a gradient penalty needs.
        variance -= tf.square(mean - tf.stop_gradient(mean))
        return self._scaled(inputs, mean, variance)

    def _fused(self, inputs: tf.Tensor) -> tf.Tensor:
        """By TensorFlow's kernel for batch norm: of one image it is the same, in half the time."""
        outputs, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        return outputs

    def _scaled(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        scale = self.gamma.value * tf.math.rsqrt(variance + self.epsilon)
        # In float32 to the end: mean * scale is large where a channel hardly varies.
        offset = self.beta.value - mean * scale
        return tf.cast(tf.cast(inputs, tf.float32) * scale + offset, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("tfgen")
class BatchStatisticsNormalization(InstanceNormalization):
    """Batch norm of a network that is used on one image at a time: no moving average is kept.

    In training the statistics are those of the batch, over all replicas. In inference each image
    has its own, so that its result does not depend on what else is in its batch: as pix2pix tests
    (section 3.3 of Isola et al. 2017: the statistics of the test batch, and a batch is one image).
    With batches of one image training and inference are the same. For example
    [4, 32, 32, 64] -> [4, 32, 32, 64] by 64 means in training, 4 * 64 in inference.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, C]."""
        if not training:
            return super().call(inputs)
        replica = tf.distribute.get_replica_context()
        alone = replica is None or replica.num_replicas_in_sync == 1
        if alone and inputs.dtype.name in _OF_THE_KERNEL:
            return self._fused(inputs)

        def mean_over_all(values: tf.Tensor) -> tf.Tensor:
            own = tf.reduce_mean(values, [0, 1, 2])  # of as many images on each replica
            return own if alone else replica.all_reduce(tf.distribute.ReduceOp.MEAN, own)

        x = tf.cast(inputs, tf.float32)
        mean = mean_over_all(x)
        return self._scaled(inputs, mean, mean_over_all(tf.math.squared_difference(x, mean)))
