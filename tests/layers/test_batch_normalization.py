"""Batch norm by one kernel is Keras' batch norm: numbers, gradients, moving averages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.batch_normalization import BatchNormalization
from tfgen.training import strategies

IMAGES = np.random.default_rng(0).normal(2.0, 3.0, (4, 6, 5, 3)).astype("float32")
ROWS = IMAGES.reshape(-1, 3)


def built(kind, inputs=IMAGES, **kwargs):
    layer = kind(momentum=0.75, epsilon=1e-3, **kwargs)
    layer.build(inputs.shape)
    if layer.scale:
        layer.gamma.assign([1.0, 2.0, 3.0])
    if layer.center:
        layer.beta.assign([0.5, 0.0, -1.0])
    return layer


@pytest.mark.parametrize("inputs", [IMAGES, ROWS], ids=["images", "rows"])
@pytest.mark.parametrize("kwargs", [{}, {"scale": False}, {"center": False}])
def test_it_is_keras_layer(inputs, kwargs) -> None:
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    ours, theirs = (built(kind, inputs, **kwargs) for kind in kinds)
    for _ in range(2):
        np.testing.assert_allclose(
            ours(inputs, training=True), theirs(inputs, training=True), atol=2e-5
        )
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, err_msg=mine.name)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-4, atol=1e-5)
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]


def test_first_and_second_gradients_are_those_of_keras() -> None:
    weights = tf.constant(np.random.default_rng(1).normal(size=IMAGES.shape).astype("float32"))
    found = []
    for kind in (BatchNormalization, keras.layers.BatchNormalization):
        layer, x = built(kind), tf.constant(IMAGES)
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(weights * layer(x, training=True) ** 2)
            (slope,) = inner.gradient(value, [x])
            size = tf.reduce_sum(slope**2)
        sources = [x, *layer.trainable_variables]
        found.append([*outer.gradient(value, sources), *outer.gradient(size, sources[:2])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_in_bfloat16_statistics_are_float32() -> None:
    layer = built(BatchNormalization, dtype="mixed_bfloat16")
    outputs = layer(IMAGES, training=True)
    assert outputs.dtype == tf.bfloat16
    rounded = tf.cast(IMAGES, tf.bfloat16).numpy().astype("float32")
    np.testing.assert_allclose(layer.moving_mean, 0.25 * rounded.mean((0, 1, 2)), rtol=1e-5)


def test_a_frozen_layer_and_one_of_other_axes_are_keras() -> None:
    frozen = built(BatchNormalization)
    frozen.trainable = False
    before = frozen.moving_mean.numpy()
    np.testing.assert_allclose(frozen(IMAGES, training=True), frozen(IMAGES, training=False))
    np.testing.assert_array_equal(frozen.moving_mean, before)
    first = BatchNormalization(axis=1)
    assert first(IMAGES, training=True).shape == IMAGES.shape
    assert first.gamma.shape == (6,)


@pytest.mark.parametrize(("kwargs", "masked"), [({"renorm": True}, False), ({}, True)])
def test_masks_and_renormalisation_are_keras(kwargs, masked) -> None:
    mask = {"mask": tf.constant(IMAGES[..., 0] > 0.0)} if masked else {}
    kinds = (BatchNormalization, keras.layers.BatchNormalization)
    ours, theirs = (built(kind, **kwargs) for kind in kinds)
    for _ in range(2):
        np.testing.assert_array_equal(*(f(IMAGES, training=True, **mask) for f in (ours, theirs)))


@pytest.mark.parametrize("synchronized", [True, False])
def test_replicas_share_their_statistics_only_if_asked(synchronized) -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        layer = built(BatchNormalization, synchronized=synchronized)

    def half(context):
        return tf.constant(IMAGES)[2 * context.replica_id_in_sync_group :][:2]

    parts = strategy.experimental_distribute_values_from_function(half)
    made = strategy.run(tf.function(lambda x: layer(x, training=True)), args=(parts,))
    found = np.concatenate([x.numpy() for x in strategy.experimental_local_results(made)])
    alone = built(keras.layers.BatchNormalization)
    batches = [IMAGES] if synchronized else [IMAGES[:2], IMAGES[2:]]
    wanted = np.concatenate([alone(batch, training=True) for batch in batches])
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    layers = [keras.Input((6, 5, 3)), BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(IMAGES, np.zeros((4, 1)), verbose=0)
    assert np.abs(model.layers[0].moving_mean.numpy()).max() > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.layers[0], BatchNormalization)
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
