"""Whether generated images have the attributes that were asked for, as a classifier reads them off.

The classifier is the network of `classifier`, with an output for each attribute, trained on the
data's own training split by the cross-entropy to the attributes, which are scaled to [0, 1] by
their least and largest values there. An attribute is high where it is above 1/2, else low.
"""

import os
from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tfgen import seeds
from tfgen.data import Data
from tfgen.errors import UserError
from tfgen.metrics import classifier
from tfgen.metrics.images import to_unit
from tfgen.metrics.measure import Measure, Settings

_BATCH = 128
_STEPS = 4000  # By 1000 it read the classes of layered digits at 0.88, by 4000 at 0.98.
_LISTED = 20  # Attributes whose numbers a note has.
_EXAMPLES = 10_000  # Of the training split, whose least and largest values count.


class AttributeModel(Protocol):
    """What a model must answer to be evaluated here."""

    def generate(self, attributes: tf.Tensor, seed: int | tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] in [0, 1] that are to have attributes [B, A]."""


def accuracy(model: AttributeModel, data: Data, settings: Settings) -> dict[str, Measure]:
    """How well images have the attributes of the split's examples, one image for each of these.

    "attribute_accuracy" is the share of images that are read as they were asked for, high or low,
    the mean over what was asked, high and low counting alike, and over attributes: 1/2 by chance.
    "attribute_accuracy_real" is the same of the examples themselves, which no model should exceed
    by much. "attribute_error" is the squared difference of what is read and what was asked, which
    tells more of an attribute on a scale, such as a brightness; "attribute_error_real" is the same
    of the examples themselves.
    """
    low, high = limits(data)
    read = tf.function(reader(data, settings.cache_dir), reduce_retracing=True)
    batches = data.batches(settings.split, 500, seed=settings.seed, limit=settings.limit)
    asked, of_fake, of_real = [], [], []
    for index, batch in enumerate(batches):
        y = batch["attributes"]
        asked.append(np.clip((y.numpy() - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0))
        of_fake.append(read(model.generate(y, seeds.of_part(settings.seed, index))).numpy())
        of_real.append(read(to_unit(batch["image"], data.spec.image_range)).numpy())
    y, fake, real = (np.concatenate(rows) for rows in (asked, of_fake, of_real))
    by_attribute = balanced_accuracy(y, fake)
    listed = _listed(by_attribute, ".2f")
    images = f"{len(y)} {settings.split} examples"
    return {
        "attribute_accuracy": Measure(
            float(np.nanmean(by_attribute)), None, "share", f"{images}; {listed}"
        ),
        "attribute_accuracy_real": Measure(
            float(np.nanmean(balanced_accuracy(y, real))), None, "share", f"{images} themselves"
        ),
        "attribute_error": _squared_error(y, fake, images),
        "attribute_error_real": _squared_error(y, real, f"{images} themselves"),
    }


def _squared_error(asked: np.ndarray, found: np.ndarray, images: str) -> Measure:
    squares = (found - asked) ** 2
    note = f"{images}; {_listed(squares.mean(0), '.3f')}"
    return Measure.mean(squares.mean(1), "squared", note)


def _listed(by_attribute: np.ndarray, form: str) -> str:
    return "by attribute " + " ".join(f"{value:{form}}" for value in by_attribute[:_LISTED])


def balanced_accuracy(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Share on the asked side of 1/2, the mean of both sides: [N, A] in [0, 1] twice -> [A].

    For example asked 1, 1, 1, 0 and found 1, 1, 0, 0 give (2/3 + 1) / 2. Where only one side was
    asked for it is the share of that one.
    """
    right = (asked > 0.5) == (found > 0.5)
    shares = np.full((2, asked.shape[1]), np.nan)
    for side, chosen in enumerate((asked > 0.5, asked <= 0.5)):
        count = chosen.sum(0)
        np.divide((right & chosen).sum(0), count, out=shares[side], where=count > 0)
    return np.nanmean(shares, axis=0)


def limits(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest values of the attributes over the training split, at most 10,000 of it."""
    batches = data.batches("train", 500, limit=_EXAMPLES)
    rows = np.concatenate([batch["attributes"].numpy() for batch in batches])
    return rows.min(0), rows.max(0)


def reader(
    data: Data, cache_dir: str | os.PathLike | None = None, seed: int = 0
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Reads attributes, scaled to [0, 1], off images in [0, 1]: [B, H, W, C] -> [B, A].

    Args:
        data: images with attributes.
        cache_dir: as of `classifier.load`, where the network is kept.
        seed: of the training.

    Raises:
        UserError: if the cache cannot be written or read.
    """
    path = classifier.cache_path(data.spec, cache_dir, seed, "attributes", steps=_STEPS)
    network = classifier.cached(path, lambda: train(data, seed))
    return lambda images: tf.sigmoid(network(images, training=False)[1])


def train(data: Data, seed: int = 0) -> keras.Model:
    """A `classifier.network` of attributes trained on the training split.

    Args:
        data: images with attributes.
        seed: int, source of initial weights, dropout and order.

    Raises:
        UserError: if the data has no attributes.
    """
    spec = data.spec
    if "attributes" not in spec.shapes:
        raise UserError(f"attributes cannot be read where there are none, as in data {spec.name!r}")
    low, high = limits(data)
    (count,) = spec.shapes["attributes"]
    model = classifier.network(spec.image_shape, count, seed)
    logging.warning(
        "training the classifier of attributes of %s, %d steps; it is kept for the next time",
        spec.name, _STEPS,
    )  # fmt: skip

    def with_target(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        scaled = tf.math.divide_no_nan(batch["attributes"] - low, high - low)
        return to_unit(batch["image"], spec.image_range), tf.clip_by_value(scaled, 0.0, 1.0)

    stream = data.train(min(_BATCH, spec.train_size), seed=seed).map(with_target)
    classifier.fit(model, stream, keras.losses.BinaryCrossentropy(from_logits=True), _STEPS)
    return model
