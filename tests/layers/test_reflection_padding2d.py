"""Mirrored edges, in somebody's own model."""

import keras
import numpy as np
import pytest

from tfgen.layers.reflection_padding2d import ReflectionPadding2D


def test_values_are_numpys() -> None:
    x = np.arange(2 * 4 * 5 * 2, dtype="float32").reshape(2, 4, 5, 2)
    for padding in (0, 1, 3):
        edge = (padding, padding)
        expected = np.pad(x, [(0, 0), edge, edge, (0, 0)], mode="reflect")
        np.testing.assert_array_equal(ReflectionPadding2D(padding)(x), expected)


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    layers = [keras.Input((None, None, 1)), ReflectionPadding2D(2), keras.layers.Conv2D(1, 5)]
    model = keras.Sequential(layers)
    assert model.layers[0].compute_output_shape((3, 8, None, 1)) == (3, 12, None, 1)
    x = np.random.default_rng(0).normal(size=(2, 8, 6, 1)).astype("float32")
    assert model(x).shape == x.shape
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


def test_what_cannot_be_mirrored_is_refused() -> None:
    with pytest.raises(ValueError, match="padding must be 0 or more. Received: padding=-1"):
        ReflectionPadding2D(-1)
    with pytest.raises(ValueError, match="at least 4. Received: 3x8"):
        ReflectionPadding2D(3)(np.zeros((1, 3, 8, 1), "float32"))
