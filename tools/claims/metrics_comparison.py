"""How long the statistics of 10,000 against 10,000 images take after their features are there."""

import os
import pathlib
import time
from collections.abc import Callable

import numpy as np

from tfgen.metrics import comparison
from tfgen.metrics.measure import Measure
from tools.claims._base import Claim, Outcomes, Toy
from tools.claims._common import text

IMAGES, FEATURES = 10_000, 128
STATISTICS = (
    "fid", "kid", "precision_recall", "density_coverage", "inception_score", "class_coverage",
    "sliced_wasserstein", "ms_ssim",
)  # fmt: skip


def rows(budget: str) -> list[Toy]:
    """One row; its images and features are made up."""
    del budget  # there is one
    return [Toy("statistics", seconds_of_statistics, {"images": IMAGES, "features": FEATURES})]


def statistics_are_fast(outcomes: Outcomes) -> Claim:
    """All statistics of 10,000 against 10,000 images of 28x28 in under a minute on 2 cores."""
    row = outcomes["statistics"]
    each = [row.value(f"seconds_{name}") for name in STATISTICS]
    cores = row.value("cores")
    return Claim(
        f"all statistics of {IMAGES:,} against {IMAGES:,} images of 28x28 with {FEATURES} "
        "features, after feature extraction, in under a minute on 2 cores: seconds in all "
        f"({', '.join(STATISTICS)})",
        "",
        f"{sum(each):.3g} ({text(each, '.2g')}) on {cores:g} cores",
        "60",
        "s",
        sum(each) < 60 and cores <= 2,
    )


CLAIMS = (statistics_are_fast,)


def picture(outcomes: Outcomes, path: pathlib.Path) -> None:
    """Seconds of each statistic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    row = outcomes["statistics"]
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.barh(STATISTICS, [row.value(f"seconds_{name}") for name in STATISTICS])
    axis.invert_yaxis()
    axis.set(xlabel="seconds", title=f"{IMAGES:,} against {IMAGES:,} images")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


PICTURES = {"": picture}


def seconds_of_statistics(images: int, features: int, seed: int) -> dict[str, Measure]:
    """Seconds of each statistic of random images, features and logits, and the cores at hand."""
    random = np.random.default_rng(seed)

    def side() -> comparison.Side:
        return comparison.Side(
            count=images,
            images=random.integers(0, 256, (images, 28, 28, 1), np.uint8),
            features=random.normal(size=(images, features)).astype(np.float32),
            logits=random.normal(size=(images, 10)).astype(np.float32),
            labels=random.integers(0, 10, images),
        )

    both = comparison.Comparison(side(), side(), "made_up", "", seed, False, 10)
    timed = {f"seconds_{name}": _seconds(getattr(both, name)) for name in STATISTICS}
    note = "that this process may use"
    return {**timed, "cores": Measure(len(os.sched_getaffinity(0)), None, "cores", note)}


def _seconds(statistic: Callable[[], object]) -> Measure:
    start = time.perf_counter()
    statistic()
    return Measure(time.perf_counter() - start, None, "s", "wall-clock time of one call")
