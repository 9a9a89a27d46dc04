"""Masked convolutions: masks and values by hand, gradients, in somebody's own model."""

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from tfgen.layers.masked_conv2d import MaskedConv2D


def _dependence(layer: MaskedConv2D, channels: int, at: tuple[int, int]) -> np.ndarray:
    """Which inputs [H, W, C] each output channel at a place depends on: bool [F, H, W, C]."""
    x = tf.random.stateless_normal([1, 7, 7, channels], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)[0, at[0], at[1]]
    return tape.jacobian(y, x).numpy()[:, 0] != 0


@pytest.mark.parametrize("mask", ["A", "B"])
def test_a_pixel_sees_what_comes_before_it_within_the_kernel(mask: str) -> None:
    found = _dependence(MaskedConv2D(2, 5, mask), 1, (3, 3))
    expected = np.zeros([7, 7], bool)
    expected[1:3, 1:6] = True
    expected[3, 1 : 3 if mask == "A" else 4] = True
    for output in found:
        np.testing.assert_array_equal(output[..., 0], expected)


def test_colours_see_those_before_them() -> None:
    for mask, here in (("A", [[0, 0, 0], [1, 0, 0], [1, 1, 0]]),
                       ("B", [[1, 0, 0], [1, 1, 0], [1, 1, 1]])):  # fmt: skip
        found = _dependence(MaskedConv2D(6, 3, mask, groups=3), 3, (3, 3))
        np.testing.assert_array_equal(found[:, 3, 3], np.repeat(np.array(here, bool), 2, axis=0))
        assert found[:, 2, 2:5].all()
        assert not found[:, 3, 4:].any()
        assert not found[:, 4:].any()


def test_values_are_scipys() -> None:
    layer = MaskedConv2D(1, 3, "B", activation="relu")
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 1)).astype(np.float32)
    layer.build(x.shape)
    layer.bias.assign([0.1])
    kernel = np.zeros((3, 3), np.float32)
    kernel[:2] = layer.kernel.numpy()[..., 0, 0]
    kernel[1, 2] = 0.0
    expected = scipy.signal.correlate2d(x[0, ..., 0], kernel, mode="same") + 0.1
    np.testing.assert_allclose(layer(x)[0, ..., 0], np.maximum(expected, 0), atol=1e-5)


def test_what_is_masked_gets_no_gradient() -> None:
    layer = MaskedConv2D(4, 3, "A", groups=2)
    x = tf.random.stateless_normal([4, 6, 6, 2], [0, 1])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradient = tape.gradient(loss, layer.kernel).numpy()
    np.testing.assert_array_equal(gradient != 0, layer.seen.astype(bool))


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6, 6, 1)), MaskedConv2D(8, (3, 5), "A", activation="relu"),
        MaskedConv2D(1, 1, "B", activation="sigmoid"),
    ])  # fmt: skip
    # Every pixel is its left neighbour's opposite, and the first of a row is a coin.
    coins = np.random.default_rng(0).integers(0, 2, (256, 6, 1, 1))
    x = np.float32((coins + np.arange(6)[:, None]) % 2)
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    model.fit(x, x, epochs=25, verbose=0)
    error = np.abs(model.predict(x, verbose=0) - x).mean((0, 1, 3))
    assert error[1:].max() < 0.1 < 0.4 < error[0]
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(x, verbose=0), model.predict(x, verbose=0))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kernel_size must be odd. Received: kernel_size=4"):
        MaskedConv2D(8, 4, "A")
    with pytest.raises(ValueError, match="mask must be 'A' or 'B'. Received: mask='C'"):
        MaskedConv2D(8, 3, "C")
    with pytest.raises(ValueError, match="multiple of groups.* Received: filters=8, groups=3"):
        MaskedConv2D(8, 3, "A", groups=3)
    with pytest.raises(ValueError, match="kernel_size must be 3 or more. Received: kernel_size=1"):
        MaskedConv2D(8, 1, "A")
    with pytest.raises(
        ValueError, match=r"C a multiple of groups=3. Received: .*\(None, 8, 8, 1\)"
    ):
        MaskedConv2D(6, 3, "A", groups=3).build((None, 8, 8, 1))
