"""The gated layer: both stacks by hand, what they see, the condition, in somebody's own model."""

import keras
import numpy as np
import pytest
import scipy.signal
import scipy.special
import tensorflow as tf

from tfgen.layers.gated_pixelcnn import GatedPixelCNNLayer


def _stack(channels: int = 1, groups: int = 1) -> keras.Model:
    x = keras.Input((7, 7, channels))
    v, h = GatedPixelCNNLayer(6, 3, "A", groups, seed=0)([x, x])
    v, h = GatedPixelCNNLayer(6, 3, groups=groups, seed=1)([v, h])
    return keras.Model(x, [v, h])


def test_each_stack_sees_its_part_of_what_comes_before() -> None:
    model, x = _stack(), tf.random.stateless_normal([1, 7, 7, 1], [1, 2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        v, h = (output[0, 4, 3] for output in model(x))
    of_v, of_h = (np.abs(tape.jacobian(y, x)).sum(0)[0, ..., 0] > 0 for y in (v, h))
    rows_above = np.zeros([7, 7], bool)
    rows_above[2:4, 1:6] = True  # two layers of 3x3: two rows up and two columns to both sides
    np.testing.assert_array_equal(of_v, rows_above)
    before = rows_above.copy()
    before[4, 1:3] = True
    np.testing.assert_array_equal(of_h, before)


def test_colours_see_those_before_them() -> None:
    model, x = _stack(3, 3), tf.random.stateless_normal([1, 7, 7, 3], [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        h = model(x)[1][0, 3, 3]
    here = np.abs(tape.jacobian(h, x).numpy())[:, 0, 3, 3].reshape(3, 2, 3).sum(1) > 0
    np.testing.assert_array_equal(here, [[0, 0, 0], [1, 0, 0], [1, 1, 0]])


def test_values_by_numpy() -> None:
    layer = GatedPixelCNNLayer(1, 3, seed=0)
    v, h = (np.random.default_rng(s).normal(size=(1, 5, 4, 1)).astype(np.float32) for s in (0, 1))
    c = np.float32([[0.3, -2.0]])
    new_v, new_h = layer([v, h, c])
    for index, variable in enumerate(layer.trainable_variables):
        variable.assign(variable + 0.1 * index)
    new_v, new_h = layer([v, h, c])
    given = c @ layer.given.kernel.numpy()

    def conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return scipy.signal.correlate2d(x[0, ..., 0], kernel, mode="same")

    def gate(u: np.ndarray) -> np.ndarray:
        return np.tanh(u[..., 0]) * scipy.special.expit(u[..., 1])

    vertical, horizontal = [], []
    for output in range(2):
        kernel = np.zeros((3, 3))
        kernel[:2] = layer.vertical_kernel.numpy()[..., 0, output]
        vertical.append(conv(v, kernel) + layer.vertical_bias.numpy()[output] + given[0, output])
        row = np.zeros((1, 3))
        row[0, :2] = layer.left.kernel.numpy()[0, :2, 0, output]
        horizontal.append(conv(h, row) + layer.left.bias.numpy()[output] + given[0, 2 + output])
    vertical, horizontal = np.stack(vertical, -1), np.stack(horizontal, -1)
    np.testing.assert_allclose(new_v[0, ..., 0], gate(vertical), atol=1e-5)
    inner = gate(horizontal + vertical @ layer.down.kernel.numpy())
    expected = h[0, ..., 0] + inner * layer.out.kernel.numpy().item() + layer.out.bias.numpy()
    np.testing.assert_allclose(new_h[0, ..., 0], expected, atol=1e-5)


def test_a_map_is_seen_by_its_pixel_and_those_after_it() -> None:
    layer = GatedPixelCNNLayer(4, 3, seed=0)
    v = h = tf.random.stateless_normal([2, 5, 5, 4], [0, 1])
    vector = tf.random.stateless_normal([2, 3], [0, 2])
    alike = tf.tile(vector[:, None, None], [1, 5, 5, 1])
    layer.build([tuple(x.shape) for x in (v, h, alike)])
    for by_vector, by_map in zip(layer([v, h, vector]), layer([v, h, alike]), strict=True):
        np.testing.assert_allclose(by_vector, by_map, atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(alike)
        y = tf.reduce_sum(layer([v, h, alike])[1][0, 2, 2])
    seen = np.abs(tape.gradient(y, alike)).sum(-1)[0] > 0
    assert seen[2, 2]
    assert seen.sum() == 1


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    x, label = keras.Input((6, 6, 1)), keras.Input((2,))
    v, h = GatedPixelCNNLayer(8, 3, "A")([x, x, label])
    _, h = GatedPixelCNNLayer(8, 3)([v, h, label])
    model = keras.Model([x, label], keras.layers.Conv2D(1, 1, activation="sigmoid")(h))
    # Every pixel is the one above on the right, or its opposite, by the label.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 256)
    images = np.zeros((256, 6, 6, 1), np.float32)
    images[:, 0] = rng.integers(0, 2, (256, 6, 1))
    for row in range(1, 6):
        images[:, row] = (np.roll(images[:, row - 1], -1, 1) + labels[:, None, None]) % 2
    inputs = [images, np.eye(2, dtype=np.float32)[labels]]
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    model.fit(inputs, images, epochs=40, verbose=0)
    error = np.abs(model.predict(inputs, verbose=0) - images).mean((0, 3))
    assert error[1:, :5].max() < 0.1 < 0.35 < error[0].min()
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kernel_size must be 3 or more.* Received: kernel_size=1"):
        GatedPixelCNNLayer(8, 1, "A")
    with pytest.raises(ValueError, match="multiple of groups.* Received: filters=8, groups=3"):
        GatedPixelCNNLayer(4, 3, groups=3)
    with pytest.raises(
        ValueError, match=r"has 4 channels. Received: input shape \(None, 8, 8, 2\)"
    ):
        GatedPixelCNNLayer(4, 3).build([(None, 8, 8, 4), (None, 8, 8, 2)])
    with pytest.raises(ValueError, match=r"takes \[v, h\] or \[v, h, condition\]"):
        GatedPixelCNNLayer(4, 3).build((None, 8, 8, 4))
    layer = GatedPixelCNNLayer(4, 3)
    layer.build([(None, 8, 8, 4)] * 2)
    with pytest.raises(ValueError, match="built without a condition"):
        layer([tf.zeros([1, 8, 8, 4])] * 2 + [tf.zeros([1, 3])])


def test_each_layer_has_its_own_precision(tmp_path) -> None:
    h = tf.random.stateless_normal([2, 6, 6, 4], [0, 1])
    v_out, h_out = GatedPixelCNNLayer(4, 3, dtype="mixed_bfloat16")([h, h])
    assert v_out.dtype == h_out.dtype == tf.bfloat16
    x = keras.Input((6, 6, 1))
    v, h = GatedPixelCNNLayer(4, 3, "A", dtype="mixed_bfloat16")([x, x])
    model = keras.Model(x, GatedPixelCNNLayer(4, 3, dtype="mixed_bfloat16")([v, h])[1])
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).random((2, 6, 6, 1), np.float32)
    for twin in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        assert twin(images).dtype == tf.bfloat16
