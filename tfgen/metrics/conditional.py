"""How well a model completes images: NLL of what is hidden given what is seen.

Each evaluation is a function (model, data, settings) -> dict of `Measure`, named by the models
that it makes sense for. The estimate by importance sampling is `likelihood.nll`.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from tfgen.data import Data
from tfgen.metrics import likelihood
from tfgen.metrics.measure import Measure, Settings


class CompletionModel(Protocol):
    """What a model must answer to be evaluated here."""

    def prior_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """`likelihood.LatentModel.importance_terms` of samples from p(z|x)."""

    def baseline_log_prob(self, image: tf.Tensor) -> tf.Tensor:
        """log p(y|x) by a network without latents: [B], in nats."""


def nll(model: CompletionModel, data: Data, settings: Settings) -> dict[str, Measure]:
    """NLL of the hidden pixels by Monte Carlo from the prior, and by the baseline, in nats.

    Monte Carlo is log (1/k) sum_m p(y|x, z_m), z_m ~ p(z|x): in expectation a lower bound on
    log p(y|x), as importance sampling is, but a looser one.
    """
    batches = list(data.batches(settings.split, 100, seed=settings.seed, limit=settings.limit))
    found = likelihood.estimate_by(
        model.prior_terms,
        settings.progress(batches, "NLL by the prior"),
        k=settings.k,
        seed=settings.seed,
    )
    of_baseline = tf.function(model.baseline_log_prob, reduce_retracing=True)
    baseline = -np.concatenate([of_baseline(batch["image"]).numpy() for batch in batches])
    images = f"{len(baseline)} {settings.split} images"
    return {
        "nll_monte_carlo": Measure.mean(
            -found.log_prob, "nats", f"{settings.k} samples of p(z|x), {images}"
        ),
        "nll_baseline": Measure.mean(baseline, "nats", f"without latents, {images}"),
    }
