"""What Chen et al. 2016 claim of InfoGAN on MNIST (section 7.1, 7.2, figures 1 and 2), measured.

The control is a GAN of the same networks, whose generator is given the codes and no reward for
showing them, with Q in its discriminator.
"""

import json
import math
import pathlib

from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
STEPS = {"small": 3000, "paper": 5000}  # 50 epochs of 100 updates in their code
FULL = math.log(10)  # nats, the entropy of c1
NEAR = 0.1  # nats
NO_INFORMATION = 0.1  # of the entropy


def runs(budget: str) -> list[Run]:
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
        for name, flags in (("infogan", ()), ("control", ("--info_to_generator=false",)))
    ]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    information, told = (_values(outcomes, n, "information_c1") for n in ("infogan", "control"))
    errors, chance = (_values(outcomes, n, "clustering_error") for n in ("infogan", "control"))
    return [
        Claim(
            f"L_I of c1 reaches its entropy, log 10 = {FULL:.2f}, within {NEAR} on each seed",
            "2.30 (figure 1)",
            _text(information),
            _text(told),
            "nats",
            all(abs(FULL - value) <= NEAR for value in information),
        ),
        Claim(
            f"control: where G is not asked for it, L_I of c1 stays below {NO_INFORMATION:.0%} of "
            "log 10",
            "near 0 (figure 1)",
            _text(told),
            f"{NO_INFORMATION * FULL:.2f}",
            "nats",
            max(told) < NO_INFORMATION * FULL,
        ),
        Claim(
            "each value of c1 mapped to its majority class classifies test digits with an error "
            f"below 20% on each seed; best {min(errors):.3g}",
            "5",
            _text(errors),
            _text(chance),
            "%",
            max(errors) < 20.0,
        ),
    ]


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """L_I over the training of both, and each code's values along the rows of samples."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.3))
    for name, outcome in outcomes.items():
        lines = (outcome.path / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if "information_c1" in row]
        axes[0].plot(
            [row["step"] for row in rows],
            [row["information_c1"] for row in rows],
            color="C0" if name.startswith("infogan") else "C1",
            label=name.removesuffix("_seed0") if name.endswith("_seed0") else None,
        )
    axes[0].axhline(FULL, color="grey", linestyle=":", label="log 10")
    axes[0].set(xlabel="step", ylabel="L_I of c1 (nats)")
    axes[0].legend()
    best = min(
        (o for n, o in outcomes.items() if n.startswith("infogan")),
        key=lambda o: o.value("clustering_error"),
    )
    titles = ("c1: each of its values", "c2 from -2 to 2", "c3 from -2 to 2")
    for axis, code, title in zip(axes[1:], ("c1", "c2", "c3"), titles, strict=True):
        newest = sorted((best.path / "samples").glob(f"{code}-*.png"))[-1]
        axis.imshow(Image.open(newest), cmap="gray")
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _values(outcomes: dict[str, Outcome], name: str, measure: str) -> list[float]:
    return [outcomes[f"{name}_seed{seed}"].value(measure) for seed in SEEDS]


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.3g}" for v in values)
