"""What Chen et al. 2016 claim of InfoGAN on MNIST (section 7.1, 7.2, figures 1 and 2), measured.

The control is a GAN of the same networks, whose generator is given the codes and no reward for
showing them, with Q in its discriminator.
"""

import math
import pathlib

from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import each, lines, text, values

SEEDS = (0,)  # A run takes over a quarter of an hour.
PAIR = {"infogan": (), "control": ("--info_to_generator=false",)}
STEPS = {"small": 3000, "paper": 5000}  # 50 epochs of 100 updates in their code
FULL = math.log(10)  # nats, the entropy of c1
NEAR = 0.1  # nats
NO_INFORMATION = 0.1  # of the entropy


def rows(budget: str) -> list[Run]:
    """InfoGAN and its control on each seed."""
    return [
        Run(
            f"{name}_seed{seed}",
            "infogan_mnist.cfg",
            (f"--steps={STEPS[budget]}", f"--seed={seed}", *flags),
            (),
            seed,
        )
        for seed in SEEDS
        for name, flags in PAIR.items()
    ]


def code_is_told(outcomes: Outcomes) -> Claim:
    """L_I of c1 reaches its entropy, on each seed."""
    information, told = _of_both(outcomes, "information_c1")
    return Claim(
        f"L_I of c1 reaches its entropy, log 10 = {FULL:.2f}, within {NEAR} {each(SEEDS)}",
        "2.30 (figure 1)",
        text(information),
        text(told),
        "nats",
        all(abs(FULL - value) <= NEAR for value in information),
    )


def control_tells_nothing(outcomes: Outcomes) -> Claim:
    """Control: where G is not asked for it, L_I of c1 stays low."""
    _, told = _of_both(outcomes, "information_c1")
    return Claim(
        f"control: where G is not asked for it, L_I of c1 stays below {NO_INFORMATION:.0%} of "
        "log 10",
        "near 0 (figure 1)",
        text(told),
        f"{NO_INFORMATION * FULL:.2f}",
        "nats",
        max(told) < NO_INFORMATION * FULL,
    )


def code_classifies(outcomes: Outcomes) -> Claim:
    """Each value of c1 mapped to its majority class classifies test digits, on each seed."""
    errors, chance = _of_both(outcomes, "clustering_error")
    return Claim(
        "each value of c1 mapped to its majority class classifies test digits with an error "
        f"below 20% {each(SEEDS)}",
        "5",
        text(errors),
        text(chance),
        "%",
        max(errors) < 20.0,
        "3, 5 and 8, and 4 and 9, share values of c1 after 3,000 of the flagfile's 5,000 steps. "
        "The same seed by two threads, whose sums round otherwise, ended at 18.9.",
    )


CLAIMS = (code_is_told, control_tells_nothing, code_classifies)


def picture(outcomes: Outcomes, path: pathlib.Path) -> None:
    """L_I over the training of both, and each code's values along the rows of samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    (first,) = outcomes.groups([f"{name}_seed0" for name in PAIR])
    logged = [[line for line in lines(o) if "information_c1" in line] for o in first]
    images = [_gallery.newest(first[0], code) for code in ("c1", "c2", "c3")]
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.3))
    for name, of_run in zip(PAIR, logged, strict=True):
        axes[0].plot(
            [line["step"] for line in of_run],
            [line["information_c1"] for line in of_run],
            label=name,
        )
    axes[0].axhline(FULL, color="grey", linestyle=":", label="log 10")
    axes[0].set(xlabel="step", ylabel="L_I of c1 (nats)")
    axes[0].legend()
    titles = ("c1: each of its values", "c2 from -2 to 2", "c3 from -2 to 2")
    for axis, image, title in zip(axes[1:], images, titles, strict=True):
        _gallery.show(axis, image, title)
    figure.tight_layout()
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)


PICTURES = {"": picture}


def _of_both(outcomes: Outcomes, measure: str) -> list[list[float]]:
    return [values(group, measure) for group in outcomes.by_seed(*PAIR, seeds=SEEDS)]
