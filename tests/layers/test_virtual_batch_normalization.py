"""The layer against batch statistics in numpy, and networks with a reference batch."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.virtual_batch_normalization import ReferenceBatch, VirtualBatchNormalization

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(2.0, 3.0, size=(9, 4)).astype(np.float32)
IMAGES = RANDOM.normal(2.0, 3.0, size=(9, 5, 6, 2)).astype(np.float32)


def normalised(rows: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Batch normalisation of `rows` by the statistics of `batch`."""
    axes = tuple(range(batch.ndim - 1))
    return (rows - batch.mean(axes)) / np.sqrt(batch.var(axes) + 1e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("inputs", [FEATURES, IMAGES], ids=["features", "images"])
def test_an_example_is_one_more_member_of_the_reference(inputs: np.ndarray, jit: bool) -> None:
    layer = VirtualBatchNormalization(6)
    layer.build(inputs.shape)
    layer.gamma.assign(np.arange(1.0, 1 + inputs.shape[-1]))
    layer.beta.assign(np.arange(inputs.shape[-1]))
    signature = [tf.TensorSpec([None, *inputs.shape[1:]])]
    outputs = tf.function(layer, input_signature=signature, jit_compile=jit)(inputs).numpy()
    wide = inputs.astype(np.float64)
    expected = [normalised(wide[:6], wide[:6])]
    expected += [normalised(wide[i : i + 1], wide[[*range(6), i]]) for i in (6, 7, 8)]
    expected = np.concatenate(expected) * layer.gamma.numpy() + layer.beta.numpy()
    # Sums of 180 float32 numbers.
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=2e-5)


def test_by_hand() -> None:
    # Reference 0 and 2, example 4: of 0, 2, 4 the mean is 2, the variance 8/3.
    outputs = VirtualBatchNormalization(2)(np.array([[0.0], [2.0], [4.0]], np.float32))
    # The epsilon of 1e-5 moves the square root by its half, relative to a variance of 1.
    np.testing.assert_allclose(outputs[:, 0], [-1, 1, 2 / np.sqrt(8 / 3)], rtol=1e-5)


def test_large_means_do_not_cancel() -> None:
    inputs = np.float32(1000) + FEATURES / 3
    outputs = VirtualBatchNormalization(6)(inputs)
    wide = inputs.astype(np.float64)
    # Means near 1000 are known to 3e-5.
    np.testing.assert_allclose(outputs[:6], normalised(wide[:6], wide[:6]), atol=2e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("inputs", [FEATURES, IMAGES], ids=["features", "images"])
def test_an_example_does_not_depend_on_the_others(inputs: np.ndarray, training: bool) -> None:
    layer, usual = VirtualBatchNormalization(6), keras.layers.BatchNormalization()
    others = inputs.copy()
    others[7:] *= -2
    layers = (lambda x: layer(x, training=training)), (lambda x: usual(x, training=True))
    (a, b), (c, d) = ((f(inputs).numpy(), f(others).numpy()) for f in layers)
    np.testing.assert_array_equal(a[:7], b[:7])
    assert np.abs(c[:7] - d[:7]).max() > 0.1  # Batch normalisation's do.


def test_gradients_reach_the_reference_and_not_other_examples() -> None:
    layer, inputs = VirtualBatchNormalization(6), tf.constant(IMAGES)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(layer(inputs)[7] ** 3)
    sizes = np.abs(tape.gradient(loss, inputs)).sum((1, 2, 3))
    assert all(sizes[[*range(6), 7]] > 1e-3)
    np.testing.assert_array_equal(sizes[[6, 8]], 0)


def test_second_derivative_of_a_feature() -> None:
    # y(x) for a reference of -1 and 1: mean x / 3, var (2 + 2 x^2 / 3) / 3, by differences.
    def y(x: float) -> float:
        return (x - x / 3) / np.sqrt((2 + 2 * x**2 / 3) / 3 + 1e-5)

    layer, x = VirtualBatchNormalization(2), tf.constant(0.7)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            out = layer(tf.reshape(tf.stack([-1.0, 1.0, x]), [3, 1]))[2, 0]
        slope = inner.gradient(out, x)
    curve = outer.gradient(slope, x)
    assert float(slope) == pytest.approx((y(0.701) - y(0.699)) / 0.002, rel=1e-5)
    # Differences of step 1e-3 are wrong by about 1e-6 of the fourth derivative.
    assert float(curve) == pytest.approx((y(0.701) - 2 * y(0.7) + y(0.699)) / 1e-6, rel=1e-4)


def test_mixed_precision_computes_statistics_in_float32() -> None:
    layer = VirtualBatchNormalization(6, dtype="mixed_bfloat16")
    outputs = layer(IMAGES)
    assert outputs.dtype == tf.bfloat16
    assert layer.gamma.dtype == "float32"
    # Inputs and outputs are rounded to 8 bits: up to 10 before and 3 after.
    wide = tf.cast(VirtualBatchNormalization(6)(IMAGES), tf.float32)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), wide, atol=0.03)


