"""Which class of `mosaic` each pixel of an image shows, by its texture; nothing is learnt.

The measure is that of the "FCN-score" (P. Isola, J.-Y. Zhu, T. Zhou, A. Efros. Image-to-Image
Translation with Conditional Adversarial Networks. CVPR 2017, section 4.1) with an exact recogniser
in place of a trained one: an image whose textures are blurred away is not recognised.
"""

import itertools

import numpy as np
import scipy.ndimage

from tfgen.data import mosaic

WINDOW = 5  # side of the windows, in pixels: a period and one pixel
_REACH = WINDOW // 2
# Sums over a window with these weights are free of waves of four pixels, whatever their phase.
_WEIGHTS = np.array([1, 2, 2, 2, 1]) / 8.0
_STEPS = np.array([1, 1, 1, 1]) / 4.0  # the differences inside a window: a whole period of them
_MEAN, _ENERGY = 0.1, mosaic.WAVE**2  # scales of the features: of a colour, of an energy


def classes(image: np.ndarray) -> np.ndarray:
    """The class of each pixel.

    In each window of 5x5 pixels are measured the mean colour and the energies of the differences
    between neighbours along rows and along columns, and the nearest class is found. A pixel has the
    class of that window, of the 25 which cover it, which is nearest to its class: so windows
    across the border of two textures have little to say.

    Args:
        image: float [B, H, W, 3] in [0, 1], H and W at least 5.

    Returns:
        int32 [B, H, W], indices of `mosaic.CLASSES`.

    Raises:
        ValueError: for other shapes.
    """
    if image.ndim != 4 or image.shape[-1] != 3 or min(image.shape[1:3]) < WINDOW:
        raise ValueError(
            f"Images to be recognised must be [B, H, W, 3] of at least {WINDOW}x{WINDOW} pixels. "
            f"Received: {list(image.shape)}"
        )
    distance = np.square(_features(image)[..., np.newaxis, :] - _class_features()).sum(axis=-1)
    nearest, least = distance.argmin(axis=-1), distance.min(axis=-1)
    # Window (y, x) covers the pixels from there to (y + 4, x + 4).
    around = ((0, 0), (WINDOW - 1, WINDOW - 1), (WINDOW - 1, WINDOW - 1))
    nearest = np.pad(nearest, around)
    least = np.pad(least, around, constant_values=np.inf)
    height, width = image.shape[1:3]
    best, found = np.full(image.shape[:3], np.inf), np.zeros(image.shape[:3], np.int32)
    for y, x in itertools.product(range(WINDOW), repeat=2):
        here = np.s_[:, y : y + height, x : x + width]
        better = least[here] < best
        found[better], best[better] = nearest[here][better], least[here][better]
    return found


def accuracy(image: np.ndarray, segmentation: np.ndarray) -> float:
    """Share of the pixels inside regions (see `interior`) whose class is recognised.

    Args:
        image: float [B, H, W, 3] in [0, 1].
        segmentation: int [B, H, W], the true classes.
    """
    inside = interior(segmentation)
    return float(np.mean(classes(image)[inside] == segmentation[inside]))


def interior(segmentation: np.ndarray) -> np.ndarray:
    """Pixels around which a window of 5x5, as far as it is in the image, shows one class alone.

    Args:
        segmentation: int [B, H, W].

    Returns:
        bool [B, H, W].
    """
    size = (1, WINDOW, WINDOW)
    highest = scipy.ndimage.maximum_filter(segmentation, size, mode="nearest")
    return highest == scipy.ndimage.minimum_filter(segmentation, size, mode="nearest")


def plan(source: np.ndarray) -> np.ndarray:
    """The classes of label maps by their nearest colours: [..., 3] in [0, 1] -> int32 [...]."""
    gaps = np.abs(source[..., np.newaxis, :] - np.array(mosaic.PALETTE)).sum(axis=-1)
    return gaps.argmin(axis=-1).astype(np.int32)


def _features(image: np.ndarray) -> np.ndarray:
    """Of each window: mean colour and both energies, scaled: [B, H - 4, W - 4, 5]."""
    image = image.astype(np.float64)
    mean = _windowed(_windowed(image, _WEIGHTS, 1), _WEIGHTS, 2)
    grey = image.mean(axis=-1)
    down = _windowed(_windowed(np.square(np.diff(grey, axis=1)), _STEPS, 1), _WEIGHTS, 2)
    across = _windowed(_windowed(np.square(np.diff(grey, axis=2)), _STEPS, 2), _WEIGHTS, 1)
    energies = np.stack([down, across], axis=-1) / _ENERGY
    return np.concatenate([mean / _MEAN, energies], axis=-1)


def _windowed(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Weighted sums over the windows that lie wholly inside, along one axis."""
    windows = np.lib.stride_tricks.sliding_window_view(values, len(weights), axis)
    return windows @ weights


def _class_features() -> np.ndarray:
    """What `_features` are of each class: [classes, 5].

    cos(2 pi x / 4 + phase) - cos(2 pi (x + 1) / 4 + phase) has a mean square of 1 over a period,
    that is, stripes have an energy of wave^2; checks have as much along both axes.
    """
    energies = np.array(mosaic.WAVES, np.float64)
    return np.concatenate([np.array(mosaic.MEANS) / _MEAN, energies], axis=1)
