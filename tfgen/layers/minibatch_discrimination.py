"""A layer that tells each example how close it is to the others of its batch."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class MinibatchDiscrimination(keras.layers.Layer):
    """Appends to each example's features its closeness to the rest of the batch.

    A critic that sees examples one by one cannot tell that a generator makes the same image again
    and again; with this layer, put before its last one, it can. For B kernels of C dimensions and
    features f of A units, T a weight of shape [A, B * C]:

        M_i        = f(x_i) T, as a matrix [B, C]
        c_b(i, j)  = exp(-sum_c |M_i[b, c] - M_j[b, c]|)
        o_b(i)     = sum over j != i of c_b(i, j)                      in [0, N - 1]
        output_i   = [f(x_i), o(i)]

    For example 64 examples of 1024 features and B = 100, C = 5: M is [64, 100, 5], c [100, 64, 64],
    the output [64, 1124]. Real and generated examples go in separate calls: the layer compares
    whatever shares its batch. With `tf.distribute` that is the batch of one replica. An example
    alone is close to none, o = 0, in inference, and an error in training.

    Distances and their sums are in float32. Memory: the [N, N, B, C] differences are never one
    tensor, C of [B, N, N] are added up, which takes half the time; with a gradient about C + 1 of
    them are held until it is taken, 4 (C + 1) B N^2 bytes (10 MB in the example). Half the batch
    takes a quarter.

    Reference: T. Salimans et al. Improved Techniques for Training GANs. NeurIPS 2016, section 3.2.

    Args:
        num_kernels: B, how many features are appended, 1 or more.
        kernel_dim: C, dimensions in which each of them measures distance, 1 or more.
        kernel_initializer: of T. The default gives columns of about unit length, as the authors'
            code does.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_kernels: int = 100,
        kernel_dim: int = 5,
        kernel_initializer: Any = "lecun_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if num_kernels < 1 or kernel_dim < 1:
            raise ValueError(
                "num_kernels and kernel_dim must be 1 or more. "
                f"Received: num_kernels={num_kernels}, kernel_dim={kernel_dim}"
            )
        self.num_kernels, self.kernel_dim = num_kernels, kernel_dim
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple) -> None:
        """Makes T, for [N, A]."""
        if len(input_shape) != 2:
            raise ValueError(
                "inputs must be features of shape [N, A]; put keras.layers.Flatten before. "
                f"Received: input shape {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.num_kernels * self.kernel_dim),
            initializer=self.kernel_initializer,
            name="kernel",
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[N, A] -> [N, A + B], in training N of 2 or more."""
        if training and inputs.shape[0] == 1:
            raise ValueError(_ALONE.format(tuple(inputs.shape)))
        if training and inputs.shape[0] is None:
            # XLA compiles this check away; an example alone then gets zeros.
            tf.debugging.assert_none_equal(
                tf.shape(inputs)[0], 1, message=_ALONE.format((1, inputs.shape[1]))
            )
        projected = tf.cast(inputs @ tf.convert_to_tensor(self.kernel), tf.float32)
        projected = tf.reshape(projected, [-1, self.num_kernels, self.kernel_dim])
        distance = tf.add_n(
            [
                tf.abs(m[:, :, tf.newaxis] - m[:, tf.newaxis])  # m [B, N], differences [B, N, N]
                for m in tf.unstack(tf.transpose(projected, [2, 1, 0]))
            ]
        )
        # An example's closeness to itself is exp(0), exactly 1.
        closeness = tf.transpose(tf.reduce_sum(tf.exp(-distance), axis=2)) - 1.0
        return tf.concat([inputs, tf.cast(closeness, inputs.dtype)], axis=1)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """[N, A] -> [N, A + B]."""
        return (*input_shape[:-1], input_shape[-1] + self.num_kernels)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "num_kernels": self.num_kernels,
            "kernel_dim": self.kernel_dim,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


_ALONE = (
    "minibatch discrimination compares the examples of a batch and needs 2 or more to train. "
    "Received: input shape {}"
)
