"""Weight norm: values by hand, what is trained, the data-dependent start."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.weight_norm_dense import WeightNormDense


def built(units: int = 3, inputs: int = 4, **arguments) -> WeightNormDense:
    layer = WeightNormDense(units, **arguments)
    layer.build((None, inputs))
    return layer


def test_values_by_hand() -> None:
    layer = built(2, 2, activation="relu")
    layer.direction.assign([[3.0, 0.0], [4.0, -2.0]])
    layer.scale.assign([5.0, 1.0])
    layer.bias.assign([1.0, -0.5])
    # Columns of length 5 and 2: kernels (3, 4) and (0, -1).
    np.testing.assert_allclose(layer(tf.constant([[1.0, 2.0], [0.0, -3.0]])), [[12, 0], [0, 2.5]])


def test_the_length_of_the_direction_is_without_effect_and_so_gets_no_gradient() -> None:
    layer, x = built(), tf.random.stateless_normal([5, 4], [0, 1])
    before = layer(x)
    layer.direction.assign(7.0 * layer.direction)
    np.testing.assert_allclose(layer(x), before, rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    along = tf.reduce_sum(layer.direction * tape.gradient(loss, layer.direction), axis=0)
    np.testing.assert_allclose(along, np.zeros(3), atol=1e-4)  # sums of 20 products of order 1


def test_initialize_gives_mean_0_and_variance_1() -> None:
    layer = built(activation="tanh")
    x = 3.0 + 2.0 * tf.random.stateless_normal([500, 4], [0, 1])
    made = layer.initialize(x)
    np.testing.assert_array_equal(made, layer(x))
    before_tanh = np.arctanh(np.float64(made))
    np.testing.assert_allclose(before_tanh.mean(0), np.zeros(3), atol=1e-3)  # arctanh near 1
    np.testing.assert_allclose(before_tanh.std(0), np.ones(3), atol=1e-3)


def test_initialize_bears_an_input_that_never_varies() -> None:
    assert np.isfinite(built().initialize(tf.ones([8, 4]))).all()


@pytest.mark.parametrize("train_scale", [True, False])
def test_what_is_trained(train_scale: bool) -> None:
    names = {v.name for v in built(train_scale=train_scale).trainable_variables}
    assert names == {"direction", "bias"} | ({"scale"} if train_scale else set())


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    model = keras.Sequential([keras.Input((4,)), WeightNormDense(3, "relu", train_scale=False)])
    x = tf.random.stateless_normal([5, 4], [0, 1])
    model.layers[0].initialize(x)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].get_config() == model.layers[0].get_config()


def test_in_mixed_precision_the_weights_stay_float32() -> None:
    layer = built(dtype="mixed_bfloat16")
    x = tf.random.stateless_normal([5, 4], [0, 1])
    assert layer(x).dtype == tf.bfloat16
    assert layer.scale.dtype == "float32"
    assert np.isfinite(np.float32(layer.initialize(x))).all()


def test_wrong_units_are_named() -> None:
    with pytest.raises(ValueError, match="units must be 1 or more. Received: units=0"):
        WeightNormDense(0)


def test_initialize_builds_the_layer() -> None:
    x = np.random.default_rng(0).normal(3.0, 2.0, (200, 4)).astype(np.float32)
    made = WeightNormDense(3).initialize(x).numpy()
    np.testing.assert_allclose(made.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(made.std(0), 1.0, atol=1e-3)
