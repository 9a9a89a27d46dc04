"""A conditional VAE whose log p(y|x), p(z|x) and q(z|x,y) are known in closed form.

Images are 4x4, one channel, the lower left quadrant x seen and the rest y hidden:

    p(z) = N(0, I),  p(x|z) = N(W_x z + b, s^2 I),  p(y|x,z) = N(W_y z + A x + B g(x) + a, s^2 I)

with g(x) = G x + d the baseline's guess, whose own log p(y|x) is N(g(x), t^2 I). The columns of W_x
and those of W_y are orthogonal, so that p(z|x) and q(z|x,y) are diagonal:

    p(z|x) = N(m, R),          R = (I + W_x^T W_x / s^2)^-1,   m = R W_x^T (x - b) / s^2
    q(z|x,y) = N(n, S),        S = (R^-1 + W_y^T W_y / s^2)^-1,
                               n = S (R^-1 m + W_y^T (y - c(x)) / s^2),   c(x) = A x + B g(x) + a
    p(y|x) = N(W_y m + c(x), W_y R W_y^T + s^2 I)
"""

from typing import Any

import keras
import numpy as np
import scipy.stats

from tfgen.models.vae import cvae

SIDE, LATENTS, SIGMA, BASELINE_SIGMA = 4, 2, 0.5, 1.3
SHAPE = (SIDE, SIDE, 1)
PIXELS = SIDE * SIDE


