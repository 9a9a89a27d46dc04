"""Pictures that several claims share."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tools.claims._base import Outcome, Outcomes


def newest(outcome: Outcome, name: str = "samples") -> Any:
    """The last sample grid of a run, as an image."""
    from PIL import Image

    return Image.open(sorted((outcome.path / "samples").glob(f"{name}-*.png"))[-1])


def show(axis: Any, image: Any, title: str) -> None:
    """An image without axes."""
    axis.imshow(image, cmap="gray")
    axis.set_title(title)
    axis.axis("off")


def samples(outcomes: Sequence[Outcome], path: pathlib.Path, name: str = "samples") -> None:
    """The last sample grids of some runs side by side, titled by their names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    images = [newest(outcome, name) for outcome in outcomes]
    figure, axes = plt.subplots(1, len(images), figsize=(4 * len(images), 4.2), squeeze=False)
    for axis, image, outcome in zip(axes[0], images, outcomes, strict=True):
        show(axis, image, outcome.name)
    figure.tight_layout()
    figure.savefig(path, dpi=70, bbox_inches="tight")
    plt.close(figure)


def grids(
    parts: Mapping[str, Sequence[str]], name: str = "samples"
) -> dict[str, Callable[[Outcomes, pathlib.Path], None]]:
    """A module's PICTURES: for each part the last sample grids of its rows, side by side."""

    def of(rows: Sequence[str]) -> Callable[[Outcomes, pathlib.Path], None]:
        return lambda outcomes, path: samples(*outcomes.groups(rows), path, name)

    return {part: of(rows) for part, rows in parts.items()}
