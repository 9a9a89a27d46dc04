"""A VAE whose log p(x) and posterior are known in closed form.

p(z) = N(0, I), p(x|z) = N(W z + b, s^2 I), hence p(x) = N(b, W W^T + s^2 I). The columns of W are
orthogonal, so the posterior N(S W^T (x - b) / s^2, S), S = (I + W^T W / s^2)^-1, is diagonal and
the encoder can be exact.
"""

import keras
import numpy as np
import scipy.stats

SIDE, LATENTS, SIGMA = 3, 2, 0.4
PIXELS = SIDE * SIDE


class LinearGaussian:
    """Weights, exact densities and the networks of the model."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.normal(size=(PIXELS, LATENTS)))[0]
        self.weights = (basis * [1.5, 0.7]).astype(np.float32)
        self.offset = rng.normal(size=PIXELS).astype(np.float32)
        self.variance = 1.0 / (1.0 + (self.weights**2).sum(0) / SIGMA**2)

    def images(self, count: int, seed: int = 1) -> np.ndarray:
        """Draws of x: float32 [count, 3, 3, 1]."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(count, LATENTS))
        x = z @ self.weights.T + self.offset + SIGMA * rng.normal(size=(count, PIXELS))
        return x.reshape(-1, SIDE, SIDE, 1).astype(np.float32)

    def log_prob(self, images: np.ndarray) -> np.ndarray:
        """Exact log p(x): [B]."""
        covariance = self.weights @ self.weights.T + SIGMA**2 * np.eye(PIXELS)
        return scipy.stats.multivariate_normal(self.offset, covariance).logpdf(
            images.reshape(-1, PIXELS)
        )

    def log_prob_gradient(self, images: np.ndarray) -> np.ndarray:
        """d mean log p(x) / d offset: [9]."""
        covariance = self.weights @ self.weights.T + SIGMA**2 * np.eye(PIXELS)
        centred = images.reshape(-1, PIXELS) - self.offset
        return np.linalg.solve(covariance, centred.T).mean(1)

    def encoder(self, widen: float = 1.0, shift: float = 0.0) -> keras.Model:
        """The exact posterior, its standard deviations times `widen`, its means moved."""
        kernel = np.zeros((PIXELS, 2 * LATENTS), np.float32)
        kernel[:, :LATENTS] = self.weights * self.variance / SIGMA**2
        bias = np.zeros(2 * LATENTS, np.float32)
        bias[:LATENTS] = shift - self.offset @ kernel[:, :LATENTS]
        bias[LATENTS:] = 0.5 * np.log(self.variance) + np.log(widen)
        layers = [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(2 * LATENTS),
        ]
        network = keras.Sequential(layers)
        network.layers[-1].set_weights([kernel, bias])
        return network

    def decoder(self) -> keras.Model:
        """Means W z + b and log sigmas log s, interleaved on the last axis: [B, 3, 3, 2]."""
        kernel = np.zeros((LATENTS, PIXELS, 2), np.float32)
        kernel[..., 0] = self.weights.T
        bias = np.stack([self.offset, np.full(PIXELS, np.log(SIGMA), np.float32)], -1)
        network = keras.Sequential(
            [
                keras.Input((LATENTS,)),
                keras.layers.Dense(2 * PIXELS),
                keras.layers.Reshape((SIDE, SIDE, 2)),
            ]
        )
        network.layers[0].set_weights([kernel.reshape(LATENTS, -1), bias.reshape(-1)])
        return network