class ConditionalGaussian:
    """Weights, exact densities and the networks of the model."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        hidden = np.zeros((SIDE, SIDE), bool)
        hidden[:2], hidden[:, 2:] = True, True
        self.y, self.x = np.flatnonzero(hidden), np.flatnonzero(~hidden)
        seen, unseen = len(self.x), len(self.y)
        self.of_x = np.linalg.qr(rng.normal(size=(seen, LATENTS)))[0] * [0.8, 0.4]
        self.of_y = np.linalg.qr(rng.normal(size=(unseen, LATENTS)))[0] * [1.5, 0.7]
        self.b, self.a = rng.normal(size=seen), rng.normal(size=unseen)
        self.direct = 0.3 * rng.normal(size=(unseen, seen))  # A
        self.by_guess = 0.2 * rng.normal(size=(unseen, unseen))  # B
        self.guess_weights = 0.5 * rng.normal(size=(unseen, seen))  # G
        self.d = rng.normal(size=unseen)
        self.prior_variance = 1.0 / (1.0 + (self.of_x**2).sum(0) / SIGMA**2)  # R
        self.variance = 1.0 / (1.0 / self.prior_variance + (self.of_y**2).sum(0) / SIGMA**2)  # S

    def images(self, count: int, seed: int = 1) -> np.ndarray:
        """Draws of (x, y): float32 [count, 4, 4, 1]."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(count, LATENTS))
        x = z @ self.of_x.T + self.b + SIGMA * rng.normal(size=(count, len(self.x)))
        noise = SIGMA * rng.normal(size=(count, len(self.y)))
        images = np.zeros((count, PIXELS))
        images[:, self.x], images[:, self.y] = x, z @ self.of_y.T + self._offset(x) + noise
        return images.reshape(-1, *SHAPE).astype(np.float32)

    def log_prob(self, images: np.ndarray) -> np.ndarray:
        """Exact log p(y|x): [B]."""
        x, y = self._split(images)
        covariance = self.of_y * self.prior_variance @ self.of_y.T + SIGMA**2 * np.eye(len(self.y))
        centred = y - self._offset(x) - self._prior_mean(x) @ self.of_y.T
        return scipy.stats.multivariate_normal(cov=covariance).logpdf(centred)

    def expected_log_likelihood(self, images: np.ndarray) -> np.ndarray:
        """Exact E_p(z|x)[log p(y|x,z)], the GSNN's objective: [B]."""
        x, y = self._split(images)
        centred = y - self._offset(x) - self._prior_mean(x) @ self.of_y.T
        spread = (self.prior_variance * (self.of_y**2).sum(0)).sum()
        squares = (centred**2).sum(1) + spread
        return -0.5 * squares / SIGMA**2 - len(self.y) * np.log(SIGMA * np.sqrt(2 * np.pi))

    def baseline_log_prob(self, images: np.ndarray) -> np.ndarray:
        """Exact log p(y|x) by the baseline: [B]."""
        x, y = self._split(images)
        return scipy.stats.norm(self._guess(x), BASELINE_SIGMA).logpdf(y).sum(1)

    def model(self, cls: type = cvae.CVAE, widen: float = 1.0, **kwargs: Any) -> cvae.CVAE:
        """The model, the standard deviations of its q(z|x,y) times `widen`."""
        networks = {
            "encoder": self._encoder(widen),
            "decoder": self._decoder(),
            "baseline": self._baseline(),
            "prior": cvae.ConditionalPrior(self._prior()),
        }
        return cls(**networks, likelihood="gaussian", **{"baseline_steps": 0, **kwargs})

    def _split(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = images.reshape(-1, PIXELS).astype(np.float64)
        return flat[:, self.x], flat[:, self.y]

    def _guess(self, x: np.ndarray) -> np.ndarray:
        return x @ self.guess_weights.T + self.d

    def _offset(self, x: np.ndarray) -> np.ndarray:
        return x @ self.direct.T + self._guess(x) @ self.by_guess.T + self.a

    def _prior_mean(self, x: np.ndarray) -> np.ndarray:
        return (x - self.b) @ self.of_x * self.prior_variance / SIGMA**2

    def _prior(self) -> keras.Model:
        kernel = np.zeros((PIXELS, LATENTS))
        kernel[self.x] = self.of_x * self.prior_variance / SIGMA**2
        bias = self._prior_mean(np.zeros((1, len(self.x))))[0]
        return _linear_gaussian(kernel, bias, 0.5 * np.log(self.prior_variance))

    def _encoder(self, widen: float) -> keras.Model:
        of_y = self.of_y * self.variance / SIGMA**2
        of_x = self.of_x * self.variance / SIGMA**2  # S R^-1 m = S W_x^T (x - b) / s^2
        kernel = np.zeros((PIXELS, LATENTS))
        kernel[self.y] = of_y
        kernel[self.x] = of_x - (self.direct + self.by_guess @ self.guess_weights).T @ of_y
        bias = -self.b @ of_x - (self.by_guess @ self.d + self.a) @ of_y
        return _linear_gaussian(kernel, bias, 0.5 * np.log(self.variance) + np.log(widen))

    def _baseline(self) -> keras.Model:
        kernel, bias = self._numbers(len(self.x), self.guess_weights, self.d, BASELINE_SIGMA)
        whole = np.full((PIXELS, *kernel.shape[1:]), 7.0)  # would show, were hidden pixels seen
        whole[self.x] = kernel
        return _image_network(keras.layers.Flatten(), SHAPE, whole, bias)

    def _decoder(self) -> keras.Model:
        kernel, bias = self._numbers(LATENTS, self.of_y, self.a, SIGMA)
        of_latent = _image_network(keras.layers.Identity(), (LATENTS,), kernel, bias)
        given = np.zeros((len(self.y), PIXELS))
        given[:, self.x], given[:, self.y] = self.direct, self.by_guess
        kernel, bias = self._numbers(PIXELS, given, np.zeros(len(self.y)), 1.0)
        of_given = _image_network(keras.layers.Flatten(), SHAPE, kernel, 0.0 * bias)
        latent, condition = keras.Input((LATENTS,)), keras.Input(SHAPE)
        added = keras.layers.Add()([of_latent(latent), of_given(condition)])
        return keras.Model([latent, condition], added)

    def _numbers(
        self, inputs: int, weights: np.ndarray, offset: np.ndarray, sigma: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias of hidden pixels' means and log sigmas; those of seen ones are 5."""
        kernel, bias = np.full((inputs, PIXELS, 2), 5.0), np.full((PIXELS, 2), 5.0)
        kernel[:, self.y, 0], kernel[:, self.y, 1] = weights.T, 0.0
        bias[self.y, 0], bias[self.y, 1] = offset, np.log(sigma)
        return kernel, bias


def _linear_gaussian(kernel: np.ndarray, bias: np.ndarray, log_std: np.ndarray) -> keras.Model:
    """From images to linear means and constant log sigmas."""
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2 * LATENTS)]
    network = keras.Sequential(layers)
    kernel = np.concatenate([kernel, 0.0 * kernel], axis=1)
    network.layers[-1].set_weights([kernel, np.concatenate([bias, log_std])])
    return network


def _image_network(
    first: keras.layers.Layer, shape: tuple[int, ...], kernel: np.ndarray, bias: np.ndarray
) -> keras.Model:
    """From inputs to linear means and log sigmas of pixels, [B, 4, 4, 2]."""
    dense, reshape = keras.layers.Dense(2 * PIXELS), keras.layers.Reshape((SIDE, SIDE, 2))
    network = keras.Sequential([keras.Input(shape), first, dense, reshape])
    dense.set_weights([kernel.reshape(len(kernel), -1), bias.reshape(-1)])
    return network
