"""Attributes read off images: balanced shares by hand, models that are right, wrong or blind."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen import data
from tfgen.errors import UserError
from tfgen.metrics import attributes
from tfgen.metrics.measure import Settings


class Pixels:
    """Data whose attributes are two pixels of its images, from 10 to 20 and from -1 to 0."""

    class spec:
        name, image_range = "pixels", "unit"

    def __init__(self, count: int = 600):
        values = np.random.RandomState(0).uniform(0, 1, (count, 2)).astype(np.float32)
        values[:2] = [[0, 0], [1, 1]]
        self.rows = {
            "image": values.reshape(-1, 1, 2, 1),
            "attributes": values * [10, 1] + [10, -1],
        }

    def batches(self, split, batch_size, *, seed=None, limit=None):
        rows = {key: np.float32(value[:limit]) for key, value in self.rows.items()}
        return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)


class Obedient:
    def generate(self, y, seed):
        return tf.reshape((y - [10.0, -1.0]) / [10.0, 1.0], [-1, 1, 2, 1])


class Blind:
    def generate(self, y, seed):
        return tf.random.stateless_uniform([len(y), 1, 2, 1], [seed, 0])


class Contrary:
    def generate(self, y, seed):
        return 1.0 - Obedient().generate(y, seed)


@pytest.fixture
def by_pixels(monkeypatch):
    monkeypatch.setattr(attributes, "reader", lambda data, cache: lambda x: tf.reshape(x, [-1, 2]))


@pytest.mark.parametrize(
    ("model", "accuracy", "error"),
    [(Obedient(), 1.0, 0.0), (Blind(), 0.5, 1 / 6), (Contrary(), 0.0, 1 / 3)],
    ids=lambda value: type(value).__name__,
)
def test_accuracy_of_models(by_pixels, model, accuracy: float, error: float) -> None:
    found = attributes.accuracy(model, Pixels(), Settings())
    # Over 600 examples: 1.5 % and 0.7 % are the standard errors of a blind model's numbers.
    assert found["attribute_accuracy"].value == pytest.approx(accuracy, abs=0.06)
    assert found["attribute_error"].value == pytest.approx(error, abs=0.03)
    assert found["attribute_accuracy_real"].value == 1.0
    assert found["attribute_error_real"].value == pytest.approx(0.0, abs=1e-12)
    assert "600 test examples" in found["attribute_accuracy"].note
    few = attributes.accuracy(model, Pixels(), Settings(limit=50))
    assert "50 test examples" in few["attribute_error"].note


def test_errors_are_told_by_attribute(by_pixels) -> None:
    class Half(Obedient):
        def generate(self, y, seed):
            return super().generate(y, seed) * [[[1.0], [0.0]]]

    found = attributes.accuracy(Half(), Pixels(), Settings())["attribute_error"]
    second = (Pixels().rows["attributes"][:, 1] + 1.0) ** 2  # read as 0, whatever was asked
    assert found.value == pytest.approx(second.mean() / 2, rel=1e-5)
    assert found.note.endswith(f"by attribute 0.000 {second.mean():.3f}")


def test_balanced_accuracy_by_hand() -> None:
    asked = np.array([[1, 0, 0.9], [1, 0, 0.8], [1, 0, 0.1], [0, 0, 0.4]])
    found = np.array([[0.7, 0.2, 0.6], [0.6, 0.9, 0.1], [0.4, 0.1, 0.2], [0.3, 0.4, 0.9]])
    expected = [(2 / 3 + 1) / 2, 3 / 4, (1 / 2 + 1 / 2) / 2]
    np.testing.assert_allclose(attributes.balanced_accuracy(asked, found), expected)


def test_limits_are_of_the_training_split() -> None:
    low, high = attributes.limits(Pixels())
    np.testing.assert_allclose(low, [10, -1])
    np.testing.assert_allclose(high, [20, 0])


def test_a_reader_learns_once(digits_dir: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(attributes, "_STEPS", 150)
    layered = data.load(
        "layered_digits", data_dir=digits_dir, needs=("image", "attributes", "mask")
    )
    read = attributes.reader(layered, tmp_path)
    batch = next(iter(layered.batches("test", 300)))
    found = read(batch["image"]).numpy()
    assert found.shape == (300, 11)
    assert found.min() >= 0
    assert found.max() <= 1
    asked = batch["attributes"].numpy()
    assert attributes.balanced_accuracy(asked, found)[-1] > 0.8  # the brightness

    def no_training(*_: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(attributes, "train", no_training)
    again = attributes.reader(layered, tmp_path)(batch["image"])
    np.testing.assert_allclose(again, found, atol=1e-6)
    monkeypatch.setattr(attributes, "_STEPS", 151)
    with pytest.raises(AssertionError, match="trained twice"):  # one of other steps is another
        attributes.reader(layered, tmp_path)


def test_data_without_attributes_is_named(digits_dir: str) -> None:
    digits = data.load("digits", data_dir=digits_dir)
    with pytest.raises(UserError, match="where there are none, as in data 'digits'"):
        attributes.train(digits)
