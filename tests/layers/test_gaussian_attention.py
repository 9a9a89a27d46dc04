"""Gaussian attention: filters by a direct formula, reading, writing, in somebody's own model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.gaussian_attention import GaussianRead, GaussianWrite, gaussian_filters


def _filters(centre, stride, variance, window, size) -> np.ndarray:
    """One example's filters as the paper writes them, [window, size], in float64."""
    found = np.zeros((window, size))
    for i in range(1, window + 1):
        mu = centre + (i - window / 2 - 0.5) * stride
        for a in range(1, size + 1):
            found[i - 1, a - 1] = np.exp(-((a - mu) ** 2) / (2 * variance))
    return found / found.sum(axis=1, keepdims=True)


def _attention(cls=GaussianRead, *arguments, bias=(0.3, -0.2, 0.5, -0.4, 0.7)):
    """A layer whose window is a function of the hidden vector [B, 3] and not only of its bias."""
    layer = cls(*arguments)
    if cls is GaussianRead:
        layer.build((None, 7, 9, 2), (None, 3))
    else:
        layer.build((None, 3))
    kernel = 0.3 * np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    layer.location.kernel.assign(kernel)
    layer.location.bias.assign(bias)
    return layer, lambda hidden: hidden @ kernel + np.float32(bias)


def _of_numbers(numbers, height, width, window):
    """F_Y, F_X and gamma of one example by eq. 21-26, from W h + b."""
    x, y, log_variance, log_stride, log_gamma = np.float64(numbers)
    stride = (max(height, width) - 1) / (window - 1) * np.exp(log_stride)
    grid = (stride, np.exp(log_variance), window)
    rows = _filters((height + 1) / 2 * (y + 1), *grid, height)
    columns = _filters((width + 1) / 2 * (x + 1), *grid, width)
    return rows, columns, np.exp(log_gamma)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_filters_are_the_papers(window) -> None:
    centre, stride, variance = np.float32([[4.0, 9.7, -3.0], [1.0, 0.3, 4.0], [1.0, 0.2, 6.0]])
    found = gaussian_filters(centre, stride, variance, window, 12).numpy()
    for example in zip(found, centre, stride, variance, strict=True):
        np.testing.assert_allclose(example[0], _filters(*example[1:], window, 12), atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-5)


def test_a_window_far_outside_sees_the_nearest_pixel() -> None:
    far = gaussian_filters(tf.constant([-1e4, 1e4]), tf.ones(2), tf.ones(2), 3, 6).numpy()
    np.testing.assert_array_equal(far[0], np.tile(np.eye(6)[0], (3, 1)))
    np.testing.assert_array_equal(far[1], np.tile(np.eye(6)[5], (3, 1)))


def test_reading_by_hand() -> None:
    rng = np.random.default_rng(0)
    image, hidden = rng.random((4, 7, 9, 2), np.float32), rng.random((4, 3), np.float32)
    layer, numbers = _attention(GaussianRead, 4)
    found = layer(image, hidden).numpy()
    assert found.shape == (4, 4, 4, 2)
    for example in range(4):
        rows, columns, gamma = _of_numbers(numbers(hidden)[example], 7, 9, 4)
        for channel in range(2):
            expected = gamma * rows @ image[example, ..., channel] @ columns.T
            np.testing.assert_allclose(found[example, ..., channel], expected, rtol=1e-4)


def test_writing_by_hand() -> None:
    hidden = np.random.default_rng(0).random((4, 3), np.float32)
    layer, numbers = _attention(GaussianWrite, 4, (7, 9, 2))
    patch = layer.patch(hidden).numpy().reshape(4, 4, 4, 2)
    found = layer(hidden).numpy()
    assert found.shape == (4, 7, 9, 2)
    for example in range(4):
        rows, columns, gamma = _of_numbers(numbers(hidden)[example], 7, 9, 4)
        for channel in range(2):
            expected = rows.T @ patch[example, ..., channel] @ columns / gamma
            np.testing.assert_allclose(found[example, ..., channel], expected, atol=1e-5)


def test_the_first_window_lies_over_the_whole_image() -> None:
    layer = GaussianRead(3, kernel_initializer="zeros")
    layer.build((None, 9, 9, 1), (None, 2))
    rows, columns, gamma = layer.filters(tf.ones([1, 2]), 9, 9)
    assert rows.numpy()[0].argmax(-1).tolist() == [0, 4, 8]
    assert columns.numpy()[0].argmax(-1).tolist() == [0, 4, 8]
    assert gamma.numpy() == 1.0


def test_filters_are_float32_in_mixed_precision() -> None:
    layer = GaussianWrite(2, (6, 6, 1), dtype="mixed_bfloat16")
    written = layer(tf.ones([1, 3]))
    assert written.dtype == tf.bfloat16
    assert [t.dtype for t in layer.filters(tf.ones([1, 3]), 6, 6)] == [tf.float32] * 3


def test_in_a_plain_keras_model_saved_and_reloaded(tmp_path) -> None:
    """The value of the one bright pixel, which an observer of its place can read out."""
    keras.utils.set_random_seed(0)
    image, place = keras.Input((8, 8, 1)), keras.Input((2,))
    hidden = keras.layers.Dense(16, "tanh")(place)
    seen = GaussianRead(1)(image, hidden)
    drawn = GaussianWrite(3, (8, 8, 1))(keras.layers.Concatenate()([
        hidden, keras.layers.Flatten()(seen)
    ]))  # fmt: skip
    model = keras.Model([image, place], drawn)
    assert model.output_shape == (None, 8, 8, 1)
    rng = np.random.default_rng(0)
    row, column = rng.integers(0, 8, (2, 400))
    images = np.zeros((400, 8, 8, 1), np.float32)
    images[np.arange(400), row, column] = rng.random((400, 1)) + 1.0
    places = (np.stack([column, row], 1) / 3.5 - 1).astype(np.float32)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit([images, places], images, batch_size=50, epochs=40, verbose=0)
    error = np.mean((model.predict([images, places], verbose=0) - images) ** 2)
    assert error < 0.2 * images.var()
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(*(m.predict([images, places], verbose=0) for m in (model, twin)))


def test_wrong_arguments_are_named() -> None:
    for window in (0, -1):
        with pytest.raises(ValueError, match=f"window must be 1 or more. Received: .*={window}"):
            GaussianRead(window)
    with pytest.raises(ValueError, match="known size, 9x9 at least. Received: 8x12"):
        GaussianWrite(9, (8, 12, 1))
    with pytest.raises(ValueError, match="known size, 9x9 at least. Received: 12x8"):
        GaussianRead(9).build((None, 12, 8, 1), (None, 3))
    with pytest.raises(ValueError, match="known size, 2x2 at least. Received: NonexNone"):
        GaussianRead(2).build((None, None, None, 1), (None, 3))


@pytest.mark.parametrize(
    ("centre", "variance", "pixel"),
    [(-1e8, 1.0, 0), (3e19, 1.0, 4), (2.2, 1e-39, 1), (-40.0, 0.5, 0)],
)
def test_far_out_and_infinitely_narrow_filters_see_the_nearest_pixel(
    centre, variance, pixel
) -> None:
    numbers = [tf.constant([number]) for number in (centre, 1.0, variance)]
    with tf.GradientTape() as tape:
        tape.watch(numbers)
        found = gaussian_filters(*numbers, 1, 5)
        one = found[0, 0, 1]
    np.testing.assert_allclose(found[0, 0], np.eye(5)[pixel], atol=1e-6)
    assert all(np.isfinite(slope).all() for slope in tape.gradient(one, numbers))
