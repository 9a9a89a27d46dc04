"""A wrapper that divides a layer's kernel by its largest singular value."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tfgen")
class SpectralNormalization(keras.layers.Wrapper):
    """Computes the wrapped layer with kernel / sigma in the place of its kernel.

    W is the kernel as a matrix [outputs, everything else]; u is kept from call to call:

        v      = W^T u / ||W^T u||
        u     <- W v / ||W v||
        sigma  = u^T W v,  the largest singular value once u has converged
        output = layer(x; kernel / sigma)

    u and v are constants for the gradient, sigma is not: d sigma / dW = u v^T, which damps the
    gradient in that direction (section 2.3). The kernel itself is never overwritten.
    `keras.layers.SpectralNormalization` differs in both: it assigns kernel / sigma to the kernel,
    and no gradient flows through sigma.

    For example a Conv2D of 128 filters of 3x3 on 64 channels has W of shape [128, 576] and u of
    [128]. Each call with `training=True` stores its u; inference computes the same and stores
    nothing. u depends on the weights alone, so all replicas of `tf.distribute` agree. sigma is
    computed in float32 in any precision. A kernel of zeros stays as it is.

    Reference: T. Miyato et al. Spectral Normalization for Generative Adversarial Networks. ICLR
    2018, eq. 8, sections 2.2 (power iteration) and 2.3 (gradient), algorithm 1 (appendix A).

    Args:
        layer: with a `kernel` (Dense, Conv, ConvTranspose, EinsumDense, ...) or `embeddings`. The
            outputs are the last axis, or the last but one of a ConvTranspose.
        power_iterations: how often u is improved a call, 1 or more.
        seed: int, of the u to begin with.
        **kwargs: of `keras.layers.Layer`; the precision is that of `layer`.
    """

    def __init__(
        self, layer: keras.layers.Layer, power_iterations: int = 1, seed: int = 0, **kwargs: Any
    ):
        # Else the kernel would be rounded in mixed precision before sigma is computed.
        super().__init__(layer, **{**kwargs, "dtype": "float32", "autocast": False})
        if power_iterations < 1:
            raise ValueError(
                f"power_iterations must be 1 or more. Received: power_iterations={power_iterations}"
            )
        self.power_iterations, self.seed = power_iterations, seed

    def build(self, input_shape: Any) -> None:
        """Builds the layer and makes u."""
        super().build(input_shape)
        self.u = self.add_weight(
            shape=(self._matrix(self._kernel()).shape[1],),
            initializer=keras.initializers.RandomNormal(seed=self.seed),
            trainable=False,
            aggregation="only_first_replica",
            name="u",
        )

    def _kernel(self) -> keras.Variable:
        for name in ("kernel", "embeddings"):
            kernel = getattr(self.layer, name, None)
            if isinstance(kernel, keras.Variable):
                return kernel
        raise ValueError(
            "the layer must have a variable `kernel` or `embeddings`. Received: "
            f"{type(self.layer).__name__} {self.layer.name}"
        )

    def _matrix(self, kernel: tf.Tensor) -> tf.Tensor:
        """W^T, shape [everything else, outputs]."""
        kernel = tf.cast(kernel, tf.float32)
        if isinstance(self.layer, _TRANSPOSED):
            kernel = tf.linalg.matrix_transpose(kernel)
        return tf.reshape(kernel, [-1, kernel.shape[-1]])

    def _sigma(self, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The largest singular value, and the next u."""
        matrix = self._matrix(kernel)
        fixed, u = tf.stop_gradient(matrix), tf.convert_to_tensor(self.u)
        for _ in range(self.power_iterations):
            v = tf.math.l2_normalize(tf.linalg.matvec(fixed, u), epsilon=_TINY)
            new = tf.linalg.matvec(fixed, v, transpose_a=True)
            norm = tf.norm(new)
            u = tf.where(norm > 0, new / tf.maximum(norm, _TINY), u)
        sigma = tf.tensordot(v, tf.linalg.matvec(matrix, u), 1)
        return tf.where(norm > 0, sigma, 1.0), u

    def call(self, inputs: Any, training: bool = False) -> Any:
        """That of the layer."""
        kernel = self._kernel()
        weight = tf.convert_to_tensor(kernel)
        sigma, u = self._sigma(weight)
        if training:
            self.u.assign(u)
        # Inside the scope the layer reads these values; the others are what they are outside.
        values = [(v, v.value) for v in self.layer.variables if v is not kernel]
        values.append((kernel, weight / tf.cast(sigma, weight.dtype)))
        with keras.StatelessScope(values, collect_losses=True) as scope:
            outputs = self.layer(inputs)
        for loss in scope.losses:
            self.add_loss(loss)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the layer."""
        return self.layer.compute_output_shape(input_shape)

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:
        """That of the layer, whose precision may be another than this wrapper's."""
        return self.layer.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "power_iterations": self.power_iterations,
            "seed": self.seed,
        }


_TINY = 1e-30  # Keeps 0 / 0 from being NaN; the square of a norm in l2_normalize.
_TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
