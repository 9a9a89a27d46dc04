"""The wrapper against numpy's singular values, alone and inside a plain Keras model."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.spectral_normalization import SpectralNormalization
from tfgen.training import strategies

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(4, 5)).astype(np.float32)
IMAGES = RANDOM.normal(size=(4, 6, 6, 2)).astype(np.float32)
IDS = np.array([[0, 3, 5]])


@pytest.fixture(autouse=True)
def _same_kernels() -> None:
    """Power iteration is slow where the two largest singular values happen to be close."""
    keras.utils.set_random_seed(0)


def matrix_of(wrapper: SpectralNormalization) -> np.ndarray:
    """[everything else, outputs]."""
    kernel = wrapper.layer.kernel if hasattr(wrapper.layer, "kernel") else wrapper.layer.embeddings
    kernel = kernel.numpy()
    if isinstance(wrapper.layer, keras.layers.Conv2DTranspose):
        kernel = np.moveaxis(kernel, -2, -1)
    return kernel.reshape(-1, kernel.shape[-1])


def converged(layer: keras.layers.Layer, inputs: np.ndarray) -> SpectralNormalization:
    wrapper = SpectralNormalization(layer, power_iterations=200)
    wrapper(inputs, training=True)
    return wrapper


LAYERS = {
    "dense": (lambda: keras.layers.Dense(7, bias_initializer="ones"), FEATURES),
    "conv": (lambda: keras.layers.Conv2D(7, 3, bias_initializer="ones"), IMAGES),
    "transposed": (lambda: keras.layers.Conv2DTranspose(7, 3, bias_initializer="ones"), IMAGES),
    "embedding": (lambda: keras.layers.Embedding(6, 7), IDS),
}


@pytest.mark.parametrize("name", LAYERS)
def test_sigma_is_the_largest_singular_value(name: str) -> None:
    make, inputs = LAYERS[name]
    wrapper = converged(make(), inputs)
    matrix = matrix_of(wrapper)
    assert matrix.shape[1] == 7
    sigma = np.linalg.svd(matrix)[1][0]
    plain = make()
    plain.build(inputs.shape)
    weights = wrapper.layer.get_weights()
    plain.set_weights([weights[0] / sigma, *weights[1:]])
    np.testing.assert_allclose(wrapper(inputs), plain(inputs), rtol=1e-5, atol=1e-5)


def test_one_iteration_a_training_call_and_none_in_inference() -> None:
    wrapper = SpectralNormalization(keras.layers.Dense(7, use_bias=False))
    wrapper.build(FEATURES.shape)
    kernel, u = wrapper.layer.kernel.numpy(), wrapper.u.numpy()
    for training in (True, False, False, True):
        v = kernel @ u / np.linalg.norm(kernel @ u)
        new = kernel.T @ v / np.linalg.norm(kernel.T @ v)
        outputs = wrapper(FEATURES, training=training)
        np.testing.assert_allclose(outputs, FEATURES @ kernel / (v @ kernel @ new), rtol=1e-5)
        u = new if training else u
        np.testing.assert_allclose(wrapper.u.numpy(), u, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(wrapper.layer.kernel.numpy(), kernel)


def test_gradient_flows_through_sigma() -> None:
    # Once u and v have converged, u v^T is the derivative of the largest singular value, and
    # numpy's differences of f(W / svd(W)[0]) must agree.
    wrapper = converged(keras.layers.Dense(7, use_bias=False), FEATURES)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(FEATURES) ** 3)
    gradient = tape.gradient(loss, wrapper.layer.kernel.value)
    kernel = wrapper.layer.kernel.numpy().astype(np.float64)

    def loss_of(w: np.ndarray) -> float:
        return ((FEATURES @ w / np.linalg.svd(w)[1][0]) ** 3).sum()

    numeric = np.zeros((5, 7))
    for at in np.ndindex(5, 7):
        step = np.zeros((5, 7))
        step[at] = 1e-6
        numeric[at] = (loss_of(kernel + step) - loss_of(kernel - step)) / 2e-6
    # float32 sums of products near 10.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-4)
    # The output does not change with the kernel's scale, so the gradient is orthogonal to it.
    assert abs((gradient.numpy() * kernel).sum()) < 1e-4 * np.abs(gradient.numpy() * kernel).sum()


def test_a_kernel_of_zeros_does_no_harm() -> None:
    wrapper = SpectralNormalization(keras.layers.Dense(3, kernel_initializer="zeros"))
    with tf.GradientTape() as tape:
        outputs = wrapper(FEATURES, training=True)
    np.testing.assert_array_equal(outputs, np.zeros((4, 3)))
    gradient = tape.gradient(outputs, wrapper.layer.kernel.value)
    np.testing.assert_allclose(gradient, FEATURES.T @ np.ones((4, 3)), rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(wrapper.u.numpy()) > 0


@pytest.mark.parametrize("jit", [False, True])
def test_any_batch_size_in_a_tf_function(jit: bool) -> None:
    wrapper = SpectralNormalization(keras.layers.Conv2D(3, 3))
    wrapper.build(IMAGES.shape)
    compiled = tf.function(
        lambda x: wrapper(x, training=True),
        input_signature=[tf.TensorSpec([None, 6, 6, 2])],
        jit_compile=jit,
    )
    u = wrapper.u.numpy()
    for size in (1, 4):
        wrapper.u.assign(u)
        expected = wrapper(IMAGES[:size], training=False)
        np.testing.assert_allclose(compiled(IMAGES[:size]), expected, rtol=1e-5, atol=1e-5)
        assert not np.array_equal(wrapper.u.numpy(), u)


def test_mixed_precision_keeps_sigma_in_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    wrapper = converged(keras.layers.Dense(7, use_bias=False), FEATURES)
    assert wrapper(FEATURES).dtype == tf.bfloat16
    kernel = wrapper.layer.kernel.numpy()
    sigma, _ = wrapper._sigma(tf.constant(kernel))
    assert float(sigma) == pytest.approx(np.linalg.svd(kernel)[1][0], rel=1e-6)
    expected = FEATURES @ kernel / float(sigma)
    # bfloat16 keeps 8 bits, and numbers are up to 2.
    np.testing.assert_allclose(tf.cast(wrapper(FEATURES), tf.float32), expected, atol=0.03)


def test_losses_of_the_layer_are_kept() -> None:
    layer = keras.layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2")
    wrapper = SpectralNormalization(layer)
    outputs = wrapper(FEATURES)
    expected = [np.sum(outputs**2) / 4, np.sum(layer.kernel.numpy() ** 2)]
    found = sorted(float(loss) for loss in wrapper.losses)
    np.testing.assert_allclose(found, sorted(0.01 * np.array(expected)), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_trains_saves_and_restores_in_a_keras_model(tmp_path: pathlib.Path, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    x = inputs = keras.Input((6, 6, 2))
    x = SpectralNormalization(keras.layers.Conv2D(3, 3, activation="relu"), seed=3)(x)
    x = SpectralNormalization(keras.layers.Conv2DTranspose(2, 3), power_iterations=2)(x)
    x = SpectralNormalization(keras.layers.Dense(1, dtype="float32"))(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    assert model.output.dtype == "float32"
    assert [len(v) for v in (model.trainable_variables, model.non_trainable_variables)] == [6, 3]
    before = [v.numpy() for v in model.variables]
    model.compile("adam", loss="mse")
    model.fit(IMAGES, np.ones((4, 1), np.float32), batch_size=2, epochs=2, verbose=0)
    for variable, value in zip(model.variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), value), variable.path
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    for a, b in zip(model.layers, restored.layers, strict=True):
        # JSON makes lists of the tuples that a layer remembers its input shape in.
        assert json.dumps(a.get_config()) == json.dumps(b.get_config())
    np.testing.assert_array_equal(model(IMAGES), restored(IMAGES))
    trainable, rest = model.trainable_variables, model.non_trainable_variables
    outputs, new = model.stateless_call(trainable, rest, IMAGES, training=True)
    np.testing.assert_allclose(outputs, restored(IMAGES, training=True), rtol=1e-5)
    # bfloat16 does not touch u.
    for a, b in zip(new, restored.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_u_is_equal_on_all_replicas() -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        wrapper = SpectralNormalization(keras.layers.Dense(7))
        wrapper.build(FEATURES.shape)
    alone = SpectralNormalization(keras.layers.Dense(7))
    alone.build(FEATURES.shape)
    alone.set_weights(wrapper.get_weights())

    @tf.function
    def step(inputs: tf.Tensor) -> tf.Tensor:
        return strategy.run(lambda x: wrapper(x, training=True), args=(inputs,))

    per_replica = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(FEATURES + context.replica_id_in_sync_group)
    )
    for _ in range(3):
        step(per_replica)
        alone(FEATURES, training=True)
    for u in strategy.experimental_local_results(wrapper.u.value):
        np.testing.assert_allclose(u, alone.u.numpy(), rtol=1e-6)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="1 or more. Received: power_iterations=0"):
        SpectralNormalization(keras.layers.Dense(3), power_iterations=0)
    with pytest.raises(ValueError, match="`embeddings`. Received: Flatten flat"):
        SpectralNormalization(keras.layers.Flatten(name="flat"))(FEATURES)
