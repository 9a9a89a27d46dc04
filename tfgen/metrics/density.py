"""How well a model with a tractable density explains data.

Each evaluation is a function (model, data, settings) -> dict of `Measure`. All noise is a function
of the seed and the batch's position.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tfgen.data import Data
from tfgen.data.spec import SPLITS
from tfgen.metrics.measure import Measure, Settings

_BATCH = 500


def gaussian_log_prob(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log density of test vectors [N, d] by the Gaussian of greatest likelihood for others [M, d].

    Raises:
        ValueError: if there are too few of these for a covariance of full rank.
    """
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    centred = train - train.mean(0)
    few = ValueError(
        f"a Gaussian of {train.shape[1]} dimensions needs more examples, or more varied ones. "
        f"Received: {len(train)}"
    )
    if len(train) <= train.shape[1]:
        raise few
    try:
        root = np.linalg.cholesky(centred.T @ centred / len(train))
    except np.linalg.LinAlgError:
        raise few from None
    white = np.linalg.solve(root, (test - train.mean(0)).T)
    constant = 0.5 * test.shape[1] * math.log(2 * math.pi) + np.log(np.diag(root)).sum()
    return -0.5 * (white**2).sum(0) - constant


def _noise(split: str, settings: Settings, index: int) -> tf.Tensor:
    """Seed of a batch's dequantisation, other noise in each split.

    A pixel of 0 is its noise: with the same in both, test vectors would be those of training.
    """
    number = SPLITS[::-1].index(split)
    return tf.constant([settings.seed, number * 2**24 + index], tf.int32)


def gaussian_nll(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """The measures of `nll` of a Gaussian with a full covariance, fitted to the training split.

    Nothing, and a warning, where there are too few examples for one.
    """
    splits = []
    for split, limit in (("train", None), (settings.split, settings.limit)):
        batches = data.batches(split, _BATCH, seed=settings.seed, limit=limit)
        vectors, log_dets = zip(
            *(
                model.to_vectors(batch[model.needs[0]], _noise(split, settings, index))
                for index, batch in enumerate(batches)
            ),
            strict=True,
        )
        splits.append(np.concatenate(vectors))
    note = f"full covariance, fitted to {len(splits[0])} training examples"
    try:
        log_prob = gaussian_log_prob(*splits)
    except ValueError as error:
        logging.warning("no gaussian_nll: %s", error)
        return {}
    found = {"gaussian_nll": Measure.mean(-log_prob, "nats", note)}
    if model.of_images:
        bits = _bits(log_prob + np.concatenate(log_dets), model.dimensions)
        found["gaussian_bits_per_dimension"] = Measure.mean(bits, "bits", note)
    return found


def _bits(log_prob: np.ndarray, dimensions: int) -> np.ndarray:
    """Bits for each of so many numbers of 256 levels, of densities over [0, 1] in nats."""
    return -log_prob / (dimensions * math.log(2)) + 8


def nll(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """Negative log density, and of images the bits of each number as well.

    "nll" is in nats of what the flow is trained on: points, or logits of dequantised images, in
    which densities of the literature are given (Papamakarios et al. 2017, table 2). With z in
    [0, 1] and its Jacobian it becomes a bound on the bits that the 256 levels of an image take:

        bits per dimension = -(log p(y) + log |dy/dz|) / (d log 2) + 8
    """
    of_vectors, of_examples = [], []
    batches = data.batches(settings.split, _BATCH, seed=settings.seed, limit=settings.limit)
    judge = tf.function(model.vector_log_prob, reduce_retracing=True)
    for index, batch in enumerate(settings.progress(batches, "density")):
        seed = _noise(settings.split, settings, index)
        y, log_det = model.to_vectors(batch[model.needs[0]], seed)
        log_prob = judge(y).numpy().astype(np.float64)
        of_vectors.append(log_prob)
        of_examples.append(log_prob + log_det.numpy())
    log_prob = np.concatenate(of_vectors)
    note = f"{len(log_prob)} {settings.split} examples"
    if not model.of_images:
        return {"nll": Measure.mean(-log_prob, "nats", note)}
    bits = _bits(np.concatenate(of_examples), model.dimensions)
    return {
        "nll": Measure.mean(-log_prob, "nats", f"of logits, one draw of the noise, {note}"),
        "bits_per_dimension": Measure.mean(bits, "bits", "with the Jacobian of the logit"),
    }


def image_nll(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """-log p(x) of images of discrete levels, in nats, and in bits for each pixel's channel.

    A bound where the model's `log_prob` is one.
    """
    judge = tf.function(model.log_prob, reduce_retracing=True)
    batches = data.batches(settings.split, _BATCH, seed=settings.seed, limit=settings.limit)
    found = [judge(b["image"]).numpy() for b in settings.progress(batches, "density")]
    nll = -np.concatenate(found).astype(np.float64)
    bits = nll / (math.prod(data.spec.image_shape) * math.log(2))
    note = f"{len(nll)} {settings.split} images"
    return {
        "nll": Measure.mean(nll, "nats", note),
        "bits_per_dimension": Measure.mean(bits, "bits", note),
    }
