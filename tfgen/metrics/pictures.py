"""Grids of images as PNG files, their change over a training, and curves of what was logged."""

import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tfgen import run

_MAX_FRAMES = 200  # Of a GIF.


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
    buffer = io.BytesIO()
    _image(image).save(buffer, "PNG")
    with run.atomic(path) as file:
        file.write(buffer.getvalue())


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _palette(frame: pathlib.Path | np.ndarray) -> Image.Image:
    with _image(frame) if isinstance(frame, np.ndarray) else Image.open(frame) as image:
        return image.convert("P", palette=Image.Palette.ADAPTIVE)


def animate(
    frames: Sequence[pathlib.Path | np.ndarray], path: pathlib.Path, seconds: float = 8.0
) -> None:
    """Writes an animated GIF of images of equal size, whole or not at all.

    Args:
        frames: at least one, in order: PNG files, or uint8 [H, W, 1 or 3] each. Of more than 200
            some are left out, evenly.
        path: of the GIF.
        seconds: of one round; a frame stays for 0.1 s at least.
    """
    some = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _MAX_FRAMES)).round())
    images = [_palette(frames[int(index)]) for index in some]
    buffer = io.BytesIO()
    duration = max(100, round(1000 * seconds / len(images)))  # milliseconds
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0
    )
    with run.atomic(path) as file:
        file.write(buffer.getvalue())


def curves(rows: Iterable[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Plots every logged quantity over the steps, training and validation in one panel.

    Args:
        rows: lines of metrics.jsonl, {"step": n, "<name>": value, "validation_<name>": value}.
        path: of the PNG; not written without any quantity.
    """
    import matplotlib.figure

    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "epoch"):
                kind = "validation" if name.startswith("validation_") else "train"
                panel = series.setdefault(name.removeprefix("validation_"), {})
                panel.setdefault(kind, []).append((row["step"], value))
    if not series:
        return
    columns = min(3, len(series))
    lines = -(-len(series) // columns)
    figure = matplotlib.figure.Figure(figsize=(4 * columns, 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    for axis, (name, kinds) in zip(axes, series.items(), strict=False):
        for kind, points in kinds.items():
            axis.plot(*zip(*points, strict=True), label=kind)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        if len(kinds) > 1:
            axis.legend(fontsize=8)
    for axis in list(figure.axes)[len(series) :]:
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    with run.atomic(path) as file:
        file.write(buffer.getvalue())
