"""Distributions from the output of a network: likelihoods of images and diagonal Gaussians.

All of them are ordinary `tfd` distributions whose parameters are float32, whatever the dtype of
the network that made them. `event_ndims` trailing axes are one event, over which `log_prob` sums.
"""

import math
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random

from tfgen import stateless


class IndependentBernoulli(tfd.Independent):
    """`tfd.Independent` of a `tfd.Bernoulli`, its `log_prob` cheap, and cheap to differentiate.

    log p(x) = sum_d x_d l_d - softplus(l_d), softplus(l) = max(l, 0) + log(1 + exp(-|l|)), finite
    at any logit. Its gradient, x - sigmoid(l), is one expression, and takes the sum in; autodiff
    would go through many temporaries of the size of the logits. x is data: it gets no gradient.
    """

    def _log_prob(self, event: tf.Tensor) -> tf.Tensor:
        logits = tf.convert_to_tensor(self.distribution.logits_parameter())
        event = tf.cast(event, logits.dtype)
        if tf.broadcast_static_shape(logits.shape, event.shape).as_list() != logits.shape.as_list():
            logits = tf.broadcast_to(
                logits, tf.broadcast_dynamic_shape(tf.shape(logits), tf.shape(event))
            )
        return _bernoulli_log_prob(logits, event, self.event_shape.rank)


