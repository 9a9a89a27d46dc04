"""What Gulrajani et al. 2017 claim of the gradient penalty, measured beside clipped weights."""

import pathlib

import keras
import numpy as np

from tfgen import commands, run
from tools.claims import _gallery
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
MIXTURES = {"ring8": 8, "grid25": 25}
PAIR = ("wgan_gp", "wgan")


def runs(budget: str) -> list[Run]:
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


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    found = []
    for data, modes in MIXTURES.items():
        of = {name: [outcomes[f"{name}_{data}_seed{s}"] for s in SEEDS] for name in PAIR}
        covered, quality, distance = (
            {name: [o.value(measure) for o in of[name]] for name in PAIR}
            for measure in ("modes_covered", "high_quality", "sliced_wasserstein")
        )
        found += [
            Claim(
                f"{data}: all {modes} modes",
                "figure 1 in spirit",
                _text(covered["wgan_gp"]),
                _text(covered["wgan"]) + " clipped",
                "modes",
                min(covered["wgan_gp"]) == modes,
            ),
            Claim(
                f"{data}: share of samples within 3 sigma of a mode over one half",
                "",
                _text(quality["wgan_gp"]),
                _text(quality["wgan"]) + " clipped",
                "share",
                min(quality["wgan_gp"]) > 0.5,
            ),
            Claim(
                f"{data}: sliced W_1 below that by clipping, seed by seed",
                "",
                _text(distance["wgan_gp"]),
                _text(distance["wgan"]) + " clipped",
                "length",
                all(a < b for a, b in zip(distance["wgan_gp"], distance["wgan"], strict=True)),
            ),
        ]
    at_bounds = {
        name: [_share_at_bounds(outcomes[f"{name}_grid25_seed{s}"]) for s in SEEDS] for name in PAIR
    }
    found.append(
        Claim(
            "grid25: clipped weights pile up at the bounds (over half of them), those under the "
            "penalty do not",
            "figure 1b",
            _text(at_bounds["wgan_gp"]),
            _text(at_bounds["wgan"]) + " clipped",
            "share",
            min(at_bounds["wgan"]) > 0.5 and max(at_bounds["wgan_gp"]) < 0.5,
        )
    )
    curved = {
        name: [_curvature(outcomes[f"{name}_grid25_seed{s}"]) for s in SEEDS] for name in PAIR
    }
    found.append(
        Claim(
            "grid25: the critic's values have more than linear shape: part of their variance that "
            "no plane explains",
            "figure 1a",
            _text(curved["wgan_gp"]),
            _text(curved["wgan"]) + " clipped",
            "share",
            all(a > b for a, b in zip(curved["wgan_gp"], curved["wgan"], strict=True)),
        )
    )
    fid = {name: outcomes[f"{name}_mnist_seed0"] for name in PAIR}
    measure = next(m for m in fid["wgan"].measures if m.startswith("fid_"))
    ours, theirs = (fid[name].value(measure) for name in PAIR)
    found.append(
        Claim(
            "MNIST, 4000 steps of the generator: FID by the classifier's features below clipping's",
            "",
            f"{ours:.3g}",
            f"{theirs:.3g} clipped",
            "squared",
            ours < theirs,
        )
    )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """Samples and critics of both on the grid and on MNIST."""
    names = [f"{name}_{data}_seed0" for data in ("grid25", "mnist") for name in PAIR]
    _gallery.samples([outcomes[name] for name in names], path)


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


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.3g}" for v in values)
