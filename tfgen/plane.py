"""Pictures of points in the plane, drawn into an array."""

from collections.abc import Callable

import numpy as np

BANDS = 12  # of the score, equally many pixels in each
CHUNK = 8192  # points that are scored at a time
SAMPLE, DATA = (0.85, 0.1, 0.1), (0.1, 0.35, 0.8)


def draw(
    samples: np.ndarray,
    data: np.ndarray,
    score: Callable[[np.ndarray], np.ndarray] | None = None,
    side: int = 320,
) -> np.ndarray:
    """Samples in red over data in blue, on level sets of a score (the higher, the lighter).

    Args:
        samples: [N, 2].
        data: [M, 2]; the picture spans 1.3 times its largest coordinate.
        score: maps float32 [n, 2] to [n], each point by itself, e.g. a discriminator's logits.
        side: of the picture, in pixels.

    Returns:
        float32 [side, side, 3] in [0, 1]; the second coordinate points up.
    """
    reach = 1.3 * float(np.abs(data).max())
    picture = np.ones((side, side, 3), np.float32)
    if score is not None:
        axis = np.linspace(-reach, reach, side, dtype=np.float32)
        grid = np.stack(np.meshgrid(axis, -axis), axis=-1).reshape(-1, 2)  # row 0 is the top
        parts = (grid[start : start + CHUNK] for start in range(0, len(grid), CHUNK))
        values = np.concatenate([np.asarray(score(part), np.float64) for part in parts])
        values = values.reshape(side, side)
        edges = np.quantile(values, np.linspace(0, 1, BANDS + 1)[1:-1])
        bands = np.searchsorted(edges, values)
        picture[:] = 0.7 + 0.3 * bands[..., None] / (BANDS - 1)
        border = (bands[:-1, :-1] != bands[1:, :-1]) | (bands[:-1, :-1] != bands[:-1, 1:])
        picture[:-1, :-1][border] = 0.55
    for points, colour in ((data, DATA), (samples, SAMPLE)):
        rows, columns = _pixels(points, reach, side)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                inside = (0 <= rows + down) & (rows + down < side)
                inside &= (0 <= columns + right) & (columns + right < side)
                picture[rows[inside] + down, columns[inside] + right] = colour
    return picture


def _pixels(points: np.ndarray, reach: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    scaled = np.clip((np.asarray(points, np.float64) / reach + 1.0) / 2.0, -1.0, 2.0)
    columns = np.round(scaled[:, 0] * (side - 1)).astype(int)
    rows = np.round((1.0 - scaled[:, 1]) * (side - 1)).astype(int)
    return rows, columns
