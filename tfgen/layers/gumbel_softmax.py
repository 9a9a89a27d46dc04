"""A layer that draws relaxed one-hots from logits."""

from typing import Any

import keras
import tensorflow as tf

from tfgen.layers._noise import drawn, next_key


@keras.saving.register_keras_serializable("tfgen")
class GumbelSoftmax(keras.layers.Layer):
    """y = softmax((logits + g) / temperature), g Gumbel noise; nearly a one-hot if it is cold.

        temperature = max(minimum, start exp(-rate t)),   t the calls in training so far

    For example logits [64, 20, 10] are 20 categorical variables of 10 values and give [64, 20, 10].
    In inference the output is the one-hot of the largest logit, without noise. The noise is a
    function of (seed, calls so far, replica): replicas differ, and the count is a weight, so that a
    restored model goes on where it stopped.

    Reference: E. Jang, S. Gu, B. Poole. Categorical Reparameterization with Gumbel-Softmax. ICLR
    2017, eq. 1-2, section 2.2 (straight-through), appendix (temperature).

    Args:
        temperature: at the start, more than 0.
        rate: of its exponential fall a call; 0 keeps it.
        minimum: where it stops falling; None is 0.5, or the start if that is colder.
        straight_through: one-hots in training too, whose gradient is the relaxed draw's.
        seed: int, source of the noise; layers of one network want different ones. None draws one.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if an argument is out of its range, or a variable has fewer than 2 values.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        rate: float = 0.0,
        minimum: float | None = None,
        straight_through: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if temperature <= 0:
            raise ValueError(
                f"temperature must be more than 0. Received: temperature={temperature}"
            )
        minimum = min(0.5, temperature) if minimum is None else minimum
        if not 0 < minimum <= temperature:
            raise ValueError(
                "minimum must be more than 0, and the temperature at most. "
                f"Received: minimum={minimum}, temperature={temperature}"
            )
        if rate < 0:
            raise ValueError(f"rate must be 0 or more. Received: rate={rate}")
        self.start, self.rate, self.minimum = temperature, rate, minimum
        self.straight_through, self.seed = straight_through, drawn(seed)

    def build(self, input_shape: tuple) -> None:
        """Makes the count of calls."""
        if input_shape[-1] is None or input_shape[-1] < 2:
            raise ValueError(
                "the last axis must hold the logits of 2 values or more. "
                f"Received: input shape {tuple(input_shape)}"
            )
        self.calls = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="calls"
        )

    def temperature(self) -> tf.Tensor:
        """Of the next call in training, scalar."""
        calls = tf.cast(self.calls.value, tf.float32)
        return tf.maximum(self.start * tf.exp(-self.rate * calls), self.minimum)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[..., K] -> [..., K]."""
        size = inputs.shape[-1]
        if not training:
            return tf.one_hot(tf.argmax(inputs, axis=-1), size, dtype=inputs.dtype)
        temperature = self.temperature()  # of this call, before it is counted
        key = next_key(self.seed, self.calls)
        uniform = tf.random.stateless_uniform(tf.shape(inputs), key, alg="philox")
        gumbel = -tf.math.log(-tf.math.log(tf.maximum(uniform, 1e-30)))  # float32
        noisy = tf.cast(inputs, tf.float32) + gumbel
        relaxed = tf.nn.softmax(noisy / temperature, axis=-1)
        if self.straight_through:
            relaxed += tf.stop_gradient(tf.one_hot(tf.argmax(noisy, axis=-1), size) - relaxed)
        return tf.cast(relaxed, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[..., K] -> [..., K]."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "temperature": self.start,
            "rate": self.rate,
            "minimum": self.minimum,
            "straight_through": self.straight_through,
            "seed": self.seed,
        }
