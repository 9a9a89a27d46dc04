"""Gumbel-softmax: frequencies, temperatures, straight-through, in somebody's own model."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfgen.layers.gumbel_softmax import GumbelSoftmax

LOGITS = np.log(np.float32([0.5, 0.3, 0.15, 0.05]))


def _draws(count: int = 20_000, **arguments) -> np.ndarray:
    layer = GumbelSoftmax(**arguments)
    return layer(np.tile(LOGITS, (count, 1)), training=True).numpy()


def test_argmax_has_the_categories_probabilities() -> None:
    counts = np.bincount(_draws(temperature=0.7).argmax(1), minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * np.array([0.5, 0.3, 0.15, 0.05])).pvalue > 1e-3


def test_cold_draws_are_one_hots_and_hot_ones_are_uniform() -> None:
    assert np.median(_draws(temperature=0.01, minimum=0.01).max(1)) > 0.999
    np.testing.assert_allclose(_draws(temperature=1000.0).mean(0), 0.25, atol=0.01)
    assert _draws(temperature=1000.0).std() < 0.01


def test_the_temperature_falls_with_the_calls_to_its_minimum() -> None:
    layer = GumbelSoftmax(temperature=1.0, rate=0.1, minimum=0.6)
    layer.build((None, 4))
    found = []
    for _ in range(8):
        found.append(float(layer.temperature()))
        layer(LOGITS[None], training=True)
    np.testing.assert_allclose(found, np.maximum(np.exp(-0.1 * np.arange(8)), 0.6), rtol=1e-6)
    layer(LOGITS[None])
    assert int(layer.calls) == 8


def test_straight_through_is_a_one_hot_with_the_relaxed_gradient() -> None:
    logits, weights = tf.constant(LOGITS[None]), tf.constant([[1.0, -2.0, 0.5, 3.0]])
    gradients = []
    for straight_through in (False, True):
        layer = GumbelSoftmax(straight_through=straight_through, seed=3)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            draw = layer(logits, training=True)
            value = tf.reduce_sum(weights * draw)
        gradients.append(tape.gradient(value, logits))
    assert sorted(draw.numpy()[0]) == pytest.approx([0, 0, 0, 1], abs=1e-6)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5)


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(6), keras.layers.Reshape((2, 3)),
        GumbelSoftmax(rate=0.01), keras.layers.Flatten(), keras.layers.Dense(4),
    ])  # fmt: skip
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, x, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(x, verbose=0), model.predict(x, verbose=0))
    assert int(twin.layers[2].calls) == int(model.layers[2].calls) > 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="temperature must be more than 0. Received: temp.*=0"):
        GumbelSoftmax(temperature=0)
    with pytest.raises(ValueError, match="rate must be 0 or more"):
        GumbelSoftmax(rate=-1)
    with pytest.raises(ValueError, match=r"2 values or more. Received: input shape \(None, 1\)"):
        GumbelSoftmax().build((None, 1))
    with pytest.raises(ValueError, match="temperature at most. Received: minimum=0.5, temp.*=0.1"):
        GumbelSoftmax(temperature=0.1, minimum=0.5)


def test_a_cold_start_is_as_cold_as_was_asked_for() -> None:
    for start, least in ((0.1, 0.1), (1.0, 0.5)):
        layer = GumbelSoftmax(temperature=start, rate=100.0)
        layer.build((None, 3))
        assert float(layer.temperature()) == pytest.approx(start)
        layer.calls.assign(1)
        assert float(layer.temperature()) == pytest.approx(least)
