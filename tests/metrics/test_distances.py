"""Distances against closed forms, scipy.stats and optimal transport solved as a linear program."""

import math

import numpy as np
import pytest
from scipy import optimize, spatial, stats

from tfgen.metrics import distances


def _transport(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, p: int) -> float:
    """W_p by the linear program over all couplings."""
    costs = np.abs(x[:, None] - y[None, :]) ** p
    rows = np.kron(np.eye(len(x)), np.ones(len(y)))
    columns = np.kron(np.ones(len(x)), np.eye(len(y)))
    found = optimize.linprog(
        costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=np.concatenate([a, b])
    )
    return found.fun ** (1 / p)


def test_kl_and_js_by_hand() -> None:
    p, q = [0.5, 0.5, 0.0], [0.25, 0.5, 0.25]
    assert distances.kl(p, q) == pytest.approx(0.5 * math.log(2), abs=1e-12)
    assert distances.kl(q, p) == math.inf
    # m = (3/8, 1/2, 1/8)
    first = 0.5 * math.log(4 / 3)
    second = 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    assert distances.js(p, q) == pytest.approx((first + second) / 2, abs=1e-12)
    assert distances.kl(p, p) == 0.0


def test_kl_and_js_agree_with_scipy() -> None:
    p, q = np.random.default_rng(0).dirichlet(np.ones(20), size=2)
    assert distances.kl(p, q) == pytest.approx(stats.entropy(p, q), abs=1e-12)
    assert distances.js(p, q) == pytest.approx(spatial.distance.jensenshannon(p, q) ** 2, abs=1e-12)
    assert distances.js(p, q) == distances.js(q, p)
    table = p.reshape(4, 5)
    assert distances.kl(table, q.reshape(4, 5)) == pytest.approx(distances.kl(p, q), abs=1e-12)


@pytest.mark.parametrize("theta", [-3.0, 0.5, 2.0])
def test_parallel_lines(theta: float) -> None:
    # Lines at x = 0 and x = theta; the second coordinate is distributed alike and costs nothing.
    p, q = [1.0, 0.0], [0.0, 1.0]
    assert distances.kl(p, q) == distances.kl(q, p) == math.inf
    assert distances.js(p, q) == pytest.approx(math.log(2), abs=1e-15)
    assert distances.wasserstein_1([0.0], [theta]) == abs(theta)
    assert distances.wasserstein_2([0.0], [theta]) == abs(theta)


@pytest.mark.parametrize("seed", range(5))
def test_weighted_points_agree_with_scipy_and_transport(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=7), rng.normal(1.0, 2.0, size=4)
    y[0] = x[0]
    a, b = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(4))
    found = distances.wasserstein_1(x, y, a, b)
    assert found == pytest.approx(stats.wasserstein_distance(x, y, a, b), abs=1e-12)
    assert found == pytest.approx(_transport(x, y, a, b, 1), abs=1e-9)
    found = distances.wasserstein_2(x, y, 3 * a, b)  # weights need not sum to 1
    assert found == pytest.approx(_transport(x, y, a, b, 2), abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 20), (51, 20)])
def test_samples_agree_with_scipy(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=n), rng.exponential(size=m)
    expected = stats.wasserstein_distance(x, y)
    assert distances.wasserstein_1(x, y) == pytest.approx(expected, abs=1e-12)
    # In one dimension every direction is 1 or -1, so slicing changes nothing.
    assert distances.sliced_wasserstein(x[:, None], y[:, None], 3) == pytest.approx(
        expected, abs=1e-12
    )
    assert distances.sliced_wasserstein(x[:, None], y[:, None], 3, p=2) == pytest.approx(
        distances.wasserstein_2(x, y), abs=1e-12
    )


def test_gaussians_in_closed_form() -> None:
    # W_2^2 = (m1 - m2)^2 + (s1 - s2)^2; quantiles of 20,001 levels cut the tails off at 4 sigma,
    # whose part is below 1e-3.
    levels = (np.arange(20_001) + 0.5) / 20_001
    x, y = stats.norm.ppf(levels), 1.0 + 3.0 * stats.norm.ppf(levels)
    assert distances.wasserstein_2(x, y) == pytest.approx(math.sqrt(1 + 4), abs=1e-3)
    assert distances.wasserstein_1(x, x + 0.7) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_shift_has_closed_form(p: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 3, 2))
    shift = rng.normal(size=(3, 2))
    found = distances.sliced_wasserstein(x, rng.permutation(x + shift), 20_000, seed=5, p=p)
    # theta.v for theta uniform on the sphere of d = 6: E(theta.v)^2 = |v|^2 / d;
    # E|theta.v| = |v| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)).
    size = np.linalg.norm(shift)
    exact = {
        1: size * math.gamma(3) / (math.sqrt(math.pi) * math.gamma(3.5)),
        2: size / math.sqrt(6),
    }[p]
    # |theta.v| deviates by 0.25 |v|, so 20,000 directions leave 0.5 percent.
    assert found == pytest.approx(exact, rel=0.02)


def test_sliced_of_unequal_sizes() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(7, 4))
    directions = np.random.default_rng(9).normal(size=(4, 5))
    directions /= np.linalg.norm(directions, axis=0)
    each = [stats.wasserstein_distance(x @ d, y @ d) for d in directions.T]
    found = distances.sliced_wasserstein(x, y, 5, seed=9)
    assert found == pytest.approx(np.mean(each), abs=1e-12)
    doubled = distances.sliced_wasserstein(np.concatenate([x, x]), y, 5, seed=9)
    assert doubled == pytest.approx(found, abs=1e-12)
    assert distances.sliced_wasserstein(x, rng.permutation(x), 5) < 1e-15
    assert found != distances.sliced_wasserstein(x, y, 5, seed=8)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="same shape. Received: shapes .2,. and .3,."):
        distances.kl([0.5, 0.5], [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="q must be probabilities.*sum 1.5"):
        distances.js([0.5, 0.5], [0.5, 1.0])
    with pytest.raises(ValueError, match="y must be finite points"):
        distances.wasserstein_1([0.0], [math.nan])
    with pytest.raises(ValueError, match="weights of x must be 2 numbers"):
        distances.wasserstein_2([0.0, 1.0], [0.0], [1.0])
    with pytest.raises(ValueError, match="p must be 1 or 2.*p=3"):
        distances.sliced_wasserstein(np.zeros((2, 2)), np.zeros((2, 2)), p=3)
    with pytest.raises(ValueError, match="shapes .2, 3. and .2, 2."):
        distances.sliced_wasserstein(np.zeros((2, 3)), np.zeros((2, 2)))
