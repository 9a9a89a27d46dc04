"""Attention by a grid of Gaussian filters: one layer reads a window of an image, one writes it."""

from typing import Any

import keras
import tensorflow as tf

_FAR = 1000.0  # Where a filter's centre is at most, in sizes of the image.
_LEAST = 1e-30  # Of twice a variance, in pixels^2.


def gaussian_filters(
    centre: tf.Tensor, stride: tf.Tensor, variance: tf.Tensor, window: int, size: int
) -> tf.Tensor:
    """N = `window` filters over the pixels 1..size of one axis, each row summing to 1.

        mu_i = centre + (i - N/2 - 0.5) stride,                            i = 1..N
        F[i, a] = exp(-(a - mu_i)^2 / (2 variance)) / sum_b exp(-(b - mu_i)^2 / (2 variance))

    A filter whose centre lies far outside of the image sees the nearest pixel.

    Args:
        centre: float32 [B], in pixels.
        stride: float32 [B], pixels between two filters.
        variance: float32 [B], in pixels^2.
        window: N.
        size: pixels.

    Returns:
        float32 [B, N, size].
    """
    steps = tf.range(1, window + 1, dtype=tf.float32) - window / 2 - 0.5  # [N]
    mu = centre[:, tf.newaxis] + steps * stride[:, tf.newaxis]  # [B, N]
    pixels = tf.range(1, size + 1, dtype=tf.float32)  # [size]
    # Farther out float32 would not tell the pixels apart.
    mu = tf.clip_by_value(mu, -_FAR * size, _FAR * size)
    squares = tf.square(pixels - mu[..., tf.newaxis])  # [B, N, size]
    squares -= tf.stop_gradient(tf.reduce_min(squares, axis=-1, keepdims=True))
    twice = tf.maximum(2.0 * variance, _LEAST)[:, tf.newaxis, tf.newaxis]
    return tf.nn.softmax(-squares / twice, axis=-1)


