"""A layer that draws a reparameterised Gaussian sample and adds its KL to the loss."""

from typing import Any

import keras
import tensorflow as tf

from tfgen.layers._noise import drawn, next_key


@keras.saving.register_keras_serializable("tfgen")
class GaussianSampling(keras.layers.Layer):
    """z = mean + exp(log_std) * noise, with KL(q || N(0, I)) as a loss of the model.

    For example inputs of shape [64, 100] are 50 means, then 50 log sigmas, of 64 Gaussians and give
    z of shape [64, 50]. In inference z is the mean, and the loss is added all the same. The noise
    is a function of (seed, calls so far, replica): replicas differ, and the count of the calls is a
    weight, so that a restored model goes on where it stopped.

        KL = mean over the batch of sum_i [(mean_i^2 + sigma_i^2 - 1) / 2 - log sigma_i]   (nats)

    A mask is passed on; the KL is of what is masked too.

    Reference: D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014, section 2.4
    (reparameterisation) and appendix B (KL).

    Args:
        kl_weight: weight of the KL in the loss; 0 leaves it out.
        seed: int, source of the noise; layers of one network want different ones. None draws one.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, kl_weight: float = 1.0, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        if kl_weight < 0:
            raise ValueError(f"kl_weight must be 0 or more. Received: kl_weight={kl_weight}")
        self.kl_weight, self.seed = kl_weight, drawn(seed)

    def build(self, input_shape: tuple) -> None:
        """Checks that the last axis is even."""
        if input_shape[-1] % 2:
            raise ValueError(
                "the last axis must hold means and log sigmas, an even number. "
                f"Received: input shape {tuple(input_shape)}"
            )
        self.calls = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="calls"
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[..., 2 d] -> [..., d]."""
        mean, log_std = tf.split(inputs, 2, axis=-1)
        if self.kl_weight:
            wide_mean, wide_log = tf.cast(mean, tf.float32), tf.cast(log_std, tf.float32)
            terms = (wide_mean**2 + tf.exp(2 * wide_log) - 1) / 2 - wide_log
            self.add_loss(self.kl_weight * tf.reduce_mean(tf.reduce_sum(terms, axis=-1)))
        if not training:
            return mean
        key = next_key(self.seed, self.calls)
        return mean + tf.exp(log_std) * tf.random.stateless_normal(
            tf.shape(mean), key, dtype=mean.dtype, alg="philox"
        )

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[..., 2 d] -> [..., d]."""
        return (*input_shape[:-1], input_shape[-1] // 2)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "kl_weight": self.kl_weight, "seed": self.seed}
