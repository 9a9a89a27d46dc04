"""Instance and layer norm, and batch norm of single images: numbers, in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.instance_normalization import (
    BatchStatisticsNormalization,
    InstanceNormalization,
)
from tfgen.layers.layer_normalization import LayerNormalization
from tfgen.training import strategies

X = np.random.default_rng(0).normal(2.0, 3.0, (4, 6, 5, 3)).astype("float32")


def built(kind):
    layer = kind(epsilon=1e-3)
    layer.build(X.shape)
    layer.gamma.assign([1.0, 2.0, 3.0])
    layer.beta.assign([0.5, 0.0, -1.0])
    return layer


def expected(axes):
    mean, variance = X.mean(axes, keepdims=True), X.var(axes, keepdims=True)
    return (X - mean) / np.sqrt(variance + 1e-3) * [1.0, 2.0, 3.0] + [0.5, 0.0, -1.0]


@pytest.mark.parametrize(
    ("kind", "training", "axes"),
    [
        (InstanceNormalization, False, (1, 2)),
        (InstanceNormalization, True, (1, 2)),
        (LayerNormalization, False, (1, 2, 3)),
        (BatchStatisticsNormalization, False, (1, 2)),
        (BatchStatisticsNormalization, True, (0, 1, 2)),
    ],
)
def test_values(kind, training, axes) -> None:
    layer = built(kind)
    keywords = {"training": training} if kind is BatchStatisticsNormalization else {}
    np.testing.assert_allclose(layer(X, **keywords), expected(axes), atol=2e-5)


def test_in_inference_an_image_does_not_depend_on_its_batch() -> None:
    layer = built(BatchStatisticsNormalization)
    whole = layer(X, training=False).numpy()
    for index in range(len(X)):
        alone = layer(X[index : index + 1], training=True)[0]  # as a batch of one was trained
        np.testing.assert_allclose(alone, whole[index], atol=2e-5)


def test_an_image_alone_takes_another_kernel_and_gives_the_same() -> None:
    layer = built(InstanceNormalization)
    whole = layer(X).numpy()
    for index in range(len(X)):  # float32: the kernel sums in another order
        np.testing.assert_allclose(layer(X[index : index + 1])[0], whole[index], atol=2e-5)


@pytest.mark.parametrize("size", [1, 4])
def test_gradients_are_those_of_the_plain_formula(size) -> None:
    layer, x = built(InstanceNormalization), tf.constant(X[:size])
    weights = tf.constant(np.random.default_rng(1).normal(size=x.shape).astype("float32"))
    found = []
    for function in (layer, lambda x: _plain(x, layer)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(weights * function(x))
        found.append(tape.gradient(value, [x, *layer.trainable_variables]))
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-4)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(
    "kind", [InstanceNormalization, LayerNormalization, BatchStatisticsNormalization]
)
def test_second_derivatives_know_that_the_mean_moves(kind, size) -> None:
    """A slope does not depend on what is added to all pixels, and so its gradient there is 0."""
    layer, x, added = built(kind), tf.constant(X[:size]), tf.Variable(0.5)
    keywords = {"training": True} if kind is BatchStatisticsNormalization else {}
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.sin(layer(x + added, **keywords)))
        slope = tape.gradient(value, x)
        penalty = tf.reduce_sum(tf.maximum(slope, 0.0) ** 2)
    assert abs(outer.gradient(penalty, added)) < 1e-4 * penalty


def _plain(x, layer):
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    return (x - mean) / tf.sqrt(variance + 1e-3) * layer.gamma.value + layer.beta.value


def test_bfloat16_keeps_statistics_and_weights_in_float32() -> None:
    layer = InstanceNormalization(dtype="mixed_bfloat16")
    layer.build(X.shape)
    for x in (X, X[:1]):
        made = layer(x)
        assert made.dtype == tf.bfloat16
        np.testing.assert_allclose(tf.cast(made, tf.float32)[0], expected_plain()[0], atol=0.05)
    assert layer.gamma.dtype == "float32"


def expected_plain():
    return (X - X.mean((1, 2), keepdims=True)) / X.std((1, 2), keepdims=True)


def test_replicas_share_the_statistics_of_the_batch() -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        layer = built(BatchStatisticsNormalization)

    def half(context):
        return tf.constant(X)[2 * context.replica_id_in_sync_group :][:2]

    parts = strategy.experimental_distribute_values_from_function(half)
    made = strategy.run(layer, args=(parts,), kwargs={"training": True})
    found = np.concatenate([x.numpy() for x in strategy.experimental_local_results(made)])
    np.testing.assert_allclose(found, expected((0, 1, 2)), atol=5e-5)


def test_flat_images_far_from_0_on_replicas() -> None:
    """E x^2 - (E x)^2 in float32 is below 0 for some of them."""
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        layer = BatchStatisticsNormalization()
        layer.build((None, 8, 8, 64))

    def flat(context):
        del context
        return tf.tile(tf.reshape(tf.linspace(15.0, 100.0, 64), [1, 1, 1, 64]), [2, 8, 8, 1])

    parts = strategy.experimental_distribute_values_from_function(flat)
    made = strategy.run(layer, args=(parts,), kwargs={"training": True})
    for part in strategy.experimental_local_results(made):
        np.testing.assert_allclose(part, 0.0, atol=0.1)


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    model = keras.Sequential([
        keras.Input((None, None, 3)), InstanceNormalization(), keras.layers.ReLU(),
        LayerNormalization(),
        BatchStatisticsNormalization(epsilon=1e-2), keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(1),
    ])  # fmt: skip
    model.compile("adam", "mse")
    before = [w.numpy() for w in model.trainable_weights]
    model.fit(X, X.mean((1, 2, 3)), epochs=2, verbose=0)
    moved = [not np.array_equal(w, b) for w, b in zip(model.trainable_weights, before, strict=True)]
    assert all(moved[2:])
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin(X), model(X))


def test_epsilon_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon must be more than 0. Received: epsilon=0"):
        InstanceNormalization(epsilon=0.0)


@pytest.mark.parametrize(
    "kind", [InstanceNormalization, LayerNormalization, BatchStatisticsNormalization]
)
@pytest.mark.parametrize("shape", [(4, 5), (4, 50, 3), (2, 4, 4, 4, 3)])
def test_only_images_are_taken(kind, shape) -> None:
    with pytest.raises(ValueError, match=r"takes images \[B, H, W, C\]. Received: input shape"):
        kind()(tf.zeros(shape))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_in_half_precision_an_image_does_not_depend_on_its_batch(dtype) -> None:
    layer = InstanceNormalization(dtype=dtype)
    x = tf.cast(0.2 * (X - 2.0) + 3.0, layer.compute_dtype)  # mean / deviation 5
    alone, together = (np.float64(tf.cast(layer(images), tf.float32)) for images in (x[:1], x))
    wide = np.float64(tf.cast(x, tf.float32))[:1]
    exact = (wide - wide.mean((1, 2))) / np.sqrt(wide.var((1, 2)) + 1e-5)
    rounding = 2.0**-8 if dtype == "mixed_bfloat16" else 2.0**-11
    for found in (alone[0], together[0]):
        assert np.abs(found - exact[0]).max() < 4 * rounding
    flat = tf.cast(tf.fill([2, 4, 4, 3], 300.0), layer.compute_dtype)
    np.testing.assert_array_equal(layer(flat), 0.0)


@pytest.mark.parametrize("size", [1, 4])
def test_float64(size) -> None:
    layer = built(lambda **kwargs: InstanceNormalization(dtype="float64", **kwargs))
    np.testing.assert_allclose(layer(X[:size]), expected((1, 2))[:size], atol=2e-5)
