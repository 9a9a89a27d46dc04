"""The layer alone, inside a plain Keras model."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.gaussian_sampling import GaussianSampling

INPUTS = np.array([[1.0, -2.0, 0.0, np.log(0.5)]], np.float32)


def test_kl_by_hand_and_mean_in_inference() -> None:
    layer = GaussianSampling(kl_weight=2.0)
    np.testing.assert_array_equal(layer(INPUTS, training=False), [[1.0, -2.0]])
    # (1 + 1 - 1) / 2 - 0 for the first, (4 + 1/4 - 1) / 2 + log 2 for the second.
    assert float(layer.losses[0]) == pytest.approx(2 * (0.5 + 1.625 + np.log(2)), rel=1e-6)


def test_samples_have_the_moments_and_never_repeat() -> None:
    layer = GaussianSampling(seed=3)
    draws = np.stack([layer(np.tile(INPUTS, (500, 1)), training=True) for _ in range(8)])
    flat = draws.reshape(-1, 2)
    # 4000 draws: 4 standard errors.
    np.testing.assert_allclose(flat.mean(0), [1, -2], atol=4 / np.sqrt(4000))
    np.testing.assert_allclose(flat.std(0), [1, 0.5], rtol=4 / np.sqrt(8000))
    assert len(np.unique(flat[:, 0])) == 4000


def test_gradient_flows_through_the_sample() -> None:
    layer, inputs = GaussianSampling(kl_weight=0.0), tf.constant(INPUTS)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        z = layer(inputs, training=True)
    gradient = tape.gradient(z, inputs).numpy()
    # dz/dmean = 1, dz/dlog_std = sigma * noise = z - mean.
    np.testing.assert_allclose(gradient[:, :2], 1.0)
    np.testing.assert_allclose(gradient[:, 2:], z - INPUTS[:, :2], rtol=1e-5)


def test_trains_saves_and_goes_on_with_the_same_noise(tmp_path: pathlib.Path) -> None:
    x = inputs = keras.Input((4,))
    model = keras.Model(inputs, GaussianSampling(seed=5)(keras.layers.Dense(6)(x)))
    model.compile("adam", loss="mse")
    data = np.ones((8, 4), np.float32)
    model.fit(data, np.zeros((8, 3), np.float32), epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    assert restored.layers[-1].get_config() == model.layers[-1].get_config()
    np.testing.assert_array_equal(model(data, training=True), restored(data, training=True))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="even number. Received: input shape"):
        GaussianSampling()(np.ones((2, 5), np.float32))
    with pytest.raises(ValueError, match="kl_weight must be 0 or more. Received: kl_weight=-1"):
        GaussianSampling(kl_weight=-1)
