"""How well a model with latents explains data: NLL by importance sampling, ELBO, active units.

Each evaluation is a function (model, data, settings) -> dict of `Measure`, named by the models
that it makes sense for. All noise is a function of the seed and the batch's position.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfgen import stateless
from tfgen.data import Data
from tfgen.metrics.measure import Measure, Settings

_ROWS = 5000  # Latents decoded at once; their images stay in the cache of a processor.
ACTIVE = 0.01  # Threshold of an active unit's variance (Burda et al. 2016, section 5.2).


class LatentModel(Protocol):
    """What a model must answer to be evaluated here; `evidence` is as its own method gives it."""

    def evidence(self, batch: dict[str, tf.Tensor]) -> Any:
        """What it is given of a batch: see `GenerativeModel.evidence`."""

    def importance_terms(self, evidence: Any, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Keys log_weight, likelihood and kl of k samples: float32 [k, B] each, in nats."""

    def posterior_means(self, evidence: Any, seed: tf.Tensor) -> list[tf.Tensor]:
        """Means of each layer's q given one sample of the layer below: [B, d] each."""

    def reconstruct(self, image: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Estimates:
    """Estimates for each of N examples, float64 [N] each, in nats.

    Attributes:
        log_prob: L_k, a lower bound on log p(x) in expectation.
        error: standard error of `log_prob` from the finite k, by the delta method.
        elbo: mean log weight.
        likelihood: mean of log p(x|z).
        kl: mean of log q(z|x) - log p(z).
        effective: effective number of samples, (sum w)^2 / sum w^2, between 1 and k.
    """

    log_prob: np.ndarray
    error: np.ndarray
    elbo: np.ndarray
    likelihood: np.ndarray
    kl: np.ndarray
    effective: np.ndarray


def estimate(
    model: LatentModel, batches: Iterable[dict[str, tf.Tensor]], *, k: int, seed: int
) -> Estimates:
    """Importance sampling of log p(x) with k fresh samples an example (Burda et al. 2016).

        L_k = log((1/k) sum_m w_m),   w_m = p(x, z_m) / q(z_m|x)

    Args:
        model: gives log weights; where it draws pixels itself, `draw_pixels(image, seed)`, these
            are the same for all k. Where it or its `likelihood` has `rows_at_once`, so many samples
            of all images are drawn at once.
        batches: dicts with "image" [B, H, W, C] and what else the model needs.
        k: samples an example, at least 1.
        seed: int.

    Raises:
        ValueError: if k is below 1.
    """
    likelihood = getattr(model, "likelihood", None)
    rows = getattr(model, "rows_at_once", getattr(likelihood, "rows_at_once", None))
    drawn = _drawn(model, batches, seed)
    evidence = model.evidence
    return estimate_by(model.importance_terms, drawn, k=k, seed=seed, rows=rows, evidence=evidence)


def _drawn(
    model: LatentModel, batches: Iterable[dict[str, tf.Tensor]], seed: int
) -> Iterable[dict[str, tf.Tensor]]:
    """Batches with the pixels that a model draws of an image, once for all samples of latents."""
    draw = getattr(model, "draw_pixels", None)
    for index, batch in enumerate(batches):
        if draw is not None:
            batch = {**batch, "image": draw(batch["image"], tf.constant([seed, -1 - index]))}
        yield batch


def estimate_by(
    terms_of: Callable[[Any, int, tf.Tensor], dict[str, tf.Tensor]],
    batches: Iterable[dict[str, tf.Tensor]],
    *,
    k: int,
    seed: int,
    rows: int | None = None,
    evidence: Callable[[dict[str, tf.Tensor]], Any] = operator.itemgetter("image"),
) -> Estimates:
    """`estimate` with the weights of a function like `LatentModel.importance_terms`.

    The samples are drawn in chunks, whose weights are added up in float64 relative to their
    running maximum, so memory does not grow with k.

    Args:
        terms_of: gives log weights of the evidence, k and a seed.
        batches: dicts of tensors [B, ...].
        k: samples an example, at least 1.
        seed: int.
        rows: samples of all examples that are drawn at once, or one of each where they are more;
            None: as many as images of small decoders may be.
        evidence: gives what `terms_of` takes of a batch, a tensor [B, ...] or a dict of such.

    Raises:
        ValueError: if k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be more than 0. Received: k={k}")
    stream = _streamer(terms_of)
    parts = []
    for index, batch in enumerate(batches):
        given = evidence(batch)
        examples = int(tf.nest.flatten(given)[0].shape[0])
        chunk = min(k, max(1, (rows or _ROWS) // examples))
        full, rest = divmod(k, chunk)
        key = tf.constant([seed, index], tf.int32)
        first, last = tf.constant(0), tf.constant(full)
        state = stream(given, key, first, last, chunk, _empty(examples))
        if rest:
            state = stream(given, key, last, last + 1, rest, state)
        parts.append([part.numpy() for part in state])
    top, total, squares, log_weights, likelihood, kl = (
        np.concatenate(p) for p in zip(*parts, strict=True)
    )
    some = total > 0  # Else all weights of the example are 0.
    whole = np.where(some, total, 1.0)
    return Estimates(
        log_prob=np.where(some, top + np.log(whole) - math.log(k), -np.inf),
        error=np.where(some, np.sqrt(np.maximum(squares / whole**2 - 1.0 / k, 0.0)), np.inf),
        elbo=log_weights / k,
        likelihood=likelihood / k,
        kl=kl / k,
        effective=np.where(some, total**2 / np.where(some, squares, 1.0), 0.0),
    )


def _empty(examples: int) -> list[tf.Tensor]:
    zeros = tf.zeros(examples, tf.float64)
    return [zeros - np.inf, zeros, zeros, zeros, zeros, zeros]


def _streamer(terms_of: Callable) -> Callable:
    """A function that adds chunks first..last-1 of `size` samples to the running sums of a batch.

    The sums, each [B]: maximum m of the log weights, sum of exp(log w - m), sum of its square,
    sums of log w, of the log likelihood and of the KL.
    """

    @tf.function(reduce_retracing=True)
    def stream(
        given: Any,
        seed: tf.Tensor,
        first: tf.Tensor,
        last: tf.Tensor,
        size: int,
        state: list[tf.Tensor],
    ) -> list[tf.Tensor]:
        top, total, squares, log_weights, likelihood, kl = state
        for index in tf.range(first, last):
            chunk_seed = stateless.fold_in(seed, index)
            terms = terms_of(given, size, chunk_seed)
            terms = {name: tf.cast(value, tf.float64) for name, value in terms.items()}
            new_top = tf.maximum(top, tf.reduce_max(terms["log_weight"], axis=0))
            # While there is no weight but 0, whose log is -inf, nothing is subtracted.
            scale = tf.where(tf.math.is_inf(new_top), tf.zeros_like(new_top), new_top)
            weights = tf.exp(terms["log_weight"] - scale)
            shrink = tf.exp(top - scale)
            total = total * shrink + tf.reduce_sum(weights, axis=0)
            squares = squares * shrink**2 + tf.reduce_sum(weights**2, axis=0)
            log_weights += tf.reduce_sum(terms["log_weight"], axis=0)
            likelihood += tf.reduce_sum(terms["likelihood"], axis=0)
            kl += tf.reduce_sum(terms["kl"], axis=0)
            top = new_top
        return [top, total, squares, log_weights, likelihood, kl]

    return stream


def nll(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """Test NLL by L_k, and the ELBO with its terms, in nats an image."""
    batches = data.batches(settings.split, 100, seed=settings.seed, limit=settings.limit)
    found = estimate(model, settings.progress(batches, "NLL"), k=settings.k, seed=settings.seed)
    note = f"L_{settings.k}, {len(found.log_prob)} {settings.split} images"
    return {
        "nll": Measure.mean(-found.log_prob, "nats", note),
        "nll_error_per_image": Measure(
            float(np.mean(found.error)), None, "nats", "mean over images"
        ),
        "effective_samples": Measure.mean(found.effective, "samples", f"of {settings.k}"),
        "elbo": Measure.mean(found.elbo, "nats", "log p(x|z) + log p(z) - log q(z|x)"),
        "log_likelihood": Measure.mean(found.likelihood, "nats", "log p(x|z)"),
        "kl": Measure.mean(found.kl, "nats", "log q(z|x) - log p(z)"),
    }


def active_units(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """Units u of each layer with Var_x(E_q[u|x]) > 0.01 (Burda et al. 2016, section 5.2).

    For a layer above the first the expectation is conditioned on one sample of the layer below.
    Over the split asked for, or, if that has fewer than 10,000 images, the training split; at
    most 10,000 images.
    """
    enough = 10_000
    size = getattr(data.spec, f"{settings.split}_size")
    split = settings.split if size >= enough else "train"
    sums: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    count = 0
    means = tf.function(model.posterior_means, reduce_retracing=True)
    for index, batch in enumerate(data.batches(split, 500, seed=settings.seed, limit=enough)):
        layers = means(model.evidence(batch), tf.constant([settings.seed, index], tf.int32))
        arrays = [layer.numpy().astype(np.float64) for layer in layers]
        count += len(arrays[0])
        sums = [a.sum(0) + (sums[i] if sums else 0) for i, a in enumerate(arrays)]
        squares = [(a**2).sum(0) + (squares[i] if squares else 0) for i, a in enumerate(arrays)]
    result = {}
    for layer, (total, square) in enumerate(zip(sums, squares, strict=True)):
        variance = square / count - (total / count) ** 2
        note = f"of {len(total)}, variance > {ACTIVE} over {count} {split} images"
        active = int((variance > ACTIVE).sum())
        result[f"active_units_layer_{layer + 1}"] = Measure(active, None, "units", note)
    return result


def reconstruction_error(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """Squared error of reconstructions, by one posterior sample, mean over pixels in [0, 1]."""
    errors = []
    width = 2.0 if data.spec.image_range == "symmetric" else 1.0
    batches = data.batches(settings.split, 500, seed=settings.seed, limit=settings.limit)
    for index, batch in enumerate(batches):
        seed = stateless.fold_in(tf.constant([settings.seed, 1], tf.int32), index)[0]
        rebuilt = model.reconstruct(batch["image"], seed)
        squared = ((rebuilt - tf.cast(batch["image"], tf.float32)) / width) ** 2
        errors.append(tf.reduce_mean(squared, axis=[1, 2, 3]).numpy())
    note = f"mean over pixels, {settings.split} images"
    return {"reconstruction_error": Measure.mean(np.concatenate(errors), "squared", note)}
