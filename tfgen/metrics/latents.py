"""What Gaussian and categorical latents carry: KL of each, collapse, information about the image.

Each evaluation is a function (model, data, settings) -> dict of `Measure`, named by the models
that it makes sense for. It is empty for a posterior of another kind, an inverse autoregressive
flow. Its log q(z|x) is the noise's log density less the blocks' log-determinants: unless all blocks
take the dimensions in one order, no part of that sum is of one dimension of z, so none has a KL of
its own. And each of the N^2 densities log q(z_n|x_m) would take one pass a dimension. The KL of all
dimensions together is `likelihood.nll`'s "kl", by draws: the sum of all stochastic layers, each of
which, where there are several, is in the log of a training as "kl_1", "kl_2", ...
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import scipy.special
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen import distributions
from tfgen.data import Data
from tfgen.metrics.measure import Measure, Settings

COLLAPSED = 0.01  # Mean KL of a dimension, in nats, below which it carries nothing.
MOST = 0.9  # Part of a layer's dimensions that makes it a posterior collapse.
_IMAGES = 10_000  # At most so many: each is compared with each.
_ROWS = 500  # Draws that are compared with all posteriors at once.


class Factors(Protocol):
    """What a model must answer to be evaluated here."""

    def evidence(self, batch: dict[str, tf.Tensor]) -> Any:
        """What it is given of a batch: see `GenerativeModel.evidence`."""

    def factors(
        self, evidence: Any, seed: tf.Tensor
    ) -> list[tuple[tfd.Distribution, tfd.Distribution]]:
        """q and p of each layer of latents, bottom first; see `VAE.factors`."""


def mean_kl(
    model: Factors, batches: Iterable[dict[str, tf.Tensor]], seed: int
) -> dict[int, np.ndarray]:
    """Mean over images of KL(q(z_d|.) || p(z_d|.)) of each unit, in nats, in closed form.

    A unit is a dimension of a diagonal Gaussian, or a categorical variable.

    Returns:
        Layer, counted from 1 at the bottom -> float64 [units]; without layers whose q and p are
        neither both diagonal Gaussians nor both categorical.
    """
    sums: dict[int, np.ndarray] = {}
    count = 0
    for index, batch in enumerate(batches):
        count += len(batch["image"])
        factors = model.factors(model.evidence(batch), tf.constant([seed, index], tf.int32))
        for layer, (q, p) in enumerate(factors, start=1):
            kl = _kl_by_unit(q, p)
            if kl is not None:
                sums[layer] = sums.get(layer, 0.0) + kl.reshape(-1, kl.shape[-1]).sum(0)
    return {layer: total / count for layer, total in sums.items()}


def kl_per_dimension(model: Factors, data: Data, settings: Settings) -> dict[str, Measure]:
    """KL of each layer's units, see `mean_kl`, and how many of them have collapsed onto the prior.

    Where that is most of a layer, the note says posterior collapse.
    """
    batches = data.batches(settings.split, 500, seed=settings.seed, limit=settings.limit)
    measures = {}
    for layer, kl in mean_kl(model, batches, settings.seed).items():
        largest = " ".join(f"{value:.3g}" for value in np.sort(kl)[::-1][:10])
        measures[f"unit_kl_layer_{layer}"] = Measure(
            float(kl.mean()), None, "nats", f"mean of {len(kl)}; the largest are {largest}"
        )
        collapsed = int((kl < COLLAPSED).sum())
        note = f"of {len(kl)}, KL below {COLLAPSED}"
        if collapsed >= MOST * len(kl):
            note = f"posterior collapse: {note}"
        measures[f"collapsed_layer_{layer}"] = Measure(collapsed, None, "units", note)
    return measures


def mutual_information(model: Factors, data: Data, settings: Settings) -> dict[str, Measure]:
    """I(x; z) of the bottom latents and N images (Hoffman and Johnson 2016).

        I = E_x KL(q(z|x) || p(z)) - KL(q(z) || p(z)) = E_x E_q(z|x)[log q(z|x) - log q(z)],
        q(z) = (1/N) sum_n q(z|x_n)

    by one draw an image; it is log N at most. The other term, the KL of the aggregate posterior to
    the prior, is there for one layer of latents.

    Reference: M. Hoffman, M. Johnson. ELBO surgery: yet another way to carve up the variational
    evidence lower bound. NeurIPS workshop on Advances in Approximate Bayesian Inference 2016.
    """
    limit = min(settings.limit or _IMAGES, _IMAGES)
    draws, numbers, log_p = [], [], []
    for index, batch in enumerate(
        data.batches(settings.split, 500, seed=settings.seed, limit=limit)
    ):
        seed = tf.constant([settings.seed, index], tf.int32)
        (q, p), *above = model.factors(model.evidence(batch), seed)
        if not (_gaussian(q) or _categorical(q)):
            return {}
        z = q.sample(seed=seed)
        draws.append(z.numpy())
        parameters = [q.loc, q.log_std] if _gaussian(q) else [q.log_probs]
        numbers.append([parameter.numpy() for parameter in parameters])
        if not above:
            log_p.append(p.log_prob(z).numpy())
    every = [np.concatenate(parts) for parts in zip(*numbers, strict=True)]
    find: Callable = densities if _gaussian(q) else categorical_densities
    log_q, log_aggregate = find(np.concatenate(draws), *every)
    note = f"{len(log_q)} {settings.split} images, at most log of it, {math.log(len(log_q)):.2f}"
    measures = {"mutual_information": Measure.mean(log_q - log_aggregate, "nats", note)}
    if log_p:
        ratio = log_aggregate - np.concatenate(log_p)
        measures["marginal_kl"] = Measure.mean(ratio, "nats", "KL of the mean of all q to p(z)")
    return measures


def densities(
    draws: np.ndarray, means: np.ndarray, log_stds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log q(z_n|x_n) and log (1/N) sum_m q(z_n|x_m) of a draw z_n of each of N Gaussians.

    Args:
        draws: [N, d].
        means: [N, d].
        log_stds: [N, d].

    Returns:
        float64 [N] each, in nats.
    """
    draws, means, log_stds = (a.astype(np.float64) for a in (draws, means, log_stds))
    precision = np.exp(-2.0 * log_stds)
    constant = (
        -0.5 * (means**2 * precision).sum(1)
        - log_stds.sum(1)
        - 0.5 * draws.shape[1] * math.log(2.0 * math.pi)
    )
    return _own_and_aggregate(
        draws, lambda z: z @ (means * precision).T - 0.5 * z**2 @ precision.T + constant
    )


