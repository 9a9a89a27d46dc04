"""Masked dense layers: masks by hand, gradients, in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.masked_dense import MaskedDense


def test_masks_by_hand() -> None:
    np.testing.assert_array_equal(
        MaskedDense((1, 2, 3), (1, 2, 2)).mask, [[1, 1, 1], [0, 1, 1], [0, 0, 0]]
    )
    np.testing.assert_array_equal(
        MaskedDense((1, 2), (1, 2, 3), strict=True).mask, [[0, 1, 1], [0, 0, 1]]
    )


def test_values_by_hand() -> None:
    layer = MaskedDense((1, 2), (1, 2), activation="relu")
    layer.build((None, 2))
    layer.kernel.assign([[1.0, 2.0], [10.0, 3.0]])
    layer.bias.assign([0.5, -1.0])
    np.testing.assert_allclose(
        layer(tf.constant([[1.0, -0.25], [-1.0, 1.0]])), [[1.5, 0.25], [0, 0]]
    )


def test_what_is_masked_gets_no_gradient() -> None:
    layer = MaskedDense((1, 2), (1, 2))
    x = tf.random.stateless_normal([4, 2], [0, 1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradient = tape.gradient(loss, layer.kernel).numpy()
    np.testing.assert_array_equal(gradient != 0, layer.mask.astype(bool))


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((3,)), MaskedDense((1, 2, 3), (1, 1, 2, 2), activation="tanh"),
        MaskedDense((1, 1, 2, 2), (1, 2, 3), strict=True),
    ])  # fmt: skip
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    x[:, 2] = x[:, 0] * 0.5
    model.compile(keras.optimizers.Adam(0.03), "mse")
    model.fit(x, x, epochs=60, verbose=0)
    error = np.mean((model.predict(x, verbose=0) - x) ** 2, axis=0)
    # The third is known from the first; what the others depend on is not before them.
    assert error[2] < 0.02 < 0.5 < error[:2].min()
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(x, verbose=0), model.predict(x, verbose=0))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one integer each at least. Received: 0 and 2"):
        MaskedDense((), (1, 2))
    with pytest.raises(
        ValueError, match=r"takes as many inputs. Received: input shape \(None, 3\)"
    ):
        MaskedDense((1, 2), (1, 2)).build((None, 3))
