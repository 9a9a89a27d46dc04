"""What Gulrajani et al. 2017 claim of the gradient penalty, measured beside clipped weights."""

import functools
import pathlib

import keras
import numpy as np

from tfgen import commands, run
from tfgen.metrics.measure import Measure
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run
from tools.claims._common import text, values

SEEDS = (0, 1, 2)
MIXTURES = {"ring8": 8, "grid25": 25}
PAIR = ("wgan_gp", "wgan")


def rows(budget: str) -> list[Run]:
    """Mixtures on three seeds and MNIST on one, by penalty and by clipping."""
    found = [
        Run(f"{name}_{data}_seed{seed}", f"{name}_{data}.cfg", (f"--seed={seed}",), (), seed)
        for name in PAIR
        for data in MIXTURES
        for seed in SEEDS
    ]
    # Equal steps of the generator, and for the clipped critic no more steps than for the other.
    steps = {"wgan_gp": (), "wgan": ("--boost_first=0", "--boost_every=0")}
    return found + [Run(f"{name}_mnist_seed0", f"{name}_mnist.cfg", steps[name]) for name in PAIR]


def measure(outcome: Outcome) -> dict[str, Measure]:
    """On the grid: how far the critic's weights pile up, and how bent it is."""
    if "_grid25_" not in outcome.name:
        return {}
    return {
        "weights_at_bounds": Measure(
            _share_at_bounds(outcome), None, "share", "of the critic's weights over 0.9 max |w|"
        ),
        "critic_curvature": Measure(
            _curvature(outcome), None, "share", "of its variance that no plane explains"
        ),
    }


def all_modes(outcomes: Outcomes, data: str) -> Claim:
    """All modes are covered."""
    ours, clipped = _pair(outcomes, data, "modes_covered")
    return Claim(
        f"{data}: all {MIXTURES[data]} modes",
        "figure 1 in spirit",
        text(ours),
        text(clipped) + " clipped",
        "modes",
        min(ours) == MIXTURES[data],
    )


def good_samples(outcomes: Outcomes, data: str) -> Claim:
    """Over half of the samples lie within 3 sigma of a mode."""
    ours, clipped = _pair(outcomes, data, "high_quality")
    return Claim(
        f"{data}: share of samples within 3 sigma of a mode over one half",
        "",
        text(ours),
        text(clipped) + " clipped",
        "share",
        min(ours) > 0.5,
    )


def nearer(outcomes: Outcomes, data: str) -> Claim:
    """Sliced W_1 is below that by clipping, seed by seed."""
    ours, clipped = _pair(outcomes, data, "sliced_wasserstein")
    return Claim(
        f"{data}: sliced W_1 below that by clipping, seed by seed",
        "",
        text(ours),
        text(clipped) + " clipped",
        "length",
        all(a < b for a, b in zip(ours, clipped, strict=True)),
    )


def weights_at_bounds(outcomes: Outcomes) -> Claim:
    """grid25: clipped weights pile up at the bounds, those under the penalty do not."""
    ours, clipped = _pair(outcomes, "grid25", "weights_at_bounds")
    return Claim(
        "grid25: clipped weights pile up at the bounds (over half of them), those under the "
        "penalty do not",
        "figure 1b",
        text(ours),
        text(clipped) + " clipped",
        "share",
        min(clipped) > 0.5 and max(ours) < 0.5,
    )


def bent_critic(outcomes: Outcomes) -> Claim:
    """grid25: the critic's values have more than linear shape."""
    ours, clipped = _pair(outcomes, "grid25", "critic_curvature")
    return Claim(
        "grid25: the critic's values have more than linear shape: part of their variance that "
        "no plane explains",
        "figure 1a",
        text(ours),
        text(clipped) + " clipped",
        "share",
        all(a > b for a, b in zip(ours, clipped, strict=True)),
    )


def lower_fid(outcomes: Outcomes) -> Claim:
    """MNIST: FID by the classifier's features below clipping's."""
    (pair,) = outcomes.groups([f"{name}_mnist_seed0" for name in PAIR])
    ours, clipped = (outcome.value_starting("fid_") for outcome in pair)
    return Claim(
        "MNIST, 4000 steps of the generator: FID by the classifier's features below clipping's",
        "",
        f"{ours:.3g}",
        f"{clipped:.3g} clipped",
        "squared",
        ours < clipped,
    )


CLAIMS = (
    *(
        functools.partial(claim, data=data)
        for data in MIXTURES
        for claim in (all_modes, good_samples, nearer)
    ),
    weights_at_bounds,
    bent_critic,
    lower_fid,
)


def picture(outcomes: Outcomes, path: pathlib.Path) -> None:
    """Samples and critics of both on the grid and on MNIST."""
    names = [f"{name}_{data}_seed0" for data in ("grid25", "mnist") for name in PAIR]
    _gallery.samples(*outcomes.groups(names), path)


def _pair(outcomes: Outcomes, data: str, measure: str) -> list[list[float]]:
    groups = outcomes.by_seed(*(f"{name}_{data}" for name in PAIR), seeds=SEEDS)
    return [values(group, measure) for group in groups]


def _critic(outcome: Outcome) -> keras.Model:
    return commands.load_run(run.RunDir(outcome.path))[-1].discriminator


def _share_at_bounds(outcome: Outcome) -> float:
    """Weights of the hidden layers within a tenth of the largest one's size of it.

    For clipped weights the largest one is the bound.
    """
    weights = [w.numpy() for w in _critic(outcome).trainable_variables if "kernel" in w.path]
    bound = max(np.abs(w).max() for w in weights)
    return float(np.mean(np.concatenate([np.abs(w).ravel() for w in weights]) > 0.9 * bound))


def _curvature(outcome: Outcome) -> float:
    """Residual variance of a least squares plane through the critic's values on the square."""
    axis = np.linspace(-5, 5, 101, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    values = _critic(outcome)(grid, training=False).numpy()[:, 0].astype(np.float64)
    design = np.concatenate([grid, np.ones((len(grid), 1))], axis=1)
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return float(residual.var() / values.var())
