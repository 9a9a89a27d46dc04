"""Modes that samples cover: of Gaussian mixtures in the plane, and of classes.

Each sample belongs to its nearest centre, and is of high quality within 3 standard deviations of
it. A mode is covered if at least one sample of high quality belongs to it, as is usual: of 10,000
points spread evenly over the plane some lie in every mode. It is held if there are as many as a
fifth of what it would have of samples of the mixture itself. The histogram of all
samples' nearest modes gives KL(generated || uniform) in nats, from 0 to the log of the number of
modes. Samples of the mixture itself are of high quality with probability 1 - exp(-9/2) = 0.9889.

References: A. Srivastava et al. VEEGAN. NeurIPS 2017, section 4.1 (modes, high quality). Z. Lin et
al. PacGAN. NeurIPS 2018, section 4.1 (reverse KL).
"""

import dataclasses
import math

import numpy as np

from tfgen.data import synthetic
from tfgen.metrics import distances
from tfgen.metrics.measure import Measure

REACH = 3.0  # Standard deviations within which a sample is of high quality.
HELD = 0.2  # Part of an even share of all samples that is of high quality in a mode that is held.


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Which modes samples cover.

    Attributes:
        modes: number of modes covered.
        held: number of modes held.
        reverse_kl: KL(histogram of modes || uniform), in nats.
        high_quality: whether each sample is, bool [N]; all are for classes.
    """

    modes: int
    held: int
    reverse_kl: float
    high_quality: np.ndarray


def of_points(points: np.ndarray, centres: np.ndarray, deviation: float) -> Coverage:
    """Coverage of a mixture of Gaussians with equal weights.

    Args:
        points: [N, 2].
        centres: means [K, 2].
        deviation: of each Gaussian in each direction.

    Raises:
        ValueError: if the points are not finite, none, or not in the plane.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1:] != centres.shape[1:] or not np.isfinite(points).all():
        raise ValueError(
            f"points must be finite, [N, {centres.shape[1]}]. Received: shape {points.shape}, "
            f"{int((~np.isfinite(points)).sum())} numbers not finite"
        )
    squares = ((points[:, np.newaxis] - centres) ** 2).sum(axis=2)  # [N, K]
    good = squares.min(axis=1) <= (REACH * deviation) ** 2
    return _coverage(squares.argmin(axis=1), good, len(centres))


def of_labels(labels: np.ndarray, num_classes: int) -> Coverage:
    """Coverage of classes: one is covered if a sample has it.

    Args:
        labels: class of each sample, int [N], 0..num_classes-1.
        num_classes: number of classes, e.g. 1000 for stacked digits.
    """
    return _coverage(np.asarray(labels), np.ones(len(labels), bool), num_classes)


def _coverage(modes: np.ndarray, good: np.ndarray, num_modes: int) -> Coverage:
    if not len(modes):
        raise ValueError("coverage needs at least 1 sample. Received: 0")
    counts = np.bincount(modes, minlength=num_modes)
    uniform = np.full(num_modes, 1 / num_modes)
    of_quality = np.bincount(modes[good], minlength=num_modes)
    return Coverage(
        modes=int((of_quality > 0).sum()),
        held=int((of_quality >= HELD * len(modes) / num_modes).sum()),
        reverse_kl=distances.kl(counts / counts.sum(), uniform),
        high_quality=good,
    )


def measures(points: np.ndarray, name: str) -> dict[str, Measure]:
    """Modes, share of high quality and reverse KL of points [N, 2] on a mixture by its name.

    Raises:
        ValueError: if there is no such mixture, or the points are not finite or none.
    """
    if name not in synthetic.MIXTURES:
        raise ValueError(f"mixture must be one of {list(synthetic.MIXTURES)}. Received: {name!r}")
    centres = synthetic.centres(name)
    found = of_points(points, centres, synthetic.deviation(name))
    return {
        "modes_covered": Measure(
            found.modes, None, "modes", f"of {len(centres)}, {len(points)} samples"
        ),
        "modes_held": Measure(
            found.held, None, "modes", f"with over {HELD:g} of their share within 3 sigma"
        ),
        "high_quality": Measure.mean(
            found.high_quality, "share", f"within 3 sigma; of the data {1 - math.exp(-4.5):.4f}"
        ),
        "mode_reverse_kl": Measure(found.reverse_kl, None, "nats", "KL(modes || uniform)"),
    }
