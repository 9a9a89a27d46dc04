"""Gaussian noise: its spread, only in training, the same again from the same count."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.gaussian_noise import GaussianNoise
from tfgen.training import strategies


def built(**arguments) -> GaussianNoise:
    layer = GaussianNoise(**{"stddev": 0.3, **arguments})
    layer.build((None, 4))
    return layer


def test_spread_of_the_noise() -> None:
    x = np.full((2000, 4), 5.0, np.float32)
    noise = built()(x, training=True) - x
    # 8000 draws: the mean is within 4 * 0.3 / sqrt(8000), the deviation within 4 * that / sqrt(2).
    assert abs(np.mean(noise)) < 0.014
    assert np.std(noise) == pytest.approx(0.3, abs=0.01)


def test_none_in_inference_or_without_deviation() -> None:
    x, layer = tf.ones([2, 4]), built()
    np.testing.assert_array_equal(layer(x), x)
    assert int(layer.calls.value) == 0
    np.testing.assert_array_equal(built(stddev=0.0)(x, training=True), x)


def test_every_call_and_every_seed_has_its_own_and_the_count_brings_it_back() -> None:
    x, layer = tf.zeros([2, 4]), built(seed=7)
    first, second = (np.array(layer(x, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, built(seed=8)(x, training=True))
    layer.calls.assign(0)
    np.testing.assert_array_equal(layer(x, training=True), first)


def test_the_count_is_saved(tmp_path) -> None:
    model = keras.Sequential([keras.Input((4,)), GaussianNoise(0.3, seed=1)])
    model(tf.zeros([2, 4]), training=True)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    x = tf.zeros([2, 4])
    np.testing.assert_array_equal(again(x, training=True), model(x, training=True))


def test_replicas_differ_and_agree_on_the_count() -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        layer = built()
    made = strategy.run(tf.function(lambda: layer(tf.zeros([2, 4]), training=True)))
    first, second = strategy.experimental_local_results(made)
    assert not np.array_equal(first, second)
    assert {int(c) for c in strategy.experimental_local_results(layer.calls.value)} == {1}


def test_a_negative_deviation_is_named() -> None:
    with pytest.raises(ValueError, match="stddev must be 0 or more. Received: stddev=-1"):
        GaussianNoise(-1)
