"""What Zhao et al. 2017 claim of the EBGAN, measured on digits: theorem 1, and what PT is good for.

The paper has no table of numbers for it: figures 2-4 are histograms of a modified inception score
over a grid of networks, where EBGAN-PT's best is a little above EBGAN's. Energies and losses here
are means over the last quarter of the training.
"""

import pathlib

import numpy as np

from tfgen import run
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
WEIGHTS = {"ebgan_pt": 0.1, "ebgan": 0.0}
MARGIN = 3.0  # Of configs/ebgan_digits.cfg.


def runs(budget: str) -> list[Run]:
    """EBGAN with and without the repelling regulariser, three seeds each."""
    return [
        Run(
            f"{name}_seed{seed}",
            "ebgan_digits.cfg",
            (f"--margin={MARGIN}", f"--repelling_weight={weight}", f"--seed={seed}"),
            seed=seed,
        )
        for name, weight in WEIGHTS.items()
        for seed in SEEDS
    ]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    late = {
        name: {
            measure: [_late(o, measure) for o in _of(outcomes, name)]
            for measure in ("energy_real", "energy_fake", "discriminator_loss")
        }
        for name in WEIGHTS
    }
    pt, plain = late["ebgan_pt"], late["ebgan"]
    ordered = [
        real <= fake <= MARGIN
        for of_runs in late.values()
        for real, fake in zip(of_runs["energy_real"], of_runs["energy_fake"], strict=True)
    ]
    losses = [loss for of_runs in late.values() for loss in of_runs["discriminator_loss"]]
    found = [
        Claim(
            "energies at the end: real <= fake <= m, with PT (baseline: without)",
            "0 <= D <= m (theorem 1)",
            _pairs(pt),
            _pairs(plain),
            f"L2 norm, m = {MARGIN:g}",
            all(ordered),
        ),
        Claim(
            "the discriminator's loss tends to m (within 20%), with PT (baseline: without)",
            "V = m (theorem 1)",
            _text(pt["discriminator_loss"]),
            _text(plain["discriminator_loss"]),
            f"L2 norm, m = {MARGIN:g}",
            all(abs(loss - MARGIN) <= 0.2 * MARGIN for loss in losses),
        ),
    ]
    for measure, what, unit in (
        ("classes_covered", "covers more classes", "classes of 10"),
        ("inception_score_digits_classifier", "has a higher inception score", "classes"),
    ):
        ours, without = (
            [o.value(measure) for o in _of(outcomes, name)] for name in ("ebgan_pt", "ebgan")
        )
        found.append(
            Claim(
                f"with PT EBGAN {what} (mean over seeds)",
                "figure 4: PT's best a little above",
                _text(ours),
                _text(without),
                unit,
                bool(np.mean(ours) > np.mean(without)),
            )
        )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """The discriminator's loss and the energies over time, beside samples with and without PT."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.3), width_ratios=(1.3, 1, 1))
    lines = _lines(outcomes["ebgan_pt_seed0"])
    for measure in ("discriminator_loss", "energy_real", "energy_fake"):
        axes[0].plot([x["step"] for x in lines], [x[measure] for x in lines], label=measure)
    axes[0].axhline(MARGIN, color="grey", linestyle=":", label="m")
    axes[0].set(xlabel="step", title="EBGAN-PT, seed 0")
    axes[0].legend()
    for axis, name in zip(axes[1:], WEIGHTS, strict=True):
        samples = sorted((outcomes[f"{name}_seed0"].path / "samples").glob("samples-*.png"))[-1]
        axis.imshow(Image.open(samples), cmap="gray")
        axis.set_title(f"samples of {name}_seed0")
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _of(outcomes: dict[str, Outcome], name: str) -> list[Outcome]:
    return [outcomes[f"{name}_seed{seed}"] for seed in SEEDS]


def _lines(outcome: Outcome) -> list[dict[str, float]]:
    return [x for x in run.read_jsonl(outcome.path / "metrics.jsonl") if "epoch" in x]


def _late(outcome: Outcome, measure: str) -> float:
    values = [x[measure] for x in _lines(outcome)]
    return float(np.mean(values[-max(1, len(values) // 4) :]))


def _pairs(late: dict[str, list[float]]) -> str:
    pairs = zip(late["energy_real"], late["energy_fake"], strict=True)
    return ", ".join(f"{real:.3g} <= {fake:.3g}" for real, fake in pairs)


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.4g}" for v in values)
