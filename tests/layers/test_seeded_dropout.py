"""Dropout by a seed: its rate, what it depends on, in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.seeded_dropout import SeededDropout

X = tf.ones([4, 50, 50, 8])
SEED, OTHER = tf.constant([1, 2]), tf.constant([1, 3])


def test_drops_its_rate_and_keeps_the_mean() -> None:
    made = SeededDropout(0.3)([X, SEED], training=True).numpy()
    assert set(np.unique(made)) == {0.0, np.float32(1 / 0.7)}
    # 80,000 draws: four standard errors are 0.0065.
    assert (made == 0).mean() == pytest.approx(0.3, abs=0.0065)


def test_the_mask_is_a_function_of_seed_and_salt() -> None:
    def masks(salt, seed):
        return SeededDropout(0.5, salt)([X, seed], training=True).numpy()

    np.testing.assert_array_equal(masks(0, SEED), masks(0, SEED))
    for salt, seed in ((1, SEED), (0, OTHER)):
        agree = (masks(0, SEED) == masks(salt, seed)).mean()
        assert agree == pytest.approx(0.5, abs=0.01)


def test_inference_draws_only_if_asked_to() -> None:
    np.testing.assert_array_equal(SeededDropout(0.5)([X, SEED], training=False), X)
    noisy = SeededDropout(0.5, in_inference=True)([X, SEED], training=False).numpy()
    np.testing.assert_array_equal(noisy, SeededDropout(0.5)([X, SEED], training=True))


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    x, seed = keras.Input((8,)), keras.Input(batch_shape=(2,), dtype="int32")
    hidden = SeededDropout(0.5, in_inference=True)([keras.layers.Dense(16)(x), seed])
    model = keras.Model([x, seed], keras.layers.Dense(1)(hidden))
    rows = tf.random.stateless_normal([3, 8], SEED)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin([rows, SEED]), model([rows, SEED]))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_range_are_refused(rate) -> None:
    with pytest.raises(ValueError, match=f"at least 0 and below 1. Received: rate={rate}"):
        SeededDropout(rate)
