"""The lecture's distances against closed forms and scipy, and the parallel lines."""

import pathlib
from collections.abc import Mapping

import numpy as np
from scipy import optimize, spatial, special, stats

from tfgen.metrics import distances
from tfgen.metrics.measure import Measure
from tools.claims._base import Claim, Outcomes, Toy
from tools.claims._common import SEEDS, text, values

STEPS = 20  # of theta from -1 to 1
CELLS = 50  # of Z on each line


def rows(budget: str) -> list[Toy]:
    """The lines, and seeded inputs for each of the distances."""
    del budget  # there is one
    toys = (of_probabilities, of_points, of_images)
    return [Toy("lines", of_lines)] + [
        Toy(f"{toy.__name__}_seed{seed}", toy, {}, seed) for toy in toys for seed in SEEDS
    ]


def parallel_lines(outcomes: Outcomes) -> Claim:
    """Parallel lines: KL = inf, JS = log 2, W_1 = |theta|."""
    lines = outcomes["lines"]
    infinite, js_error, w_error = map(lines.value, ("kl_infinite", "js_error", "w1_error"))
    at_0 = lines.value("kl_at_0")
    return Claim(
        "parallel lines: KL = inf, JS = log 2 and W_1 = |theta| for theta other than 0, all 0 at "
        "0: share of thetas with KL = inf, KL at 0, largest errors of JS and of W_1",
        "Arjovsky et al. 2017, example 1",
        f"{infinite:g}, {at_0:g}, {js_error:.0e}, {w_error:.0e}",
        "1, 0, 1e-12, 1e-12",
        "share, nats, nats, length",
        infinite == 1 and at_0 == 0 and max(js_error, w_error) < 1e-12,
    )


def _agrees(outcomes: Outcomes, rows_of: str, claim: str, bounds: Mapping[str, float]) -> Claim:
    """A claim that some errors are below their bounds on each seed."""
    (toys,) = outcomes.by_seed(rows_of, seeds=SEEDS)
    errors = {measure: values(toys, measure) for measure in bounds}
    return Claim(
        claim,
        "",
        "; ".join(text(found, ".0e") for found in errors.values()),
        "; ".join(f"{bound:g}" for bound in bounds.values()),
        "relative error",
        all(max(errors[measure]) < bound for measure, bound in bounds.items()),
    )


def kl_and_js(outcomes: Outcomes) -> Claim:
    """KL and JS of probabilities against scipy, KL of binomials against its closed form."""
    return _agrees(
        outcomes,
        "of_probabilities",
        "KL and JS of random probabilities against scipy's; KL of two binomials against "
        "n KL(p || q)",
        {"kl_error": 1e-12, "js_error": 1e-12, "kl_binomial_error": 1e-12},
    )


def wasserstein(outcomes: Outcomes) -> Claim:
    """W_1 and W_2 of points against scipy, W_2 of Gaussians against its closed form."""
    return _agrees(
        outcomes,
        "of_points",
        "W_1 of weighted points against scipy's; W_2 of points against scipy's best assignment; "
        "W_2 of the quantiles of two Gaussians against its closed form",
        {"w1_error": 1e-12, "w2_error": 1e-12, "w2_gaussian_error": 1e-3},
    )


def sliced(outcomes: Outcomes) -> Claim:
    """Sliced W_1 and W_2 of shifted images against their closed forms."""
    return _agrees(
        outcomes,
        "of_images",
        "sliced W_1 and W_2 of images and the same ones shifted by v, 4096 directions, against "
        "|v| Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2)) and |v| / sqrt(d)",
        {"sw1_error": 0.05, "sw2_error": 0.05},  # 1.2% and 1.1% are standard errors
    )


CLAIMS = (parallel_lines, kl_and_js, wasserstein, sliced)


def picture(outcomes: Outcomes, path: pathlib.Path) -> None:
    """KL, JS and W_1 of the two lines against theta."""
    del outcomes  # by numbers
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    thetas, found = distances_of_lines()
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True)
    apart = np.isinf(found["kl"])
    axes[0].plot(thetas, np.where(apart, 1.0, found["kl"]), "o")
    axes[0].set_yticks((0, 1), ("0", "inf"))
    axes[1].plot(thetas, found["js"], "o")
    axes[1].axhline(np.log(2), color="grey", linestyle=":", label="log 2")
    axes[1].legend(loc="center right")
    axes[2].plot(thetas, found["w1"], "o-")
    for axis, title in zip(axes, ("KL (nats)", "JS (nats)", "$W_1$"), strict=True):
        axis.set(title=title, xlabel="theta", ylim=(-0.05, 1.05))
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


PICTURES = {"": picture}


# The lines {0} x [0, 1] and {theta} x [0, 1].


