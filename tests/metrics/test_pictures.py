"""Grids of images."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from tfgen.metrics import pictures


def test_tile_places_images_with_white_gaps() -> None:
    grid = np.zeros((2, 3, 30, 40, 3), np.float32)
    grid[1, 2] = [1.0, 0.5, 2.0]  # beyond the range is clipped
    image = pictures.tile(grid, gap=2)
    assert image.shape == (2 * 30 + 2, 3 * 40 + 4, 3)
    assert image.dtype == np.uint8
    assert (image[30:32] == 255).all()
    assert (image[:30, :40] == 0).all()
    assert (image[32:, 84:] == [255, 128, 255]).all()


def test_small_images_are_enlarged_by_whole_factors() -> None:
    grid = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8, 1) / 255
    image = pictures.tile(grid)
    assert image.shape == (32, 32, 1)
    assert (image[::4, ::4, 0] == np.arange(64).reshape(8, 8)).all()
    assert (image[:4, 4:8] == 1).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip(tmp_path: pathlib.Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    pictures.save_png(tmp_path / "x.png", image)
    read = np.asarray(Image.open(tmp_path / "x.png"))
    assert (read.reshape(image.shape) == image).all()
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
