"""Information and clustering by codes, of models that see a code perfectly or not at all."""

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.metrics import codes
from tfgen.metrics.measure import Settings

SETTINGS = Settings(num_samples=1000)


def model_of(beliefs: Callable[[tf.Tensor], tf.Tensor]) -> SimpleNamespace:
    """One code of three values without noise; the image is the code."""

    def draw(num: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.one_hot(tf.random.stateless_uniform([num], seed, 0, 3, tf.int32), 3)

    return SimpleNamespace(
        categorical_codes=(3,),
        continuous_codes=0,
        draw_latents=draw,
        decode=tf.identity,
        recognize=lambda image, batch_statistics: beliefs(image),
        code_information=lambda logits, code: (
            math.log(3) + tf.reduce_sum(code * tf.nn.log_softmax(logits), 1, keepdims=True)
        ),
    )


SEEING, BLIND = model_of(lambda image: 100.0 * image), model_of(tf.zeros_like)


class Shifted:
    """99 examples of class (c1 + 1) mod 3; of the test split, 11 have another class."""

    spec = DataSpec("x", {"point": (3,), "label": ()}, {}, "symmetric", 3, 99, 9, 99)

    def batches(
        self, split: str, batch_size: int, limit: int | None = None
    ) -> Iterator[dict[str, tf.Tensor]]:
        c1 = np.arange(99) % 3
        other = (np.arange(99) < 11) & (split == "test")
        image = np.eye(3, dtype=np.float32)[c1]
        yield {"point": tf.constant(image), "label": tf.constant((c1 + 1 + other) % 3)}


def test_information_is_the_entropy_or_nothing() -> None:
    seen = codes.information(SEEING, Shifted(), SETTINGS)["information_c1"]
    assert seen.value == pytest.approx(math.log(3), rel=1e-5)
    assert "1000 samples" in seen.note
    assert abs(codes.information(BLIND, Shifted(), SETTINGS)["information_c1"].value) < 1e-6


def test_clustering_maps_values_to_classes_by_training_labels() -> None:
    error = codes.clustering(SEEING, Shifted(), SETTINGS)["clustering_error"]
    assert error.value == pytest.approx(100 * 11 / 99)
    error = codes.clustering(BLIND, Shifted(), SETTINGS)["clustering_error"]
    assert error.value > 60.0  # one value, one class of three


def test_clustering_needs_labels_and_a_categorical_code() -> None:
    unlabelled = SimpleNamespace(spec=DataSpec("x", {"point": (3,)}, {}, "unit", None, 9, 9, 9))
    assert codes.clustering(SEEING, unlabelled, SETTINGS) == {}
    continuous = SimpleNamespace(categorical_codes=())
    assert codes.clustering(continuous, Shifted(), SETTINGS) == {}
