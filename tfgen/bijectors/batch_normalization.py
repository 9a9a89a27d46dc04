"""Batch normalisation as a bijector, for flows whose densities are trained."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfgen.bijectors.autoregressive import TrainableBijector


@keras.saving.register_keras_serializable("tfgen")
class FlowBatchNormalization(keras.layers.Layer):
    """Normalises in the direction of the data's density.

        u = (x - mean) exp(gamma) / sqrt(variance + epsilon) + beta
        log |du/dx| = sum_i [gamma_i - log(variance_i + epsilon) / 2]

    In training mean and variance are those of the batch, over all replicas; else the layer's own,
    which follow the batches with a momentum until `settle` sets them to those of a whole set. For
    example [64, 2] -> [64, 2].

    Reference: G. Papamakarios et al. Masked Autoregressive Flow for Density Estimation. NeurIPS
    2017, section 4.2 and appendix B. Dinh et al. Real NVP. ICLR 2017.

    Args:
        dimensions: of one example.
        momentum: part of the old statistics that a batch leaves.
        epsilon: added to the variance.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self, dimensions: int, momentum: float = 0.99, epsilon: float = 1e-5, **kwargs: Any
    ):
        super().__init__(**{"autocast": False, **kwargs})  # float32, whatever the networks have
        self.dimensions, self.momentum, self.epsilon = dimensions, momentum, epsilon
        shape: dict[str, Any] = {"shape": (dimensions,), "autocast": False}
        follows = {**shape, "trainable": False, "aggregation": "only_first_replica"}
        self.beta = self.add_weight(initializer="zeros", name="beta", **shape)
        self.gamma = self.add_weight(initializer="zeros", name="gamma", **shape)
        self.mean = self.add_weight(initializer="zeros", name="mean", **follows)
        self.variance = self.add_weight(initializer="ones", name="variance", **follows)
        self.built = True

    def bijector(self, training: bool = False) -> tfb.Bijector:
        """u -> x; in training a density must be asked for (the inverse) before a sample."""
        return _Normalization(self, training)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """x [..., d] -> u [..., d]."""
        return self.bijector(training).inverse(tf.cast(x, tf.float32))

    def center(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """x - mean, mean and variance, [d] each, of a batch x [..., d] over all replicas.

        The layer follows them.
        """
        axes = list(range(len(x.shape) - 1))
        replica = tf.distribute.get_replica_context()

        def mean_over_all(values: tf.Tensor) -> tf.Tensor:
            own = tf.reduce_mean(values, axes)
            if not replica or replica.num_replicas_in_sync == 1:
                return own
            return replica.all_reduce(tf.distribute.ReduceOp.MEAN, own)

        mean = mean_over_all(x)
        centered = x - mean
        variance = mean_over_all(centered**2)
        for old, new in ((self.mean, mean), (self.variance, variance)):
            old.assign(old * self.momentum + tf.stop_gradient(new) * (1.0 - self.momentum))
        return centered, mean, variance

    def settle(self, mean: Any, variance: Any) -> None:
        """Sets the statistics that are used outside of training, [d] each."""
        self.mean.assign(mean)
        self.variance.assign(variance)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


class _Normalization(TrainableBijector):
    def __init__(self, layer: FlowBatchNormalization, training: bool):
        super().__init__(
            forward_min_event_ndims=1,
            is_constant_jacobian=not training,
            dtype=tf.float32,
            parameters={},
            name="batch_normalization",
        )
        self._layer, self._training = layer, training
        self._seen: tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor]] | None = None

    def _center(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """x - mean, mean and variance; in training those of the batch."""
        if not self._training:
            mean, variance = (
                tf.convert_to_tensor(v) for v in (self._layer.mean, self._layer.variance)
            )
            return x - mean, mean, variance
        if self._seen is None or self._seen[0] is not x:
            self._seen = x, self._layer.center(x)
        return self._seen[1]

    def _log_scale(self, variance: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(self._layer.gamma) - 0.5 * tf.math.log(
            variance + self._layer.epsilon
        )

    def _forward(self, u: tf.Tensor) -> tf.Tensor:
        if self._training and self._seen is None:
            raise ValueError("batch normalisation in training needs data: ask for a density first")
        _, mean, variance = self._seen[1] if self._seen else self._center(u)
        return (u - self._layer.beta) * tf.exp(-self._log_scale(variance)) + mean

    def _inverse(self, x: tf.Tensor) -> tf.Tensor:
        centered, _, variance = self._center(x)
        return centered * tf.exp(self._log_scale(variance)) + self._layer.beta

    def _inverse_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        *_, variance = self._center(x)
        return tf.reduce_sum(self._log_scale(variance))
