"""MS-SSIM against TensorFlow's at full size, the definition at one scale, and extremes."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.metrics import ms_ssim


def _images(n: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, side, side, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("side", "count", "window"),
    [(2, 1, 1), (8, 1, 7), (11, 1, 11), (21, 1, 11), (28, 2, 11), (64, 3, 11), (176, 5, 11)],
)
def test_scales_that_fit(side: int, count: int, window: int) -> None:
    weights, found = ms_ssim.scales(side, side + 5)
    assert (len(weights), found) == (count, window)
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    values = ms_ssim.of_pairs(_images(2, side), _images(2, side, 1))  # and TensorFlow takes them
    assert ((values >= 0) & (values <= 1)).all()


def test_large_images_are_tensorflows_own() -> None:
    x = _images(2, 180)
    y = np.clip(x + 0.1 * _images(2, 180, 1), 0, 1)
    expected = tf.image.ssim_multiscale(x, y, 1.0).numpy()
    # The weights are divided by their sum, 1.0001.
    np.testing.assert_allclose(ms_ssim.of_pairs(x, y), expected, rtol=1e-4)


def test_constant_images_by_hand() -> None:
    # Without structure SSIM is its luminance term (2 a b + c1) / (a^2 + b^2 + c1), c1 = 0.01^2.
    a, b = 0.25, 0.75
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    x, y = np.full((1, 8, 8, 1), a), np.full((1, 8, 8, 1), b)
    # Variances are differences of float32 squares, off by 1e-7, beside c2 = 0.03^2 = 9e-4.
    assert ms_ssim.of_pairs(x, y)[0] == pytest.approx(expected, abs=5e-4)


def test_random_pairs_show_collapse() -> None:
    images = _images(11, 16)
    diverse = ms_ssim.of_random_pairs(images, 100, seed=1)
    assert len(diverse) == 5
    same = ms_ssim.of_random_pairs(np.repeat(images[:1], 10, axis=0), 3, seed=1)
    np.testing.assert_allclose(same, np.ones(3), atol=1e-5)
    assert diverse.mean() < 0.2
    np.testing.assert_array_equal(diverse, ms_ssim.of_random_pairs(images, 100, seed=1))
    assert diverse.mean() != ms_ssim.of_random_pairs(images, 100, seed=2).mean()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one shape"):
        ms_ssim.of_pairs(_images(1, 8), _images(1, 9))
    with pytest.raises(ValueError, match="Received: 1 images, num_pairs=5"):
        ms_ssim.of_random_pairs(_images(1, 8), 5, 0)


def test_bytes_and_floats_are_alike() -> None:
    """SSIM's constants are for [0, 1]: without them two nearly flat images have nothing alike."""
    rng = np.random.default_rng(0)
    x, y = (rng.integers(100, 103, (3, 32, 32, 3)).astype(np.uint8) for _ in range(2))
    found = ms_ssim.of_pairs(x, y)
    np.testing.assert_allclose(found, ms_ssim.of_pairs(x / 255.0, y / 255.0), rtol=1e-5)
    assert found.min() > 0.5
