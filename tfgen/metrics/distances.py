"""Distances between distributions: KL, JS and Wasserstein, of discrete ones and of samples.

    KL(p || q) = sum_i p_i log(p_i / q_i)                          in nats
    JS(p, q)   = KL(p || m) / 2 + KL(q || m) / 2,  m = (p + q) / 2  in nats, from 0 to log 2
    W_r(P, Q)  = (integral_0^1 |F_P^-1(u) - F_Q^-1(u)|^r du)^(1/r)  on the line, in units of x
    SW_r(P, Q) = (E_theta W_r(theta.P, theta.Q)^r)^(1/r),  theta uniform on the unit sphere

For disjoint supports KL is infinite and JS is log 2, however far apart they lie; only W says how
far. So it is with parallel lines, P = (0, Z) and Q = (theta, Z): KL = inf, JS = log 2,
W_1 = |theta|.

References: M. Arjovsky, S. Chintala, L. Bottou. Wasserstein GAN. ICML 2017, section 2, example 1.
N. Bonneel et al. Sliced and Radon Wasserstein Barycenters of Measures. 2015, section 2.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

_ROWS = 4096  # Rows projected at once.


def kl(p: ArrayLike, q: ArrayLike) -> float:
    """KL(p || q) of discrete distributions, in nats.

    Args:
        p: probabilities, [K] or of any shape that sums to 1.
        q: probabilities, of the same shape.

    Returns:
        At least 0; inf where q has no mass and p has.

    Raises:
        ValueError: if the shapes differ, or one is no distribution.
    """
    first, second = _distributions(p, q)
    return float(special.rel_entr(first, second).sum())


def js(p: ArrayLike, q: ArrayLike) -> float:
    """JS(p, q) of discrete distributions, in nats, from 0 to log 2; arguments as for `kl`."""
    first, second = _distributions(p, q)
    middle = (first + second) / 2
    return float((special.rel_entr(first, middle) + special.rel_entr(second, middle)).sum() / 2)


def _distributions(p: ArrayLike, q: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"p and q must have the same shape. Received: shapes {first.shape} and {second.shape}"
        )
    for name, value in (("p", first), ("q", second)):
        # 1e-5 is room for the rounding of float32.
        if not (np.all(value >= 0) and abs(value.sum() - 1) < 1e-5):
            raise ValueError(
                f"{name} must be probabilities: not negative, of sum 1. "
                f"Received: smallest {value.min(initial=0.0)}, sum {value.sum()}"
            )
    return first, second


def wasserstein_1(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    """W_1 of two discrete distributions, or two samples, on the line, in units of x.

    Args:
        x: points [N], in any order.
        y: points [M].
        x_weights: their weights [N], of positive sum, to which they are divided; None: equal.
        y_weights: likewise [M].

    Raises:
        ValueError: if points are missing or not finite, or weights do not fit them.
    """
    return _wasserstein(x, y, x_weights, y_weights, 1)


def wasserstein_2(
    x: ArrayLike,
    y: ArrayLike,
    x_weights: ArrayLike | None = None,
    y_weights: ArrayLike | None = None,
) -> float:
    """W_2 of two discrete distributions, or two samples, on the line; as `wasserstein_1`."""
    return _wasserstein(x, y, x_weights, y_weights, 2)


def _wasserstein(
    x: ArrayLike, y: ArrayLike, x_weights: ArrayLike | None, y_weights: ArrayLike | None, p: int
) -> float:
    """Both quantile functions are steps; integrates between each two of their jumps."""
    x_points, x_ends = _steps("x", x, x_weights)
    y_points, y_ends = _steps("y", y, y_weights)
    ends = np.sort(np.concatenate([x_ends, y_ends]))
    widths = np.diff(ends, prepend=0.0)
    middles = ends - widths / 2
    at_x = np.minimum(np.searchsorted(x_ends, middles), len(x_points) - 1)
    at_y = np.minimum(np.searchsorted(y_ends, middles), len(y_points) - 1)
    gaps = np.abs(x_points[at_x] - y_points[at_y])
    return float((widths * gaps**p).sum() ** (1 / p))


def _steps(name: str, points: ArrayLike, weights: ArrayLike | None) -> tuple[np.ndarray, ...]:
    """Sorted points [N], and where the quantile function leaves each, up to 1."""
    values = np.asarray(points, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(
            f"{name} must be finite points [N], N at least 1. Received: shape {values.shape}"
        )
    mass = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if mass.shape != values.shape or not (mass >= 0).all() or not 0 < mass.sum() < np.inf:
        raise ValueError(
            f"the weights of {name} must be {len(values)} numbers, not negative, of positive sum. "
            f"Received: shape {mass.shape}, sum {mass.sum()}"
        )
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(mass[order])
    return values[order], ends / ends[-1]


def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, num_projections: int = 128, seed: int = 0, p: int = 1
) -> float:
    """SW_p of two samples, by random directions; for W_p of d dimensions it is a lower bound.

    For example images [10000, 28, 28, 1] are points of 784 dimensions; a shift of all of them by
    a vector v gives E |theta.v|, which is about |v| sqrt(2 / (pi 784)) for p = 1.

    Args:
        x: sample [N, ...], flattened to [N, D].
        y: sample [M, ...] of the same shape but for M.
        num_projections: number of directions.
        seed: int; the directions are a function of it.
        p: 1 or 2.

    Returns:
        In units of x; 0 for the same sample in any order.

    Raises:
        ValueError: if the samples do not fit together, or an argument is out of range.
    """
    first, second = np.asarray(x), np.asarray(y)
    if first.ndim < 2 or first.shape[1:] != second.shape[1:] or not (len(first) and len(second)):
        raise ValueError(
            "x and y must be samples [N, ...] and [M, ...] of the same shape but for N and M. "
            f"Received: shapes {first.shape} and {second.shape}"
        )
    if num_projections < 1 or p not in (1, 2):
        raise ValueError(
            "num_projections must be more than 0 and p must be 1 or 2. "
            f"Received: num_projections={num_projections}, p={p}"
        )
    directions = np.random.default_rng(seed).normal(size=(first[0].size, num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    slices, other = _slices(first, directions), _slices(second, directions)  # [N, P], [M, P]
    # Jumps of the quantile functions at i / N and j / M, as whole multiples of 1 / (N M).
    n, m = len(slices), len(other)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    gaps = np.abs(slices[(ends - 1) // m] - other[(ends - 1) // n])  # [N + M - 1 or less, P]
    return float((widths @ gaps**p).mean() ** (1 / p))


def _slices(sample: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Sorted projections of each direction: [N, ...], [D, P] -> float64 [N, P]."""
    rows = sample.reshape(len(sample), -1)
    parts = [
        rows[start : start + _ROWS].astype(np.float64) @ directions
        for start in range(0, len(rows), _ROWS)
    ]
    return np.sort(np.concatenate(parts), axis=0)
