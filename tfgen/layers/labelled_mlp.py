"""A multilayer perceptron of a vector or an image and a label."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


def initializer(stddev: float | None) -> Callable[..., keras.initializers.Initializer]:
    """Makes initialisers from a `seed`: of a Gaussian, or Glorot's uniform one without `stddev`."""
    if stddev is None:
        return keras.initializers.GlorotUniform
    return functools.partial(keras.initializers.RandomNormal, stddev=stddev)


@keras.saving.register_keras_serializable("tfgen")
class LabelledMLP(keras.layers.Layer):
    """A softplus MLP of a vector, or an image, and a label, over any leading axes.

        h_1 = softplus(V x + U y + b_1),   h_i = softplus(W_i h_{i-1} + b_i),   output linear

    Leading axes broadcast, so that images with all their possible labels cost V one pass: with
    event_shape (28, 28, 1) and output_shape (5,) images [100, 28, 28, 1] and the one-hots of 10
    classes, [10, 1, 10], give [10, 100, 5].

    Args:
        event_shape: of one vector or image.
        num_classes: of the labels.
        units: width of each hidden layer.
        output_shape: of one output.
        stddev: of the initial weights, which are Gaussian; None makes them Glorot's uniform ones.
        seed: int, of the initial weights; biases begin as 0.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if there is no hidden layer.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        num_classes: int,
        units: Sequence[int],
        output_shape: Sequence[int],
        stddev: float | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"units need one hidden layer at least. Received: {units}")
        self.event_shape, self.shape_out = tuple(event_shape), tuple(output_shape)
        self.num_classes, self.units = num_classes, tuple(units)
        self.stddev, self.seed = stddev, seed
        self.size_in = math.prod(self.event_shape)
        sizes = [self.size_in, *self.units, math.prod(self.shape_out)]
        self.dense = [self._dense(i, *pair) for i, pair in enumerate(itertools.pairwise(sizes))]
        self.of_label = self._dense(len(sizes), num_classes, self.units[0], use_bias=False)
        self.built = True

    def _dense(self, index: int, size: int, units: int, **kwargs: Any) -> keras.layers.Dense:
        init = initializer(self.stddev)(seed=self.seed * 1000 + index)
        layer = keras.layers.Dense(
            units, kernel_initializer=init, dtype=self.dtype_policy, **kwargs
        )
        layer.build((None, size))
        return layer

    def call(self, inputs: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """Inputs [..., *event_shape] and one-hots [..., num_classes] -> [..., *output_shape]."""
        lead = tf.shape(inputs)[: len(inputs.shape) - len(self.event_shape)]
        flat = tf.reshape(inputs, tf.concat([lead, [self.size_in]], axis=0))
        hidden = self.dense[0](flat) + self.of_label(label)
        for layer in self.dense[1:]:
            hidden = layer(tf.nn.softplus(hidden))
        shape = tf.concat([tf.shape(hidden)[:-1], self.shape_out], axis=0)
        return tf.ensure_shape(tf.reshape(hidden, shape), [*hidden.shape[:-1], *self.shape_out])

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "event_shape": self.event_shape,
            "num_classes": self.num_classes,
            "units": self.units,
            "output_shape": self.shape_out,
            "stddev": self.stddev,
            "seed": self.seed,
        }
