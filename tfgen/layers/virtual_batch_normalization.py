"""Batch normalisation by a batch that is fixed at the start, and a wrapper that carries it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class VirtualBatchNormalization(keras.layers.Layer):
    """Normalises each example by the statistics of a reference batch and of itself.

    The first n rows of the inputs are the reference batch at this depth of the network, the others
    are examples; `ReferenceBatch` puts the reference before a network's inputs. An example x counts
    as one more member of the reference r, weighing w = 1 / (n + 1); a reference row has w = 0:

        mean = w mean(x) + (1 - w) mean(r)
        var  = w var(x) + (1 - w) var(r) + w (1 - w) (mean(x) - mean(r))^2
        y    = gamma (x - mean) / sqrt(var + epsilon) + beta

    where mean and var are over all axes but the last, so that for features [N, C] mean(x) = x and
    var(x) = 0. One example's output does not depend on the others of its batch, in training and in
    inference alike. Gradients flow through all statistics. They are computed in float32.

    For example with a reference of 100, inputs of shape [164, 8, 8, 32] are 100 reference rows and
    64 examples, and so is the output.

    Reference: T. Salimans et al. Improved Techniques for Training GANs. NeurIPS 2016, section 3.5.
    The weight is that of the authors' code; the paper gives none.

    Args:
        reference_size: n, rows of the reference batch, 1 or more.
        epsilon: added to the variance, above 0.
        center: whether beta is trained; it begins as 0.
        scale: whether gamma is trained; it begins as 1.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        reference_size: int,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if reference_size < 1:
            raise ValueError(
                f"reference_size must be 1 or more. Received: reference_size={reference_size}"
            )
        if epsilon <= 0:
            raise ValueError(f"epsilon must be above 0. Received: epsilon={epsilon}")
        self.reference_size, self.epsilon = reference_size, epsilon
        self.center, self.scale = center, scale

    def build(self, input_shape: tuple) -> None:
        """Makes gamma and beta, one number a channel."""
        if len(input_shape) < 2:
            raise ValueError(
                "inputs must have an axis of rows and one of channels. "
                f"Received: input shape {tuple(input_shape)}"
            )
        # Without autocast they are float32 in mixed precision too.
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer="ones",
            trainable=self.scale,
            autocast=False,
            name="gamma",
        )
        self.beta = self.add_weight(
            shape=(input_shape[-1],),
            initializer="zeros",
            trainable=self.center,
            autocast=False,
            name="beta",
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[n + N, ..., C] -> [n + N, ..., C], the first n rows the reference."""
        n, rows = self.reference_size, inputs.shape[0]
        message = (
            f"inputs must be the {n} rows of the reference batch (reference_size) and then the "
            "examples, as layers.ReferenceBatch passes them. Received: input shape "
        )
        if rows is not None and rows <= n:
            raise ValueError(message + str(tuple(inputs.shape)))
        if rows is None:
            rows = tf.shape(inputs)[0]
            tf.debugging.assert_greater(rows, n, message=message + "with no more rows")  # Not XLA.
        x = tf.cast(inputs, tf.float32)
        spatial = list(range(1, x.shape.rank - 1))
        means = tf.reduce_mean(x, spatial, keepdims=True)  # [n + N, 1, ..., C]
        variances = tf.math.reduce_variance(x, spatial, keepdims=True)
        reference_mean = tf.reduce_mean(means[:n], 0)
        reference_var = tf.reduce_mean(variances[:n], 0) + tf.math.reduce_variance(means[:n], 0)
        w = tf.where(tf.range(rows) < n, 0.0, 1.0 / (n + 1))
        w = tf.reshape(w, [-1] + [1] * (x.shape.rank - 1))
        apart = means - reference_mean
        mean = reference_mean + w * apart
        var = w * variances + (1 - w) * reference_var + w * (1 - w) * apart**2
        y = (x - mean) * (self.gamma * tf.math.rsqrt(var + self.epsilon)) + self.beta
        return tf.cast(y, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "reference_size": self.reference_size,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
        }


@keras.saving.register_keras_serializable("tfgen")
class ReferenceBatch(keras.layers.Wrapper):
    """Passes a fixed reference batch through a network together with every batch of examples.

        y = network([reference; x]) without its first n rows

    For example a generator of 100 latents with a reference of 64: inputs [32, 100] go through the
    network as [96, 100]; its images [96, 28, 28, 1] leave here as [32, 28, 28, 1]. Thus

        network = keras.Sequential(
            [keras.Input((100,)), Dense(784), VirtualBatchNormalization(64), ...])
        generator = ReferenceBatch(network, tf.random.stateless_normal([64, 100], seed=[0, 1]))

    The reference is a weight that is not trained: it is saved and restored with the others, and
    `reference[0].assign` changes it. A copy that is made from the configuration alone has zeros.

    Args:
        layer: the network, whose `VirtualBatchNormalization`s have n as their reference_size.
        reference: [n, ...], as one batch of the network's inputs; a list or dict of such arrays for
            a network of several inputs.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, layer: keras.layers.Layer, reference: Any, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.reference = [self._weight(part) for part in keras.tree.flatten(reference)]
        sizes = {part.shape[0] for part in self.reference}
        if len(sizes) != 1:
            raise ValueError(
                "all parts of the reference must have the same number of rows. "
                f"Received: shapes {[tuple(part.shape) for part in self.reference]}"
            )
        (self.reference_size,) = sizes
        for inner in layer._flatten_layers():
            if isinstance(inner, VirtualBatchNormalization) and inner.reference_size not in sizes:
                raise ValueError(
                    f"the reference has as many rows as {inner.name} takes, "
                    f"{inner.reference_size}. Received: {self.reference_size} rows"
                )
        self._like = keras.tree.map_structure(
            lambda part: keras.KerasTensor(part.shape, keras.backend.standardize_dtype(part.dtype)),
            reference,
        )
        self.built = layer.built

    def _weight(self, part: Any) -> keras.Variable:
        values = np.zeros(part.shape) if isinstance(part, keras.KerasTensor) else part
        dtype = keras.backend.standardize_dtype(part.dtype)
        return self.add_weight(
            shape=tuple(part.shape),
            initializer=lambda shape, dtype: tf.cast(values, dtype),
            dtype=self.variable_dtype if dtype.startswith("float") else dtype,
            trainable=False,
            name="reference",
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Outputs of the network for the examples alone."""
        parts = keras.tree.flatten(inputs)
        if len(parts) != len(self.reference) or not all(
            p.shape[1:].is_compatible_with(r.shape[1:])
            for p, r in zip(parts, self.reference, strict=True)
        ):
            raise ValueError(
                "inputs must be like the reference but for the number of rows. Received: shapes "
                f"{[tuple(p.shape) for p in parts]}, while those of the reference are "
                f"{[tuple(r.shape) for r in self.reference]}"
            )
        together = [
            tf.concat([tf.cast(r, p.dtype), p], axis=0)
            for r, p in zip(self.reference, parts, strict=True)
        ]
        outputs = self.layer(keras.tree.pack_sequence_as(inputs, together), training=training)
        return keras.tree.map_structure(lambda y: y[self.reference_size :], outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the network."""
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """That of the network, whose precision may be another than this layer's."""
        return self.layer.compute_output_spec(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, of the reference the shapes only."""
        like = keras.saving.serialize_keras_object(self._like)
        return {**super().get_config(), "reference": like}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ReferenceBatch":
        """A wrapper whose reference is zeros until its weights are loaded."""
        reference = keras.saving.deserialize_keras_object(config["reference"])
        return super().from_config({**config, "reference": reference}, custom_objects)
