"""Densities: the Gaussian that flows are compared with."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.metrics import density
from tfgen.metrics.measure import Settings


class Black:
    """Images of black pixels alone: what is modelled of them is the noise."""

    needs = ("image",)
    of_images, dimensions = True, 3

    def to_vectors(self, image, seed):
        noise = tf.random.stateless_uniform([len(image), 3], seed)
        return noise, tf.zeros([len(image)])


class Data:
    def __init__(self, count):
        self.count = count

    def batches(self, split, batch_size, seed, limit):
        return [{"image": tf.zeros([self.count, 1])}]


def test_the_test_split_has_noise_of_its_own(monkeypatch) -> None:
    found = []
    monkeypatch.setattr(
        density, "gaussian_log_prob", lambda *both: found.extend(both) or np.zeros(20)
    )
    density.gaussian_nll(Black(), Data(20), Settings(split="test"))
    train, test = found
    assert train.shape == test.shape == (20, 3)
    assert not np.isin(test, train).any()


def test_of_too_few_examples_there_is_no_gaussian(caplog) -> None:
    assert density.gaussian_nll(Black(), Data(3), Settings()) == {}
    assert "a Gaussian of 3 dimensions needs more examples" in caplog.text
    with pytest.raises(ValueError, match="3 dimensions needs more examples.* Received: 3"):
        density.gaussian_log_prob(np.eye(3), np.eye(3))
    assert "gaussian_nll" in density.gaussian_nll(Black(), Data(40), Settings())


def test_bits_of_the_gaussian_have_the_jacobian(monkeypatch) -> None:
    monkeypatch.setattr(Black, "to_vectors", lambda self, image, seed: (
        tf.random.stateless_uniform([len(image), 3], seed), tf.fill([len(image)], 0.7)
    ))  # fmt: skip
    found = density.gaussian_nll(Black(), Data(40), Settings())
    nats, bits = found["gaussian_nll"], found["gaussian_bits_per_dimension"]
    assert bits.value == pytest.approx((nats.value - 0.7) / (3 * np.log(2)) + 8, rel=1e-6)
    assert bits.unit == "bits"
    monkeypatch.setattr(Black, "of_images", False)
    assert list(density.gaussian_nll(Black(), Data(40), Settings())) == ["gaussian_nll"]