class GaussianAttention(keras.layers.Layer):
    """A window of N x N Gaussian filters, laid on an image by a hidden vector h.

        (g_X', g_Y', log variance, log stride', log gamma) = W h + b
        g_X = (width + 1)/2 (g_X' + 1),   g_Y = (height + 1)/2 (g_Y' + 1)
        stride = (max(height, width) - 1)/(N - 1) stride'

    W h + b = 0, where training starts, is a window over the whole image. All of it is computed in
    float32. The base of `GaussianRead` and `GaussianWrite`.

    Reference: K. Gregor, I. Danihelka, A. Graves, D. J. Rezende, D. Wierstra. DRAW: A Recurrent
    Neural Network For Image Generation. ICML 2015, eq. 19-26.

    Args:
        window: N, from 1 to the image's shorter side.
        kernel_initializer: of W.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: if the window is below 1, or larger than an image.
    """

    def __init__(self, window: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any):
        super().__init__(**kwargs)
        if window < 1:
            raise ValueError(f"window must be 1 or more. Received: window={window}")
        self.window = window
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.location = keras.layers.Dense(
            5, kernel_initializer=self.kernel_initializer, dtype="float32", name="location"
        )

    def filters(
        self, hidden: tf.Tensor, height: int, width: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The filters of both axes and the intensity.

        Args:
            hidden: [B, n].
            height: of the image.
            width: of the image.

        Returns:
            float32: F_Y [B, N, height], F_X [B, N, width], gamma [B].
        """
        x, y, log_variance, log_stride, log_gamma = tf.unstack(self.location(hidden), axis=-1)
        centre_x = (width + 1) / 2 * (x + 1.0)
        centre_y = (height + 1) / 2 * (y + 1.0)
        stride = (max(height, width) - 1) / max(self.window - 1, 1) * tf.exp(log_stride)
        variance = tf.exp(log_variance)
        rows = gaussian_filters(centre_y, stride, variance, self.window, height)
        columns = gaussian_filters(centre_x, stride, variance, self.window, width)
        return rows, columns, tf.exp(log_gamma)

    def _check_window(self, height: int | None, width: int | None) -> None:
        if height is None or width is None or self.window > min(height, width):
            raise ValueError(
                f"{self.name} needs images of a known size, {self.window}x{self.window} at least. "
                f"Received: {height}x{width}"
            )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {
            **super().get_config(),
            "window": self.window,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable("tfgen")
class GaussianRead(GaussianAttention):
    """Reads a window of an image: gamma F_Y x F_X^T of each channel (Gregor et al. 2015, eq. 27).

    For example with a window of 5 images [64, 28, 28, 2] and hidden vectors [64, 256] give
    [64, 5, 5, 2]: F_Y [64, 5, 28] takes the rows to [64, 5, 28, 2], F_X [64, 5, 28] the columns.
    Arguments and filters are those of `GaussianAttention`.
    """

    def build(self, image_shape: tuple, hidden_shape: tuple) -> None:
        """Makes W and b, for images [B, H, W, C] and vectors [B, n]."""
        self._check_window(*image_shape[1:3])
        self.location.build(hidden_shape)

    def call(self, image: tf.Tensor, hidden: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] and vectors [B, n] -> [B, N, N, C]."""
        rows, columns, gamma = self.filters(hidden, *image.shape[1:3])
        rows, columns, gamma = (tf.cast(t, image.dtype) for t in (rows, columns, gamma))
        seen = _both_sides(rows, image, tf.linalg.matrix_transpose(columns))
        return gamma[:, tf.newaxis, tf.newaxis, tf.newaxis] * seen

    def compute_output_shape(self, image_shape: tuple, hidden_shape: tuple) -> tuple:
        """[B, H, W, C] and [B, n] -> [B, N, N, C]."""
        return (image_shape[0], self.window, self.window, image_shape[3])


@keras.saving.register_keras_serializable("tfgen")
class GaussianWrite(GaussianAttention):
    """Writes a patch w = V h + c on an empty image: F_Y^T w F_X / gamma (Gregor et al., eq. 28-29).

    For example with a window of 5 and image_shape (28, 28, 1) hidden vectors [64, 256] make patches
    [64, 5, 5, 1] and give images [64, 28, 28, 1].

    Args:
        window: N, from 1 to the image's shorter side.
        image_shape: (height, width, channels) of what is written.
        kernel_initializer: of W and V.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        window: int,
        image_shape: tuple[int, int, int],
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(window, kernel_initializer, **kwargs)
        self.image_shape = tuple(image_shape)
        self._check_window(*self.image_shape[:2])
        self.patch = keras.layers.Dense(
            window * window * self.image_shape[2],
            kernel_initializer=self.kernel_initializer,
            dtype=self.dtype_policy,
            name="patch",
        )

    def build(self, hidden_shape: tuple) -> None:
        """Makes W, b, V and c, for vectors [B, n]."""
        self.location.build(hidden_shape)
        self.patch.build(hidden_shape)

    def call(self, hidden: tf.Tensor) -> tf.Tensor:
        """Vectors [B, n] -> images [B, H, W, C]."""
        height, width, channels = self.image_shape
        patch = tf.reshape(self.patch(hidden), [-1, self.window, self.window, channels])
        rows, columns, gamma = self.filters(hidden, height, width)
        rows, columns, gamma = (tf.cast(t, patch.dtype) for t in (rows, columns, gamma))
        written = _both_sides(tf.linalg.matrix_transpose(rows), patch, columns)
        return written / gamma[:, tf.newaxis, tf.newaxis, tf.newaxis]

    def compute_output_shape(self, hidden_shape: tuple) -> tuple:
        """[B, n] -> [B, H, W, C]."""
        return (hidden_shape[0], *self.image_shape)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`."""
        return {**super().get_config(), "image_shape": self.image_shape}


def _both_sides(left: tf.Tensor, image: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """left x right for each channel x: [B, n, h], [B, h, w, C], [B, w, m] -> [B, n, m, C]."""
    channels_first = tf.transpose(image, [0, 3, 1, 2])
    product = tf.matmul(tf.matmul(left[:, tf.newaxis], channels_first), right[:, tf.newaxis])
    return tf.transpose(product, [0, 2, 3, 1])
