"""The MLP of a vector and a label: values, broadcasting, in somebody's own model."""

import keras
import numpy as np
import pytest

from tfgen.layers.labelled_mlp import LabelledMLP


def _inputs(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 2, 3)).astype(np.float32)


def test_values_are_those_of_one_network_on_both_joined() -> None:
    layer = LabelledMLP((2, 3), 4, (7, 6), (5, 1), seed=3)
    for index, variable in enumerate(layer.weights):
        variable.assign(np.random.default_rng(index).normal(size=variable.shape))
    first, second, last = layer.dense
    x, y = _inputs(), np.eye(4, dtype=np.float32)[[0, 3, 3, 1, 2]]
    joined = np.concatenate([x.reshape(5, 6), y], axis=1)
    hidden = joined @ np.concatenate([first.kernel, layer.of_label.kernel]) + first.bias
    for dense in (second, last):
        hidden = np.log1p(np.exp(hidden)) @ dense.kernel.numpy() + dense.bias.numpy()
    np.testing.assert_allclose(layer(x, y), hidden.reshape(5, 5, 1), rtol=1e-4, atol=1e-5)
    assert len(layer.weights) == 7  # what the label gives has no bias of its own


def test_all_labels_of_each_input_at_once() -> None:
    layer = LabelledMLP((2, 3), 4, (7,), (5,))
    x, eye = _inputs(), np.eye(4, dtype=np.float32)
    found = layer(x, eye[:, None])
    assert found.shape == (4, 5, 5)
    for k in range(4):
        np.testing.assert_allclose(found[k], layer(x, np.tile(eye[k], (5, 1))), atol=1e-6)


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    x, y = keras.Input((2, 3)), keras.Input((4,))
    model = keras.Model([x, y], LabelledMLP((2, 3), 4, (16,), (1,), seed=1)(x, y))
    inputs = [_inputs(200), np.eye(4, dtype=np.float32)[np.arange(200) % 4]]
    target = inputs[0][:, 0, 0] * (np.arange(200) % 4)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(inputs, target, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_small_initial_weights_are_gaussian_and_saved() -> None:
    layer = LabelledMLP((20, 20), 4, (300,), (200,), stddev=1e-3)
    for kernel in (*(dense.kernel for dense in layer.dense), layer.of_label.kernel):
        np.testing.assert_allclose(np.std(kernel), 1e-3, rtol=0.1)
    assert LabelledMLP.from_config(layer.get_config()).stddev == 1e-3
    assert np.std(LabelledMLP((20, 20), 4, (300,), (200,)).dense[0].kernel) > 0.03  # Glorot's


def test_no_hidden_layer_is_named() -> None:
    with pytest.raises(ValueError, match=r"one hidden layer at least. Received: \(\)"):
        LabelledMLP((3,), 2, (), (1,))