def categorical_densities(
    draws: np.ndarray, log_probs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`densities` of N posteriors of D categorical variables of K values each.

    For example 20 variables of 10 values are draws [N, 200]; log q(z_n|x_m) is the sum of the 20
    entries of log_probs[m] where z_n is 1, for all pairs a product of matrices [N, 200] [200, N].

    Args:
        draws: one-hots side by side, [N, D * K].
        log_probs: logarithms of the values' probabilities, [N, D, K].

    Returns:
        float64 [N] each, in nats.
    """
    draws, log_probs = (a.reshape(len(a), -1).astype(np.float64) for a in (draws, log_probs))
    return _own_and_aggregate(draws, lambda z: z @ log_probs.T)


def _own_and_aggregate(
    draws: np.ndarray, log_density: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """See `densities`, by a function from draws [rows, d] to log q(z|x_m) of all m, [rows, N]."""
    own, aggregate = [], []
    for start in range(0, len(draws), _ROWS):
        z = draws[start : start + _ROWS]
        log_q = log_density(z)
        own.append(log_q[np.arange(len(z)), start + np.arange(len(z))])
        aggregate.append(scipy.special.logsumexp(log_q, axis=1) - math.log(len(draws)))
    return np.concatenate(own), np.concatenate(aggregate)


def _kl_by_unit(q: tfd.Distribution, p: tfd.Distribution) -> np.ndarray | None:
    """KL(q_d || p_d) of each unit, float64 [..., units]; None where it has no closed form."""
    if _gaussian(q) and _gaussian(p):
        kl = distributions.kl_by_dimension(q, p)
    elif _categorical(q) and _categorical(p):
        kl = distributions.kl_by_variable(q, p)
    else:
        return None
    return kl.numpy().astype(np.float64)


def _gaussian(distribution: tfd.Distribution) -> bool:
    return isinstance(distribution, distributions.DiagonalGaussian)


def _categorical(distribution: tfd.Distribution) -> bool:
    return isinstance(distribution, distributions.Categoricals)
