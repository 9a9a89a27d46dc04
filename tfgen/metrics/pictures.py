"""Grids of images as PNG files."""

import io
import pathlib

import numpy as np
from PIL import Image

from tfgen import run


def tile(grid: np.ndarray, gap: int = 2, smallest_side: int = 28) -> np.ndarray:
    """One image from a grid of them.

    Args:
        grid: [rows, columns, H, W, C] with C 1 or 3, values in [0, 1] (clipped).
        gap: white pixels between two images.
        smallest_side: images below it are enlarged by whole factors, so that they can be seen.

    Returns:
        uint8 [height, width, C].
    """
    rows, columns, height, width, channels = grid.shape
    factor = -(-smallest_side // min(height, width)) if min(height, width) < smallest_side else 1
    grid = np.repeat(np.repeat(grid, factor, axis=2), factor, axis=3)
    height, width = height * factor, width * factor
    out = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, channels))
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            out[top : top + height, left : left + width] = grid[row, column]
    return np.round(255 * np.clip(out, 0, 1)).astype(np.uint8)


def save_png(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 1 or 3] whole or not at all."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    with run.atomic(path) as file:
        file.write(buffer.getvalue())
