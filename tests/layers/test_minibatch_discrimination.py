"""The layer against its formula in numpy, alone and inside a plain Keras model."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination

FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def by_formula(features: np.ndarray, kernel: np.ndarray, kernels: int, dim: int) -> np.ndarray:
    m = (features @ kernel).reshape(len(features), kernels, dim)
    closeness = np.exp(-np.abs(m[:, None] - m[None]).sum(-1))
    closeness[range(len(features)), range(len(features))] = 0
    return np.concatenate([features, closeness.sum(1)], axis=1)


def test_two_examples_by_hand() -> None:
    layer = MinibatchDiscrimination(1, 2, kernel_initializer="ones")
    # M = (3, 3) and (2.5, 2.5): the distance is 1.
    outputs = layer(np.array([[1.0, 2.0], [2.5, 0.0]], np.float32))
    np.testing.assert_allclose(outputs, [[1, 2, np.exp(-1)], [2.5, 0, np.exp(-1)]], rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", [2, 6])
def test_formula_at_any_batch_size(size: int, jit: bool) -> None:
    layer = MinibatchDiscrimination(3, 2)
    layer.build((None, 4))
    compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 4])], jit_compile=jit)
    expected = by_formula(FEATURES[:size], layer.kernel.numpy(), 3, 2)
    np.testing.assert_allclose(compiled(FEATURES[:size]), expected, rtol=1e-5, atol=1e-6)


def test_equal_examples_are_as_close_as_can_be_and_far_ones_not_at_all() -> None:
    layer = MinibatchDiscrimination(3, 2)
    np.testing.assert_array_equal(layer(np.ones((5, 4), np.float32))[:, 4:], np.full((5, 3), 4))
    far = 1e4 * np.arange(5.0, dtype=np.float32)[:, np.newaxis] * np.ones(4, np.float32)
    np.testing.assert_array_equal(layer(far)[:, 4:], np.zeros((5, 3)))


def test_gradients_by_finite_differences() -> None:
    layer, inputs = MinibatchDiscrimination(3, 2), tf.constant(FEATURES)
    layer.build((None, 4))
    weights = np.random.default_rng(1).normal(size=(6, 7))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs) * weights.astype(np.float32))
    gradient, _ = tape.gradient(loss, [inputs, layer.kernel.value])
    kernel = layer.kernel.numpy().astype(np.float64)
    numeric = np.zeros((6, 4))
    for at in np.ndindex(6, 4):
        step = np.zeros((6, 4))
        step[at] = 1e-6
        up, down = (by_formula(FEATURES + s, kernel, 3, 2) for s in (step, -step))
        numeric[at] = ((up - down) * weights).sum() / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


def test_second_derivatives_flow() -> None:
    # As a gradient penalty needs them: exp(-|d|) has the derivative exp(-|d|) twice, for d > 0.
    layer = MinibatchDiscrimination(1, 1, kernel_initializer="ones")
    x = tf.constant([[0.5], [0.0]])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            closeness = layer(x)[0, 1]
        gradient = inner.gradient(closeness, x)[0, 0]
    assert float(gradient) == pytest.approx(-np.exp(-0.5), rel=1e-6)
    assert float(outer.gradient(gradient, x)[0, 0]) == pytest.approx(np.exp(-0.5), rel=1e-6)


def test_mixed_precision() -> None:
    layer = MinibatchDiscrimination(3, 2, dtype="mixed_bfloat16")
    outputs = layer(FEATURES)
    assert outputs.dtype == tf.bfloat16
    assert layer.kernel.dtype == "float32"
    expected = by_formula(FEATURES, layer.kernel.numpy(), 3, 2)
    # bfloat16 keeps 8 bits: 2^-8 of numbers up to 5.
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.03)


def test_trains_saves_and_restores_in_a_keras_model(tmp_path: pathlib.Path) -> None:
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="relu")(x)
    x = MinibatchDiscrimination(7, 3, kernel_initializer="glorot_uniform", name="closeness")(x)
    assert x.shape == (None, 12)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    before = model.get_layer("closeness").kernel.numpy()
    model.compile("adam", loss="mse")
    model.fit(FEATURES, np.ones((6, 1), np.float32), batch_size=3, epochs=2, verbose=0)
    assert not np.array_equal(before, model.get_layer("closeness").kernel.numpy())
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    for a, b in zip(model.layers, restored.layers, strict=True):
        assert a.get_config() == b.get_config()
    np.testing.assert_array_equal(model(FEATURES), restored(FEATURES))


def test_an_example_alone_is_an_error_in_training_and_close_to_none_in_inference() -> None:
    layer = MinibatchDiscrimination()
    with pytest.raises(ValueError, match=r"2 or more to train. Received: input shape \(1, 4\)"):
        layer(FEATURES[:1], training=True)
    signature = [tf.TensorSpec([None, 4])]
    compiled = tf.function(lambda x: layer(x, training=True), input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="2 or more to train. Received"):
        compiled(FEATURES[:1])
    alone = np.concatenate([FEATURES[:1], np.zeros((1, 100))], axis=1)
    np.testing.assert_array_equal(layer(FEATURES[:1]), alone)
    np.testing.assert_array_equal(
        tf.function(layer, input_signature=signature)(FEATURES[:1]), alone
    )
    assert compiled(FEATURES[:0]).shape == (0, 104)  # As some replica may get at the end.


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"1 or more. Received: num_kernels=0, kernel_dim=5"):
        MinibatchDiscrimination(0)
    with pytest.raises(ValueError, match=r"Flatten before. Received: input shape \(2, 3, 3, 1\)"):
        MinibatchDiscrimination()(np.ones((2, 3, 3, 1), np.float32))