def _bernoulli_log_prob(logits: tf.Tensor, event: tf.Tensor, event_ndims: int) -> tf.Tensor:
    """Sums over the last axes; `event` broadcasts to `logits`, not the other way round."""

    @tf.custom_gradient
    def log_prob(logits: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            ones = tf.ones(event_ndims, tf.int32)
            upstream = tf.reshape(upstream, tf.concat([tf.shape(upstream), ones], 0))
            return upstream * (event - tf.sigmoid(logits))

        softplus = tf.nn.relu(logits) + tf.math.log1p(tf.exp(-tf.abs(logits)))
        return tf.reduce_sum(event * logits - softplus, range(-event_ndims, 0)), grad

    return log_prob(logits)


class DiagonalGaussian(tfd.Distribution):
    """N(mean, diag(exp(log_std))^2) over vectors, from log sigmas and in few operations.

    The same density as `tfd.MultivariateNormalDiag`, which takes sigmas and so takes the logarithm
    of an exponential.

    Args:
        mean: float32 [..., d].
        log_std: float32 [..., d], logarithms of the standard deviations.
    """

    def __init__(self, mean: tf.Tensor, log_std: tf.Tensor):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"mean": mean, "log_std": log_std},
        )
        self.loc, self.log_std = mean, log_std
        self.std = tf.exp(log_std)

    def _sample_n(self, n: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        shape = tf.concat([[n], tf.shape(self.loc)], axis=0)
        noise = stateless.normal(shape, tfp_random.sanitize_seed(seed))
        return self.loc + self.std * noise

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        squares = tf.square((value - self.loc) / self.std)
        return -tf.reduce_sum(0.5 * squares + self.log_std + _HALF_LOG_2_PI, axis=-1)

    def _sample_and_log_prob(
        self, sample_shape: tf.Tensor, seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A draw and its density, which is a function of the noise and the sigmas alone."""
        shape = tf.concat([sample_shape, tf.shape(self.loc)], axis=0)
        noise = stateless.normal(shape, tfp_random.sanitize_seed(seed))
        of_std = tf.reduce_sum(self.log_std + _HALF_LOG_2_PI, axis=-1)
        return self.loc + self.std * noise, -0.5 * tf.reduce_sum(noise**2, axis=-1) - of_std

    def _mean(self) -> tf.Tensor:
        return self.loc

    def _stddev(self) -> tf.Tensor:
        return self.std

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)[:-1]

    def _batch_shape(self) -> tf.TensorShape:
        return self.loc.shape[:-1]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)[-1:]

    def _event_shape(self) -> tf.TensorShape:
        return self.loc.shape[-1:]


class StandardGaussian(DiagonalGaussian):
    """N(0, I) over vectors of so many dimensions."""

    def __init__(self, dimensions: int):
        super().__init__(tf.zeros(dimensions), tf.zeros(dimensions))

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        constant = value.shape[-1] * _HALF_LOG_2_PI
        return -0.5 * tf.reduce_sum(tf.square(value), axis=-1) - constant


class FlowGaussian(tfd.TransformedDistribution):
    """A Gaussian carried over by a flow; `mean` is where the flow takes the Gaussian's mean.

    That is not the expectation, which has no closed form, but it stands for it where one code of an
    image is wanted, and in the count of active units.
    """

    def _mean(self) -> tf.Tensor:
        return self.bijector.forward(self.distribution.mean())


_HALF_LOG_2_PI = 0.5 * math.log(2.0 * math.pi)


@tfd.RegisterKL(DiagonalGaussian, DiagonalGaussian)
def _kl(q: DiagonalGaussian, p: DiagonalGaussian, name: str | None = None) -> tf.Tensor:
    return tf.reduce_sum(kl_by_dimension(q, p), axis=-1)


def kl_by_dimension(q: DiagonalGaussian, p: DiagonalGaussian) -> tf.Tensor:
    """KL(q_d || p_d) of each dimension, [..., d]: Kingma and Welling 2014, appendix B, any two."""
    log_ratio = q.log_std - p.log_std
    distance = tf.square((q.loc - p.loc) / p.std)
    return 0.5 * (tf.exp(2.0 * log_ratio) + distance - 1.0) - log_ratio


class Categoricals(tfd.Distribution):
    """Independent categorical variables as vectors of one-hots laid side by side, [..., N * K].

    With a temperature the draws are relaxed (E. Jang, S. Gu, B. Poole. Categorical
    Reparameterization with Gumbel-Softmax. ICLR 2017, eq. 1-2), g being Gumbel noise:

        one-hot(argmax_k (logit_k + g_k))   becomes   softmax((logits + g) / temperature)

    and with `straight_through` they are one-hots again, whose gradient is the relaxed draw's. The
    log density is that of the categorical variables, sum_k z_k log p_k, at relaxed draws its linear
    continuation, which is no density.

    Args:
        logits: float32 [..., N, K].
        temperature: positive scalar, or None for one-hots.
        straight_through: see above; has no meaning without a temperature.
    """

    def __init__(
        self,
        logits: tf.Tensor,
        temperature: tf.Tensor | float | None = None,
        straight_through: bool = False,
    ):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=(
                tfd.NOT_REPARAMETERIZED if temperature is None else tfd.FULLY_REPARAMETERIZED
            ),
            validate_args=False,
            allow_nan_stats=True,
            parameters={"logits": logits, "temperature": temperature},
        )
        self.log_probs = tf.nn.log_softmax(logits, axis=-1)
        self.temperature, self.straight_through = temperature, straight_through

    def _sample_n(self, n: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        shape = tf.concat([[n], tf.shape(self.log_probs)], axis=0)
        uniform = stateless.uniform(shape, tfp_random.sanitize_seed(seed))
        gumbel = -tf.math.log(-tf.math.log(tf.maximum(uniform, _TINY)))
        noisy = self.log_probs + gumbel
        if self.temperature is None:
            return self._flat(self._one_hot(noisy))
        relaxed = tf.nn.softmax(noisy / self.temperature, axis=-1)
        if self.straight_through:
            relaxed += tf.stop_gradient(self._one_hot(noisy) - relaxed)
        return self._flat(relaxed)

    def _one_hot(self, values: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(tf.argmax(values, axis=-1), self.log_probs.shape[-1])

    def _flat(self, values: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([tf.shape(values)[:-2], self._event_shape_tensor()], axis=0)
        return tf.reshape(values, shape)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(value * self._flat(self.log_probs), axis=-1)

    def _mean(self) -> tf.Tensor:
        return self._flat(tf.exp(self.log_probs))

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.log_probs)[:-2]

    def _batch_shape(self) -> tf.TensorShape:
        return self.log_probs.shape[:-2]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([math.prod(self.log_probs.shape[-2:])], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([math.prod(self.log_probs.shape[-2:])])


_LOG_SCALES = (-7.0, 7.0)  # What a logistic's is clipped to; values lie in [0, 1].
_TINY = 1e-30  # A uniform draw of 0 would give infinite noise.


@tfd.RegisterKL(Categoricals, Categoricals)
def _kl_categoricals(q: Categoricals, p: Categoricals, name: str | None = None) -> tf.Tensor:
    """KL(q || p) of the categorical variables, [...]."""
    return tf.reduce_sum(_kl_of_values(q, p), axis=[-2, -1])


def kl_by_variable(q: Categoricals, p: Categoricals) -> tf.Tensor:
    """KL(q_n || p_n) of each categorical variable, [..., N]."""
    return tf.reduce_sum(_kl_of_values(q, p), axis=-1)


def _kl_of_values(q: Categoricals, p: Categoricals) -> tf.Tensor:
    return tf.exp(q.log_probs) * (q.log_probs - p.log_probs)


class Autoregressive(tfd.Distribution):
    """Images whose pixels are drawn one after the other, each given those before and a condition.

    Args:
        network: a `networks.pixelcnn.PixelCNNNetwork`.
        condition: float32 [..., H, W, D], a map for each image of the batch [...].
    """

    def __init__(self, network: Any, condition: tf.Tensor):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"network": network, "condition": condition},
        )
        self.network, self.condition = network, condition

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        shape = tf.broadcast_dynamic_shape(tf.shape(value)[:-3], self._batch_shape_tensor())
        values = self.network.to_values(self._flat(value, shape))
        found = self.network.log_prob(values, self._flat(self.condition, shape))
        return tf.reshape(found, shape)

    def _flat(self, x: tf.Tensor, batch_shape: tf.Tensor) -> tf.Tensor:
        """[..., H, W, C], broadcast to the batch shape -> [B, H, W, C]."""
        event = x.shape[-3:].as_list()
        whole = tf.broadcast_to(x, tf.concat([batch_shape, event], axis=0))
        return tf.reshape(whole, [-1, *event])

    def _sample_n(self, n: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        shape = tf.concat([[n], self._batch_shape_tensor()], axis=0)
        condition = self._flat(self.condition, shape)
        seed = tfp_random.sanitize_seed(seed)
        values = self.network.draw(tf.shape(condition)[0], seed, condition)
        images = self.network.to_images(values)
        return tf.reshape(images, tf.concat([shape, self._event_shape_tensor()], axis=0))

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.condition)[:-3]

    def _batch_shape(self) -> tf.TensorShape:
        return self.condition.shape[:-3]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant(self.network.shape, tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape(self.network.shape)


def diagonal_gaussian(outputs: tf.Tensor) -> DiagonalGaussian:
    """Gaussian with diagonal covariance; the last axis of `outputs` holds means, then log sigmas.

    For example outputs of shape [64, 100] give 64 vectors of 50 dimensions.
    """
    return DiagonalGaussian(*tf.split(tf.cast(outputs, tf.float32), 2, axis=-1))


def bernoulli(logits: tf.Tensor, event_ndims: int = 3) -> tfd.Distribution:
    """Independent Bernoulli values in {0, 1} from `logits`, e.g. [k, B, H, W, C]."""
    return IndependentBernoulli(tfd.Bernoulli(logits=tf.cast(logits, tf.float32)), event_ndims)


def gaussian(outputs: tf.Tensor, event_ndims: int = 3) -> tfd.Distribution:
    """Independent Gaussian values; the last axis of `outputs` holds means, then log sigmas.

    For example outputs of shape [64, 28, 28, 2] give 64 events of shape [28, 28, 1].
    """
    mean, log_std = tf.split(tf.cast(outputs, tf.float32), 2, axis=-1)
    return tfd.Independent(tfd.Normal(mean, tf.exp(log_std)), event_ndims)


def discretized_logistic(outputs: tf.Tensor, event_ndims: int = 3) -> tfd.Distribution:
    """Logistic values discretised to the 256 levels 0, 1/255, ..., 1 (Kingma et al. 2016, A.3).

    p(x) = F((x + 1/510 - mean) / scale) - F((x - 1/510 - mean) / scale), F the logistic function,
    the outer levels taking the tails. The last axis of `outputs` holds means in [0, 1] (not
    enforced), then log scales, as in `gaussian`; these are clipped to [-7, 7].
    """
    mean, log_scale = tf.split(tf.cast(outputs, tf.float32), 2, axis=-1)
    return tfd.Independent(_levels(mean, log_scale), event_ndims)


MIXTURE = 5  # Logistics of a channel in `logistic_mixture`.


def logistic_mixture(outputs: tf.Tensor, event_ndims: int = 3) -> tfd.Distribution:
    """Mixtures of 5 logistics discretised to the 256 levels 0, 1/255, ..., 1.

    p(x) = sum_i w_i p_i(x), each p_i as in `discretized_logistic`. The last axis of `outputs`
    holds, channel by channel, 5 logits of w, 5 means and 5 log scales: outputs of shape
    [64, 32, 32, 45] give 64 events of shape [32, 32, 3]. Channels are independent.

    Reference: T. Salimans, A. Karpathy, X. Chen, D. Kingma. PixelCNN++: Improving the PixelCNN with
    Discretized Logistic Mixture Likelihood and Other Modifications. ICLR 2017: eq. 1-2.
    """
    outputs = tf.cast(outputs, tf.float32)
    channels = outputs.shape[-1] // (3 * MIXTURE)
    lead = tf.shape(outputs)[:-1]
    parts = tf.reshape(outputs, tf.concat([lead, [channels, 3, MIXTURE]], axis=0))
    parts = tf.ensure_shape(parts, [*outputs.shape[:-1], channels, 3, MIXTURE])
    logits, mean, log_scale = tf.unstack(parts, axis=-2)
    mixture = _Mixture(logits, _levels(mean, log_scale))
    return tfd.Independent(mixture, event_ndims)


def _levels(mean: tf.Tensor, log_scale: tf.Tensor) -> "_Levels":
    # In units of a level: 0..255. The mass of level n is that of (n - 1/2, n + 1/2).
    scale = tf.exp(tf.clip_by_value(log_scale, *_LOG_SCALES))
    base = tfd.Logistic(255.0 * mean - 0.5, 255.0 * scale)
    return _Levels(tfd.QuantizedDistribution(base, low=0.0, high=255.0))


class _Scalars(tfd.Distribution):
    """A distribution of single numbers."""

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])


class _Mixture(_Scalars):
    """`tfd.MixtureSameFamily` of any rank: the softmax in that one takes 5 axes at most on CPUs.

    Args:
        logits: of the weights, float32 [..., K].
        components: distribution over numbers of batch shape [..., K].
    """

    def __init__(self, logits: tf.Tensor, components: tfd.Distribution):
        super().__init__(
            dtype=components.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"logits": logits, "components": components},
        )
        self.components = components
        self.log_weights = logits - tf.reduce_logsumexp(logits, axis=-1, keepdims=True)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        of_each = self.components.log_prob(value[..., tf.newaxis])
        return tf.reduce_logsumexp(self.log_weights + of_each, axis=-1)

    def _sample_n(self, n: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        of_choice, of_value = tf.unstack(stateless.split(tfp_random.sanitize_seed(seed), 2))
        shape = tf.concat([[n], tf.shape(self.log_weights)], axis=0)
        noise = -tf.math.log(-tf.math.log(tf.maximum(stateless.uniform(shape, of_choice), _TINY)))
        chosen = tf.argmax(self.log_weights + noise, axis=-1)
        drawn = self.components.sample(n, seed=of_value)
        one_hot = tf.one_hot(chosen, self.log_weights.shape[-1])
        return tf.reduce_sum(drawn * one_hot, axis=-1)

    def _mean(self) -> tf.Tensor:
        return tf.reduce_sum(tf.exp(self.log_weights) * self.components.mean(), axis=-1)

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.log_weights)[:-1]

    def _batch_shape(self) -> tf.TensorShape:
        return self.log_weights.shape[:-1]


class _Levels(_Scalars):
    """A distribution over 0..255 seen as one over 0..1; a probability mass, hence no Jacobian."""

    def __init__(self, levels: tfd.Distribution):
        super().__init__(
            dtype=levels.dtype,
            reparameterization_type=levels.reparameterization_type,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"levels": levels},
        )
        self.levels = levels

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        return self.levels.log_prob(tf.round(value * 255.0))

    def _sample_n(self, n: int, seed: tf.Tensor | None = None) -> tf.Tensor:
        return self.levels.sample(n, seed=seed) / 255.0

    def _mean(self) -> tf.Tensor:
        # The sum of P(x >= n) over the levels, as an integral: of a very narrow logistic the mean
        # lies within half a level of it.
        loc, scale = self.levels.distribution.loc + 0.5, self.levels.distribution.scale
        above = tf.nn.softplus(loc / scale) - tf.nn.softplus((loc - 255.0) / scale)
        return tf.clip_by_value(scale * above / 255.0, 0.0, 1.0)

    def _batch_shape_tensor(self) -> tf.Tensor:
        return self.levels.batch_shape_tensor()

    def _batch_shape(self) -> tf.TensorShape:
        return self.levels.batch_shape
