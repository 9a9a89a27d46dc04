"""What Zhao et al. 2017 claim of the EBGAN, measured: theorem 1, and what PT is good for.

The paper has no table of numbers for it: figures 2-4 are histograms of a modified inception score
over a grid of networks, where EBGAN-PT's best is a little above EBGAN's. Energies and losses here
are means over the last quarter of the training.
"""

import functools
import pathlib

from tfgen.metrics.measure import Measure
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run
from tools.claims._common import SEEDS, clearly_above, late_mean, lines, text, values

WEIGHTS = {"ebgan_pt": 0.1, "ebgan": 0.0}
MARGINS = {"digits": 3.0, "mnist": 10.0}  # Of the flagfiles.
_WHY = {
    "digits": "these digits are too easy to tell: without PT the classes are made as evenly.",
    "mnist": "it does on two of three seeds, which differ by more than the two forms do.",
}
_CLEARLY = "the means over seeds being over two standard errors apart"


def rows(budget: str) -> list[Run]:
    """EBGAN with and without the repelling regulariser, three seeds each."""
    return [
        Run(
            f"{name}_{data}_seed{seed}",
            f"ebgan_{data}.cfg",
            (f"--margin={margin}", f"--repelling_weight={weight}", f"--seed={seed}"),
            seed=seed,
        )
        for data, margin in MARGINS.items()
        for name, weight in WEIGHTS.items()
        for seed in SEEDS
    ]


def measure(outcome: Outcome) -> dict[str, Measure]:
    """Energies and D's loss at the end."""
    note = "mean over the last quarter of the training"
    return {
        f"late_{name}": Measure(late_mean(outcome, name), None, "L2 norm", note)
        for name in ("energy_real", "energy_fake", "discriminator_loss")
    }


def energies_are_ordered(outcomes: Outcomes, data: str) -> Claim:
    """Energies at the end: real <= fake <= m."""
    pt, plain = (
        list(zip(values(group, "late_energy_real"), values(group, "late_energy_fake"), strict=True))
        for group in _both(outcomes, data)
    )
    return Claim(
        f"{data}: energies at the end: real <= fake <= m, with PT (baseline: without)",
        "0 <= D <= m (theorem 1)",
        _pairs(pt),
        _pairs(plain),
        f"L2 norm, m = {MARGINS[data]:g}",
        all(real <= fake <= MARGINS[data] for real, fake in pt + plain),
        "at the equilibrium the energies are equal, and near it fakes, which are a little smoother "
        "than digits, may have the lower one by some hundredths.",
    )


def loss_tends_to_the_margin(outcomes: Outcomes, data: str) -> Claim:
    """The discriminator's loss tends to m."""
    pt, plain = (values(group, "late_discriminator_loss") for group in _both(outcomes, data))
    margin = MARGINS[data]
    return Claim(
        f"{data}: the discriminator's loss tends to m (within 20%), with PT (baseline: without)",
        "V = m (theorem 1)",
        text(pt, ".4g"),
        text(plain, ".4g"),
        f"L2 norm, m = {margin:g}",
        all(abs(loss - margin) <= 0.2 * margin for loss in pt + plain),
    )


def makes_classes_more_evenly(outcomes: Outcomes, data: str) -> Claim:
    """With PT EBGAN makes the classes more evenly: lower KL(classes || uniform)."""
    ours, without = _with_and_without(outcomes, data, "class_reverse_kl")
    return Claim(
        f"{data}: with PT EBGAN makes the classes more evenly: lower KL(classes || uniform), "
        f"{_CLEARLY}",
        "",
        text(ours),
        text(without),
        "nats",
        clearly_above(without, ours),
        _WHY[data],
    )


def has_a_higher_score(outcomes: Outcomes, data: str) -> Claim:
    """With PT EBGAN has a higher inception score."""
    ours, without = _with_and_without(outcomes, data, f"inception_score_{data}_classifier")
    return Claim(
        f"{data}: with PT EBGAN has a higher inception score, {_CLEARLY}",
        "figure 4: PT's best a little above",
        text(ours, ".4g"),
        text(without, ".4g"),
        "classes",
        clearly_above(ours, without),
        _WHY[data],
    )


CLAIMS = tuple(
    functools.partial(claim, data=data)
    for data in MARGINS
    for claim in (
        energies_are_ordered,
        loss_tends_to_the_margin,
        makes_classes_more_evenly,
        has_a_higher_score,
    )
)


def picture(outcomes: Outcomes, path: pathlib.Path, data: str) -> None:
    """The discriminator's loss and the energies over time, beside samples with and without PT."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    (first,) = outcomes.groups([f"{name}_{data}_seed0" for name in WEIGHTS])
    images = [_gallery.newest(outcome) for outcome in first]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.3), width_ratios=(1.3, 1, 1))
    logged = lines(first[0])
    for name in ("discriminator_loss", "energy_real", "energy_fake"):
        axes[0].plot([x["step"] for x in logged], [x[name] for x in logged], label=name)
    axes[0].axhline(MARGINS[data], color="grey", linestyle=":", label="m")
    axes[0].set(xlabel="step", title=f"EBGAN-PT on {data}, seed 0")
    axes[0].legend()
    for axis, image, outcome in zip(axes[1:], images, first, strict=True):
        _gallery.show(axis, image, f"samples of {outcome.name}")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


PICTURES = {data: functools.partial(picture, data=data) for data in MARGINS}


def _both(outcomes: Outcomes, data: str) -> list[list[Outcome]]:
    return outcomes.by_seed(*(f"{name}_{data}" for name in WEIGHTS), seeds=SEEDS)


def _with_and_without(outcomes: Outcomes, data: str, measure: str) -> list[list[float]]:
    return [values(group, measure) for group in _both(outcomes, data)]


def _pairs(pairs: list[tuple[float, float]]) -> str:
    return ", ".join(f"{real:.3g} <= {fake:.3g}" for real, fake in pairs)
