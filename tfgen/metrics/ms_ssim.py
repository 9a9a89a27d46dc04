"""Multi-scale structural similarity: how much alike two images are, and how diverse a set is.

    MS-SSIM(x, y) = SSIM_L(x, y)^w_L prod_{s<L} CS_s(x, y)^w_s,  w = (0.0448, 0.2856, 0.3001,
                    0.2363, 0.1333),  each scale half as large as the one before

from 0 (negative terms count as 0) to 1 for equal images. Its mean over random pairs of generated
images falls as these get more diverse; a set whose mean is above the real images' has collapsed.

The five scales and the window of 11 pixels need sides of 176 or more. Smaller images get as many
scales as have a window's room, with the first weights divided by their sum, and below 11 pixels
one scale with the largest odd window that fits: 28x28 has 2 scales, 8x8 one with a window of 7.

References: Z. Wang, E. Simoncelli, A. Bovik. Multi-scale structural similarity for image quality
assessment. 2003, eq. 7. A. Odena, C. Olah, J. Shlens. Conditional Image Synthesis with Auxiliary
Classifier GANs. ICML 2017, section 4.2 (as a measure of diversity).
"""

import numpy as np
import tensorflow as tf

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW = 11
_BATCH = 100  # Pairs compared at once.


def scales(height: int, width: int) -> tuple[tuple[float, ...], int]:
    """Weights of the scales that fit, of sum 1, and the side of the window.

    For example 28x28: 28 and 14 pixels, ((0.136, 0.864), 11); 8x8: ((1.0,), 7).
    """
    side = min(height, width)
    count = 1
    while count < len(_WEIGHTS) and side >> count >= _WINDOW:
        count += 1
    weights = _WEIGHTS[:count]
    window = min(_WINDOW, side if side % 2 else side - 1)
    return tuple(w / sum(weights) for w in weights), window


def of_pairs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """MS-SSIM of each pair of images.

    Args:
        x: [N, H, W, C], sides at least 2: uint8 0..255, or float in [0, 1].
        y: of the same shape and kind.

    Returns:
        float64 [N] in [0, 1].

    Raises:
        ValueError: if the shapes differ or are no images'.
    """
    if x.shape != y.shape or x.ndim != 4 or min(x.shape[1:3]) < 2:
        raise ValueError(
            "images must be [N, H, W, C] of one shape, with sides of at least 2. "
            f"Received: shapes {x.shape} and {y.shape}"
        )
    weights, window = scales(*x.shape[1:3])
    values = [
        tf.image.ssim_multiscale(
            _unit(x[start : start + _BATCH]),
            _unit(y[start : start + _BATCH]),
            max_val=1.0,
            power_factors=weights,
            filter_size=window,
        ).numpy()
        for start in range(0, len(x), _BATCH)
    ]
    return np.concatenate(values).astype(np.float64)


def _unit(images: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1], which is what the constants of SSIM are for."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 255.0
    return images.astype(np.float32)


def of_random_pairs(images: np.ndarray, num_pairs: int, seed: int) -> np.ndarray:
    """MS-SSIM of random pairs that share no image, so that their values are independent.

    Args:
        images: [N, H, W, C], N at least 2: uint8 0..255, or float in [0, 1].
        num_pairs: number of pairs; at most N // 2 are taken.
        seed: int; the pairs are a function of it.

    Returns:
        float64 [min(num_pairs, N // 2)] in [0, 1].

    Raises:
        ValueError: if there is no pair.
    """
    count = min(num_pairs, len(images) // 2)
    if count < 1:
        raise ValueError(
            "pairs need at least 2 images and num_pairs at least 1. "
            f"Received: {len(images)} images, num_pairs={num_pairs}"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    return of_pairs(images[order[:count]], images[order[count : 2 * count]])