def distances_of_lines() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The thetas, and KL, JS and W_1 at each.

    KL and JS are of the masses that points, evenly on both lines, have on cells of the plane. W_1
    is of their first coordinates: the second have one distribution, so nothing moves along them.
    """
    thetas = np.linspace(-1.0, 1.0, STEPS + 1)
    z = (np.arange(CELLS) + 0.5) / CELLS
    width = thetas[1] - thetas[0]
    edges = np.append(thetas - width / 2, thetas[-1] + width / 2), np.linspace(0, 1, CELLS + 1)
    found: dict[str, list[float]] = {name: [] for name in ("kl", "js", "w1")}
    for theta in thetas:
        first, second = np.zeros(CELLS), np.full(CELLS, theta)
        p, q = (np.histogram2d(x, z, edges)[0] / CELLS for x in (first, second))
        found["kl"].append(distances.kl(p, q))
        found["js"].append(distances.js(p, q))
        found["w1"].append(distances.wasserstein_1(first, second))
    return thetas, {name: np.array(numbers) for name, numbers in found.items()}


def of_lines(seed: int) -> dict[str, Measure]:
    """KL, JS and W_1 of the lines against what the lecture says, W_1 by scipy's assignment too."""
    del seed  # nothing is drawn
    thetas, found = distances_of_lines()
    apart = np.abs(thetas) > 1e-9
    z = (np.arange(CELLS) + 0.5) / CELLS
    errors = [np.abs(found["w1"] - np.abs(thetas)).max()]
    for theta, value in zip(thetas, found["w1"], strict=True):
        ends = (np.stack([np.full(CELLS, x), z], axis=1) for x in (0.0, theta))
        errors.append(abs(value - _assigned(spatial.distance.cdist(*ends))))
    return {
        "kl_infinite": Measure(
            float(np.isinf(found["kl"][apart]).mean()), None, "share", "of thetas other than 0"
        ),
        "kl_at_0": Measure(float(found["kl"][~apart].max()), None, "nats", "theta = 0"),
        "js_error": _error([found["js"] - np.where(apart, np.log(2), 0.0)], "nats"),
        "w1_error": _error(errors, "length"),
    }


# Seeded inputs.


def of_probabilities(seed: int) -> dict[str, Measure]:
    """KL and JS of two random distributions over 50 points, and KL of two binomials."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(50), 2)
    n, (a, b) = 20, random.uniform(0.2, 0.8, 2)
    first, second = (stats.binom(n, share).pmf(np.arange(n + 1)) for share in (a, b))
    exact = n * (a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)))
    return {
        "kl_error": _relative(distances.kl(p, q), stats.entropy(p, q)),
        "js_error": _relative(distances.js(p, q), spatial.distance.jensenshannon(p, q) ** 2),
        "kl_binomial_error": _relative(distances.kl(first, second), exact),
    }


def of_points(seed: int) -> dict[str, Measure]:
    """W_1 of weighted points, W_2 of points, and W_2 of two Gaussians by 20,000 quantiles."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=300), random.gamma(2.0, size=200)
    weights = random.uniform(size=300), random.uniform(size=200)
    other = random.gamma(2.0, size=300)
    best = np.sqrt(_assigned(np.subtract.outer(x, other) ** 2))
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    (m, n), (s, t) = random.normal(size=2), random.uniform(0.5, 2.0, 2)
    of_normals = distances.wasserstein_2(m + s * quantiles, n + t * quantiles)
    return {
        "w1_error": _relative(
            distances.wasserstein_1(x, y, *weights), stats.wasserstein_distance(x, y, *weights)
        ),
        "w2_error": _relative(distances.wasserstein_2(x, other), best),
        "w2_gaussian_error": _relative(of_normals, np.hypot(m - n, s - t)),
    }


def of_images(seed: int) -> dict[str, Measure]:
    """Sliced W_1 and W_2 of 100 random images of 8x8 and the same ones shifted."""
    random = np.random.default_rng(seed)
    images, shift = random.uniform(size=(100, 8, 8, 1)), random.normal(size=(8, 8, 1))
    length = np.linalg.norm(shift)
    # |theta.v| for theta uniform on the sphere: its mean, and the root of its mean square.
    mean = np.exp(
        special.gammaln(shift.size / 2) - special.gammaln((shift.size + 1) / 2)
    ) / np.sqrt(np.pi)
    exact = {1: length * mean, 2: length / np.sqrt(shift.size)}
    return {
        f"sw{p}_error": _relative(
            distances.sliced_wasserstein(images, images + shift, 4096, seed, p), value
        )
        for p, value in exact.items()
    }


def _assigned(costs: np.ndarray) -> float:
    """Mean cost of the best assignment of as many points to as many."""
    return float(costs[optimize.linear_sum_assignment(costs)].mean())


def _error(differences: list, unit: str) -> Measure:
    return Measure(float(max(np.abs(d).max() for d in differences)), None, unit, "largest error")


def _relative(value: float, expected: float) -> Measure:
    return Measure(float(abs(value - expected) / abs(expected)), None, "", "relative error")
