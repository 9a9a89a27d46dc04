"""Modes of mixtures and classes on sets of points whose coverage is known."""

import math

import numpy as np
import pytest

from tfgen import data
from tfgen.data import synthetic
from tfgen.metrics import mixtures


def test_the_mixtures_themselves() -> None:
    for name, modes in (("ring8", 8), ("grid25", 25)):
        batch = next(iter(data.load(name, needs=("point",)).batches("test", 5000)))
        found = mixtures.measures(batch["point"].numpy(), name)
        assert found["modes_covered"].value == modes
        assert found["modes_held"].value == modes
        # 5,000 Bernoulli draws of 1 - exp(-4.5) deviate by 0.0015.
        assert found["high_quality"].value == pytest.approx(1 - math.exp(-4.5), abs=0.006)
        # 2 N KL is chi-squared of modes - 1 degrees: here (modes - 1) / 10,000 in the mean.
        assert found["mode_reverse_kl"].value < 3 * (modes - 1) / 10_000
        assert found["high_quality"].error == pytest.approx(0.0015, rel=0.3)


def test_by_hand() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    points = np.array([[0.0, 2.9], [0.1, 0.0], [10.0, 3.1], [0.5, 9.0]])
    found = mixtures.of_points(points, centres, 1.0)
    # The third point is nearest to mode 1, but no closer than 3.1 sigma: mode 1 is not covered.
    assert found.modes == 2
    assert found.high_quality.tolist() == [True, True, False, True]
    # Histogram 1/2, 1/4, 1/4, 0 against uniform: log 4 less its entropy, 3/2 log 2.
    assert found.reverse_kl == pytest.approx(math.log(4) - 1.5 * math.log(2), abs=1e-12)


@pytest.mark.parametrize(("name", "side"), [("grid25", 5.0), ("ring8", 2.5)])
def test_noise_covers_modes_and_holds_none(name: str, side: float) -> None:
    noise = np.random.default_rng(0).uniform(-side, side, (10_000, 2))
    found = mixtures.measures(noise, name)
    assert found["modes_covered"].value == len(synthetic.centres(name))
    assert found["modes_held"].value == 0


def test_a_mode_is_held_by_a_fifth_of_its_share() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    for held, near in ((2, 10), (1, 9)):  # of 100 points, 50 of which would be an even share
        points = np.zeros((100, 2))
        points[:near, 0] = 10.0
        assert mixtures.of_points(points, centres, 1.0).held == held


def test_collapse_to_one_mode() -> None:
    points = np.tile(synthetic.centres("ring8")[3], (100, 1))
    found = mixtures.measures(points, "ring8")
    assert found["modes_covered"].value == 1
    assert found["high_quality"].value == 1.0
    assert found["mode_reverse_kl"].value == pytest.approx(math.log(8), abs=1e-12)


def test_labels() -> None:
    found = mixtures.of_labels(np.array([0, 0, 7, 999]), 1000)
    assert found.modes == 3
    assert found.reverse_kl == pytest.approx(math.log(1000) - 1.5 * math.log(2), abs=1e-12)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"finite, .N, 2.. Received: shape .1, 2., 1 numbers"):
        mixtures.measures(np.array([[0.0, np.nan]]), "ring8")
    with pytest.raises(ValueError, match="'ring8', 'grid25'.. Received: 'digits'"):
        mixtures.measures(np.zeros((1, 2)), "digits")
    with pytest.raises(ValueError, match="at least 1 sample. Received: 0"):
        mixtures.of_labels(np.zeros(0, int), 3)
