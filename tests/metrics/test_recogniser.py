"""The recogniser of mosaics: exact on true targets, lost on blurred ones."""

import numpy as np
import pytest
import scipy.ndimage

from tfgen import data
from tfgen.data import mosaic
from tfgen.metrics import recogniser


@pytest.fixture(scope="module")
def mosaics():
    """Targets in [0, 1] and their classes."""
    loaded = data.load("mosaic", needs=("target", "segmentation"))
    batch = next(loaded.batches("test", 200, limit=200).as_numpy_iterator())
    return batch["target"], batch["segmentation"]


def test_true_targets_are_recognised(mosaics):
    assert recogniser.accuracy(*mosaics) > 0.98
    target, segmentation = mosaics
    found = recogniser.classes(target)
    assert found.dtype == np.int32
    assert np.mean(found == segmentation) > 0.9  # borders and all
    for number in range(6):
        of_class = recogniser.interior(segmentation) & (segmentation == number)
        assert np.mean(found[of_class] == number) > 0.95


def test_flat_and_blurred_images_are_not(mosaics):
    target, segmentation = mosaics
    flat = np.array(mosaic.MEANS)[segmentation]
    inside = recogniser.interior(segmentation)
    found = recogniser.classes(flat)
    # All four of one mean colour are plain; of the two others, none is.
    np.testing.assert_array_equal(found[inside & (segmentation < 4)], 0)
    plain = np.mean(segmentation[inside] == 0)
    wave = recogniser.accuracy(flat, segmentation)
    assert plain <= wave < plain + 0.25  # one of two cool ones may be right by the tie
    blurred = scipy.ndimage.uniform_filter(target, (1, 4, 4, 1))
    assert recogniser.accuracy(blurred, segmentation) < 0.5


def test_noise_is_borne(mosaics):
    target, segmentation = mosaics
    noise = np.random.default_rng(0).normal(0, 0.03, target.shape)
    assert recogniser.accuracy(np.clip(target + noise, 0, 1), segmentation) > 0.95


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("phase", [0.0, 0.7, 2.0])
def test_textures_by_hand(number, phase):
    wave = mosaic.WAVE * np.cos(np.pi / 2 * np.arange(12) + phase)
    rows, columns = mosaic.WAVES[number]
    texture = {
        (0, 0): np.zeros((12, 12)),
        (1, 0): wave[:, None] * np.ones(12),
        (0, 1): np.ones((12, 1)) * wave,
        (1, 1): np.sqrt(2) * wave[:, None] * wave / mosaic.WAVE,
    }[rows, columns]
    image = np.array(mosaic.MEANS[number]) + texture[..., None]
    np.testing.assert_array_equal(recogniser.classes(image[None]), np.full((1, 12, 12), number))


def test_interior():
    segmentation = np.zeros((1, 7, 12), int)
    segmentation[:, :, 6:] = 1
    expected = np.ones((1, 7, 12), bool)
    expected[:, :, 4:8] = False  # two pixels on both sides of the border
    np.testing.assert_array_equal(recogniser.interior(segmentation), expected)


@pytest.mark.parametrize("shape", [(2, 32, 32), (2, 32, 32, 1), (2, 4, 32, 3)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match="must be .B, H, W, 3. of at least 5x5 pixels. Received"):
        recogniser.classes(np.zeros(shape))