def network(reference_size: int) -> keras.Model:
    """[N, 3] -> [N, 4, 4, 2], with two of the layers."""
    x = inputs = keras.Input((3,))
    x = VirtualBatchNormalization(reference_size)(keras.layers.Dense(12)(x))
    x = keras.layers.Reshape((2, 2, 3))(keras.layers.ReLU()(x))
    x = keras.layers.Conv2DTranspose(2, 3, strides=2, padding="same")(x)
    return keras.Model(inputs, VirtualBatchNormalization(reference_size)(x))


def test_a_network_with_a_reference_batch() -> None:
    reference = RANDOM.normal(size=(6, 3)).astype(np.float32)
    inner = network(6)
    model = ReferenceBatch(inner, reference)
    assert model.built
    latents = RANDOM.normal(size=(5, 3)).astype(np.float32)
    outputs = model(latents)
    assert outputs.shape == (5, 4, 4, 2)
    np.testing.assert_array_equal(outputs, inner(np.concatenate([reference, latents]))[6:])
    # Examples alone and together: convolutions of other batch sizes may round differently.
    alone = np.concatenate([model(latents[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(outputs, alone, atol=1e-5)
    assert len(model.non_trainable_variables) == 1
    model.reference[0].assign(reference + 1)
    assert np.abs(model(latents) - outputs).max() > 1e-3


def test_trains_saves_and_restores_in_a_keras_model(tmp_path: pathlib.Path) -> None:
    reference = tf.random.stateless_normal([6, 3], seed=[0, 1])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, ReferenceBatch(network(6), reference, name="generator")(inputs))
    assert model.output_shape == (None, 4, 4, 2)
    model.compile("adam", loss="mse")
    data = np.ones((8, 3), np.float32)
    model.fit(data, np.zeros((8, 4, 4, 2), np.float32), batch_size=4, epochs=2, verbose=0)
    layer = model.get_layer("generator")
    np.testing.assert_array_equal(layer.reference[0].numpy(), reference)
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    again = restored.get_layer("generator")
    # Keras numbers the tensors inside of a functional model anew.
    assert {**again.get_config(), "layer": 0} == {**layer.get_config(), "layer": 0}
    for a, b in zip(again.layer.layers, layer.layer.layers, strict=True):
        assert a.get_config() == b.get_config()
    np.testing.assert_array_equal(model(data), restored(data))


def test_several_inputs_and_mixed_precision(tmp_path: pathlib.Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = {
        "z": keras.Input((3,), name="z"),
        "label": keras.Input((), dtype="int32", name="label"),
    }
    x = [inputs["z"], keras.layers.Embedding(10, 2)(inputs["label"])]
    x = VirtualBatchNormalization(4)(keras.layers.Dense(6)(keras.layers.Concatenate()(x)))
    inner = keras.Model(inputs, keras.layers.Activation("tanh", dtype="float32")(x))
    reference = {"z": np.ones((4, 3)), "label": np.arange(4)}
    reference["z"][1:] = -1
    model = keras.Model(inputs, ReferenceBatch(inner, reference)(inputs))
    batch = {"z": np.zeros((2, 3), np.float32), "label": np.array([1, 9], np.int32)}
    assert model.output.dtype == "float32"
    assert model(batch).dtype == tf.float32
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(model(batch), restored(batch))


def test_no_examples_is_an_error() -> None:
    layer = VirtualBatchNormalization(9)
    with pytest.raises(ValueError, match=r"the 9 rows of .* Received: input shape \(9, 4\)"):
        layer(FEATURES)
    compiled = tf.function(layer, input_signature=[tf.TensorSpec([None, 4])])
    with pytest.raises(tf.errors.InvalidArgumentError, match="the 9 rows of the reference batch"):
        compiled(FEATURES)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="1 or more. Received: reference_size=0"):
        VirtualBatchNormalization(0)
    with pytest.raises(ValueError, match="above 0. Received: epsilon=0"):
        VirtualBatchNormalization(2, epsilon=0)
    with pytest.raises(ValueError, match=r"one of channels. Received: input shape \(9,\)"):
        VirtualBatchNormalization(2)(FEATURES[:, 0])
    with pytest.raises(ValueError, match=r"number of rows. Received: shapes \[\(2, 1\), \(3, 1\)"):
        ReferenceBatch(keras.layers.Concatenate(), [np.ones((2, 1)), np.ones((3, 1))])
    with pytest.raises(ValueError, match=r"Received: shapes \[\(5, 4\)\], .* are \[\(6, 3\)\]"):
        ReferenceBatch(network(6), np.ones((6, 3)))(np.ones((5, 4), np.float32))


def test_scale_and_center_can_be_fixed() -> None:
    layer = VirtualBatchNormalization(6, scale=False, center=False)
    layer(FEATURES)
    assert not layer.trainable_variables
    config = VirtualBatchNormalization.from_config(layer.get_config()).get_config()
    assert config == layer.get_config()


def test_a_reference_of_another_size_is_refused() -> None:
    network = keras.Sequential(
        [keras.Input((3,)), keras.Sequential([VirtualBatchNormalization(6, name="inner")])]
    )
    with pytest.raises(ValueError, match="as many rows as inner takes, 6. Received: 4 rows"):
        ReferenceBatch(network, np.zeros((4, 3), np.float32))
