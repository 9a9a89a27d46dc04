"""A layer that adds Gaussian noise in training, the same again when a training is resumed."""

from typing import Any

import keras
import tensorflow as tf

from tfgen.layers._noise import drawn, next_key


@keras.saving.register_keras_serializable("tfgen")
class GaussianNoise(keras.layers.Layer):
    """y = x + stddev * N(0, I) in training, y = x in inference.

    Like `keras.layers.GaussianNoise`, but for where the noise comes from: it is a function of
    (seed, calls so far, replica). Replicas differ, and the count of the calls is a weight, so that
    a restored model goes on where it stopped.

    Args:
        stddev: standard deviation, 0 or more.
        seed: int, source of the noise; layers of one network want different ones. None draws one.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        if stddev < 0:
            raise ValueError(f"stddev must be 0 or more. Received: stddev={stddev}")
        self.stddev, self.seed = stddev, drawn(seed)

    def build(self, input_shape: tuple) -> None:
        """Makes the count of calls."""
        self.calls = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="calls",
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[...] -> [...]."""
        if not training or not self.stddev:
            return inputs
        key = next_key(self.seed, self.calls)
        noise = tf.random.stateless_normal(tf.shape(inputs), key, dtype=inputs.dtype, alg="philox")
        return inputs + self.stddev * noise

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}
