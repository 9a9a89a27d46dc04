"""FID, KID, inception and MODE score against closed forms and plain definitions."""

import itertools

import numpy as np
import pytest
from scipy import linalg

from tfgen.metrics import fidelity


def _with_moments(mean: np.ndarray, covariance: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Samples [n, d] whose mean and covariance are exactly the given ones."""
    raw = np.random.default_rng(seed).normal(size=(n, len(mean)))
    raw -= raw.mean(axis=0)
    raw = np.linalg.solve(np.linalg.cholesky(np.cov(raw, rowvar=False)), raw.T).T
    return mean + raw @ np.linalg.cholesky(covariance).T


def _covariance(d: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(d, d))
    return root @ root.T + 0.1 * np.eye(d)


def test_fid_of_commuting_gaussians_by_hand() -> None:
    # Diagonal covariances: |m - m'|^2 + sum (s - s')^2.
    a = _with_moments(np.array([0.0, 1.0]), np.diag([1.0, 4.0]), 50, 0)
    b = _with_moments(np.array([3.0, 1.0]), np.diag([9.0, 0.25]), 70, 1)
    assert fidelity.fid(a, b) == pytest.approx(9 + 4 + 2.25, abs=1e-10)
    assert fidelity.fid(a, a) == pytest.approx(0, abs=1e-12)
    assert fidelity.fid(a, b) == pytest.approx(fidelity.fid(b, a), abs=1e-12)


def test_fid_agrees_with_matrix_root() -> None:
    c, other = _covariance(6, 2), _covariance(6, 3)
    mean = np.arange(6.0)
    root = linalg.sqrtm(c @ other)
    expected = (mean**2).sum() + np.trace(c + other - 2 * root.real)
    a, b = _with_moments(mean, c, 40, 4), _with_moments(np.zeros(6), other, 30, 5)
    assert fidelity.fid(a, b) == pytest.approx(expected, abs=1e-10)


def test_fid_of_features_that_never_move() -> None:
    # Units that are always 0 make both covariances singular.
    a = _with_moments(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 50, 0)
    a[:, 2] = 0.0
    b = a * [2.0, 1.0, 1.0]
    assert fidelity.fid(a, b) == pytest.approx(1.0, abs=1e-10)
    # A generator that makes one image: the distance is all variance, and the means'.
    assert fidelity.fid(a, np.ones((10, 3))) == pytest.approx(5 + 3, abs=1e-10)


def test_fid_warns_of_few_samples_with_both_numbers(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    fidelity.fid(rng.normal(size=(100, 8)), rng.normal(size=(9, 8)))
    assert not caplog.records
    fidelity.fid(rng.normal(size=(100, 8)), rng.normal(size=(8, 8)))
    assert "FID of 8 generated samples with 8 features" in caplog.text


def test_kid_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(0.5, size=(6, 3))

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 3 + 1) ** 3

    pairs = list(itertools.permutations(range(6), 2))
    expected = np.mean([k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs])
    expected -= 2 * np.mean([k(a, b) for a in x for b in y])
    # Every subset is the whole sample, because there are but 6.
    assert fidelity.kid(x, y, subsets=3) == pytest.approx((expected, 0.0), abs=1e-12)


def test_kid_in_closed_form() -> None:
    # x ~ N(0, I), y ~ N(v, I), v = (1, 1), d = 2; t = a.b / 2, E (t + 1)^3 from t's moments:
    # x and x': mean 0, variance 1/2, skew 0. x and y: mean 0, variance 1/2 + |v|^2 / 4 = 1, skew 0.
    # y and y': t + 1 has mean 2, variance 1/2 + |v|^2 / 2 = 3/2, third moment 6 |v|^2 / 8 = 3/2.
    exact = (1 + 3 / 2) + (8 + 3 * 2 * 3 / 2 + 3 / 2) - 2 * (1 + 3)
    values = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2)) + 1
        values.append(fidelity.kid(x, y, subsets=3, subset_size=500, seed=seed)[0])
    # One value deviates by 1.1, tried over 60 seeds; the mean of five by 0.5.
    assert np.mean(values) == pytest.approx(exact, abs=1.5)
    # Of one distribution: 0 in expectation, and by such trials 0.02 off.
    assert abs(fidelity.kid(x, y - 1, subsets=3, subset_size=500)[0]) < 0.08


def test_kid_is_a_function_of_its_seed() -> None:
    x, y = np.random.default_rng(4).normal(size=(2, 50, 3))
    first = fidelity.kid(x, y, subsets=4, subset_size=10, seed=1)
    assert first == fidelity.kid(x, y, subsets=4, subset_size=10, seed=1)
    assert first != fidelity.kid(x, y, subsets=4, subset_size=10, seed=2)


def test_inception_score_of_extremes() -> None:
    certain = np.tile(np.where(np.eye(4), 0, -np.inf), (25, 1))  # log of probabilities 1 and 0
    assert fidelity.inception_score(certain, 5) == pytest.approx((4.0, 0.0), abs=1e-12)
    assert fidelity.inception_score(np.zeros((100, 4))) == pytest.approx((1.0, 0.0), abs=1e-12)
    one_class = np.tile(certain[:1], (10, 1))
    assert fidelity.inception_score(one_class, 1)[0] == pytest.approx(1.0, abs=1e-12)


def test_inception_score_by_hand() -> None:
    logits = np.log([[0.9, 0.1], [0.1, 0.9]])
    # Marginal (1/2, 1/2); KL of each row is log 2 - H(0.1).
    expected = 2 * 0.9**0.9 * 0.1**0.1
    assert fidelity.inception_score(logits + 7.0, 1)[0] == pytest.approx(expected, abs=1e-12)
    assert fidelity.inception_score(logits, 2) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_mode_score_is_the_inception_score_whatever_the_labels() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(40, 5)) * 3
    expected = fidelity.inception_score(logits, 1)[0]
    for seed in range(3):
        labels = np.random.default_rng(seed).dirichlet(np.ones(5))
        assert fidelity.mode_score(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_bad_arguments_are_named() -> None:
    ok = np.zeros((4, 2))
    with pytest.raises(ValueError, match="same d. Received: shapes .4, 2. and .4, 3."):
        fidelity.fid(ok, np.zeros((4, 3)))
    with pytest.raises(ValueError, match="fake must be at least 2 samples. Received: 1"):
        fidelity.kid(ok, ok[:1])
    with pytest.raises(ValueError, match="fake features must be finite. Received: 1 samples"):
        fidelity.fid(ok, np.array([[0.0, np.nan], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="from 1 to the number of logits, 4. Received: 10"):
        fidelity.inception_score(ok)
    with pytest.raises(ValueError, match="without NaN"):
        fidelity.inception_score(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="labels must be 2 frequencies above 0.*smallest 0.0"):
        fidelity.mode_score(ok, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="subset_size=1"):
        fidelity.kid(ok, ok, subset_size=1)
