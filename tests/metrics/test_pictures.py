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


def test_animation_has_all_frames_in_order(tmp_path) -> None:
    arrays = [np.full((8, 8, 1), grey, np.uint8) for grey in (0, 120, 255)]
    for index, array in enumerate(arrays):
        pictures.save_png(tmp_path / f"{index}.png", array)
    pictures.animate(sorted(tmp_path.glob("*.png")), tmp_path / "a.gif")
    pictures.animate(arrays, tmp_path / "b.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3
        shades = []
        for frame in range(3):
            gif.seek(frame)
            shades.append(gif.convert("L").getpixel((0, 0)))
    assert shades == [0, 120, 255]


def test_curves_have_a_panel_for_each_quantity(tmp_path) -> None:
    pictures.curves([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    rows = [{"step": s, "epoch": s / 2, "a": s, "b": 1.0, "validation_a": 2.0} for s in (1, 2)]
    pictures.curves(rows, tmp_path / "two.png")
    pictures.curves([{"step": 1, "a": 1.0}], tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.width == 2 * one.width
        assert two.height == one.height


def test_a_long_animation_is_thinned_and_opens_one_file_at_a_time(tmp_path) -> None:
    import resource

    paths = []
    for index in range(450):
        paths.append(tmp_path / f"{index:03d}.png")
        pictures.save_png(paths[-1], np.full((2, 2, 1), index // 2, np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, in_use + 20), hard))
    try:
        pictures.animate(paths, tmp_path / "a.gif")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames <= 200
        assert gif.convert("L").getpixel((0, 0)) == 0
        gif.seek(gif.n_frames - 1)
        assert gif.convert("L").getpixel((0, 0)) == 224
