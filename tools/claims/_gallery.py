"""Pictures that several claims share."""

import pathlib
from collections.abc import Sequence

from tools.reproduce import Outcome


def samples(outcomes: Sequence[Outcome], path: pathlib.Path, name: str = "samples") -> None:
    """The last sample grids of some runs side by side, titled by their names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, len(outcomes), figsize=(4 * len(outcomes), 4.2), squeeze=False)
    for axis, outcome in zip(axes[0], outcomes, strict=True):
        newest = sorted((outcome.path / "samples").glob(f"{name}-*.png"))[-1]
        axis.imshow(Image.open(newest), cmap="gray")
        axis.set_title(outcome.run.name)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
