"""Dropout whose noise is a function of a seed that is given with the inputs."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class SeededDropout(keras.layers.Layer):
    """y = x m / (1 - rate) with a mask m ~ Bernoulli(1 - rate), drawn from (seed, salt).

    Unlike `keras.layers.Dropout` it has no state: the same inputs and seed give the same outputs,
    in a resumed training and on every server. For example x [4, 8, 8, 512] and a seed int32 [2]
    give [4, 8, 8, 512].

    Args:
        rate: part of the values that become 0, from 0 to below 1.
        salt: int, tells the layers of a network apart that are given one seed.
        in_inference: whether it draws in inference as well, where it is the noise of a generator.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if the rate is out of range.
    """

    def __init__(self, rate: float, salt: int = 0, in_inference: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1. Received: rate={rate}")
        self.rate, self.salt, self.in_inference = rate, salt, in_inference

    def build(self, input_shape: list[tuple]) -> None:
        """Nothing."""

    def call(self, inputs: list[tf.Tensor], training: bool = False) -> tf.Tensor:
        """[x of any shape, seed int32 [2]] -> the shape of x."""
        x, seed = inputs
        if not self.rate or not (training or self.in_inference):
            return x
        salted = tf.random.experimental.stateless_fold_in(seed, self.salt, alg="philox")
        uniform = tf.random.stateless_uniform(tf.shape(x), salted, alg="philox")
        scale = tf.cast(1.0 / (1.0 - self.rate), x.dtype)
        return tf.where(uniform >= self.rate, x * scale, tf.zeros_like(x))

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """That of x."""
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "salt": self.salt,
            "in_inference": self.in_inference,
        }
