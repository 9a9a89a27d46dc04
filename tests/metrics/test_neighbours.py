"""Precision, recall, density and coverage against their definitions, in blocks and by hand."""

import numpy as np
import pytest
from scipy.spatial import distance

from tfgen.metrics import neighbours


def _plain(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[tuple, tuple]:
    """Both pairs of numbers from whole distance matrices."""
    across = distance.cdist(real, fake)
    real_radii = np.sort(distance.cdist(real, real), axis=1)[:, k]
    fake_radii = np.sort(distance.cdist(fake, fake), axis=1)[:, k]
    inside = across <= real_radii[:, None]
    strictly = across < real_radii[:, None]
    return (
        (inside.any(axis=0).mean(), (across <= fake_radii).any(axis=1).mean()),
        (strictly.sum() / (k * len(fake)), strictly.any(axis=1).mean()),
    )


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 3), (150, 210, 5), (210, 150, 1)])
def test_agrees_with_definitions(n: int, m: int, k: int) -> None:
    rng = np.random.default_rng(n + k)
    real, fake = rng.normal(size=(n, 4)), rng.normal(0.7, size=(m, 4)).astype(np.float32)
    pair, other = _plain(real, fake, k)
    assert neighbours.precision_recall(real, fake, k) == pytest.approx(pair, abs=1e-12)
    assert neighbours.density_coverage(real, fake, k) == pytest.approx(other, abs=1e-12)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    real, fake = rng.normal(size=(400, 3)), rng.normal(0.5, size=(300, 3))
    whole = neighbours.precision_recall(real, fake), neighbours.density_coverage(real, fake)
    monkeypatch.setattr(neighbours, "_BLOCK_MIB", 0.01)  # 4 rows or less
    assert neighbours.precision_recall(real, fake) == whole[0]
    assert neighbours.density_coverage(real, fake) == whole[1]


def test_on_a_line_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0]])  # radii for k = 1: 1, 1, 2
    fake = np.array([[5.0], [-1.0], [9.0]])  # radii for k = 1: 4, 6, 4
    # 5 lies at 3's very border, -1 at 0's; 9 in nobody's. 0, 1, 3 are all within 6 of -1.
    assert neighbours.precision_recall(real, fake, 1) == pytest.approx((2 / 3, 1.0))
    # At a border is not inside, for the strict pair.
    assert neighbours.density_coverage(real, fake, 1) == (0.0, 0.0)
    assert neighbours.density_coverage(real, np.array([[0.5], [0.6]]), 1) == (2.0, 2 / 3)


def test_extremes() -> None:
    real = np.random.default_rng(8).normal(size=(300, 5))
    assert neighbours.precision_recall(real, real.copy()) == (1.0, 1.0)
    assert neighbours.precision_recall(real, real + 100) == (0.0, 0.0)
    assert neighbours.density_coverage(real, real + 100) == (0.0, 0.0)
    collapsed = np.tile(real.mean(axis=0), (300, 1))
    precision, recall = neighbours.precision_recall(real, collapsed)
    assert (precision, recall) == (1.0, 0.0)
    density, coverage = neighbours.density_coverage(real, collapsed)
    assert density > 1  # in the middle of everybody's neighbourhoods
    assert coverage < 0.5
    density, coverage = neighbours.density_coverage(
        real, np.random.default_rng(9).normal(size=(300, 5))
    )
    # The same distribution has density 1 and coverage 1 - 1/2^k in expectation; 300 samples
    # leave errors of about 0.05 and 0.02.
    assert density == pytest.approx(1.0, abs=0.15)
    assert coverage == pytest.approx(1 - 0.5**5, abs=0.06)


def test_bad_arguments_are_named() -> None:
    few = np.zeros((3, 2))
    with pytest.raises(ValueError, match="real must be at least 4 samples. Received: 3"):
        neighbours.precision_recall(few, few)
    with pytest.raises(ValueError, match="k must be more than 0. Received: k=0"):
        neighbours.density_coverage(few, few, 0)
