"""What the codes of a generator with readable latents say: information, and a clustering by it.

Each evaluation is a function (model, data, settings) -> dict of `Measure`, named by the models
that it makes sense for.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from tfgen.data import Data
from tfgen.metrics.measure import Measure, Settings

_BATCH = 500  # Q's batch norms use the statistics of such a batch, as they did in training.
_LABELLED = 10_000  # Training images that tell which class a value of c1 stands for.


class CodeModel(Protocol):
    """What a model must answer to be evaluated here."""

    categorical_codes: tuple[int, ...]
    continuous_codes: int

    def draw_latents(self, num: int, seed: tf.Tensor) -> tf.Tensor:
        """Noise and code, float32 [num, d]."""

    def decode(self, latent: tf.Tensor) -> tf.Tensor:
        """Latents [B, d] -> images."""

    def recognize(self, image: tf.Tensor, batch_statistics: bool = False) -> tf.Tensor:
        """Images -> beliefs about their code [B, ...]; logits of c1 come first."""

    def code_information(self, beliefs: tf.Tensor, latents: tf.Tensor) -> tf.Tensor:
        """log Q(c | x) + H(c) of each code, [B, number of codes]."""


def information(model: CodeModel, data: Data, settings: Settings) -> dict[str, Measure]:
    """L_I of each code, a lower bound on its mutual information with the image, in nats.

    On fresh samples of the generator in inference mode. A categorical code of n values has at most
    log n; a continuous one on [-1, 1], by a belief of sigma 1 and exact means, has
    log 2 - log(2 pi) / 2 = -0.226: the bound is loose, and what counts is how near it comes.
    """
    del data
    num = min(settings.num_samples, settings.limit or settings.num_samples)
    count = -(-num // _BATCH)
    rows = []
    for batch in settings.progress(range(count), "information"):
        latents = model.draw_latents(_BATCH, tf.constant([settings.seed, 1000 + batch]))
        beliefs = model.recognize(model.decode(latents), batch_statistics=True)
        rows.append(model.code_information(beliefs, latents).numpy())
    values = np.concatenate(rows)
    note = f"L_I, {len(values)} samples"
    return {
        f"information_c{code + 1}": Measure.mean(values[:, code], "nats", note)
        for code in range(values.shape[1])
    }


def clustering(model: CodeModel, data: Data, settings: Settings) -> dict[str, Measure]:
    """Error of a classifier of real images: the class that the most likely value of c1 stands for.

    A value stands for the class that is most frequent among the training images that Q gives it
    to. No label had a part in training. Nothing without labels or without a categorical code.
    """
    if not model.categorical_codes or "label" not in data.spec.shapes:
        return {}
    values, labels = _read(model, data, "train", _LABELLED)
    counts = np.zeros([model.categorical_codes[0], data.spec.num_classes or labels.max() + 1])
    np.add.at(counts, (values, labels), 1)
    stands_for = counts.argmax(axis=1)
    values, labels = _read(model, data, settings.split, settings.limit)
    wrong = 100.0 * (stands_for[values] != labels)
    note = f"c1 to its majority class, {len(wrong)} {settings.split} images"
    return {"clustering_error": Measure.mean(wrong, "%", note)}


def _read(
    model: CodeModel, data: Data, split: str, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The most likely value of c1 of real examples, and their labels."""
    values, labels = [], []
    for batch in data.batches(split, _BATCH, limit=limit):
        x = batch["image"] if "image" in batch else batch["point"]
        beliefs = model.recognize(x, batch_statistics=True)
        values.append(tf.argmax(beliefs[:, : model.categorical_codes[0]], axis=1).numpy())
        labels.append(batch["label"].numpy())
    return np.concatenate(values), np.concatenate(labels)
