"""What Burda et al. 2016 claim of the IWAE (table 1), measured on MNIST.

Paper, 3280 epochs, test NLL by L_5000 and active units: 1 layer, k = 1, 5, 50: 86.76 (19),
85.54 (22), 84.78 (25); 2 layers, k = 1, 50: 85.33 (16+5), 82.90 (26+7).
"""

import itertools
import pathlib

import numpy as np

from tools.reproduce import Claim, Outcome, Run

TWO_LAYERS = ("--latent_dims=100,50", "--hidden_units=200,100")
PAPER_NLL = {(1, 1): 86.76, (1, 5): 85.54, (1, 50): 84.78, (2, 1): 85.33, (2, 50): 82.90}
PAPER_UNITS = {(1, 1): "19", (1, 5): "22", (1, 50): "25", (2, 1): "16+5", (2, 50): "26+7"}
ROWS = {"small": ((1, 1), (1, 5), (1, 50), (2, 1), (2, 50)), "paper": ((1, 1), (1, 50))}
SEEDS = {1: (0, 1, 2)}  # By k; one seed where a run takes over 15 minutes.


def runs(budget: str) -> list[Run]:
    """Rows of the table at a budget."""
    flagfile = {"small": "iwae_mnist.cfg", "paper": "iwae_mnist_paper.cfg"}[budget]
    return [
        Run(
            _name(layers, k, seed),
            flagfile,
            (f"--k={k}", f"--seed={seed}", *(TWO_LAYERS if layers == 2 else ())),
            ("--k=5000",),
            seed,
        )
        for layers, k in ROWS[budget]
        for seed in (SEEDS.get(k, (0,)) if (budget, layers) == ("small", 1) else (0,))
    ]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from the numbers of its runs."""
    found = []
    depths = {1: (1, 5, 50), 2: (1, 50)}
    for layers, ks in depths.items():
        ks = tuple(k for k in ks if _name(layers, k, 0) in outcomes)
        if len(ks) < 2:
            continue
        paper = [PAPER_NLL[layers, k] for k in ks]
        nll = [_values(outcomes, layers, k, "nll") for k in ks]
        at = ", ".join(f"k={k}" for k in ks)
        found.append(
            Claim(
                f"NLL falls with k, {_layers(layers)}: {at}",
                " > ".join(map(str, paper)),
                " > ".join(_text(v) for v in nll[1:]),
                _text(nll[0]),
                "nats",
                all(min(a) > max(b) for a, b in itertools.pairwise(nll)),
            )
        )
        units = [_units(outcomes, layers, k) for k in ks]
        found.append(
            Claim(
                f"active units rise with k, {_layers(layers)}: {at}",
                " < ".join(PAPER_UNITS[layers, k] for k in ks),
                " < ".join(_text(v) for v in units[1:]),
                _text(units[0]),
                "units",
                all(max(a) < min(b) for a, b in itertools.pairwise(units)),
            )
        )
    for k in (1, 50):
        if _name(1, k, 0) in outcomes and _name(2, k, 0) in outcomes:
            one, two = (_values(outcomes, layers, k, "nll") for layers in (1, 2))
            found.append(
                Claim(
                    f"2 layers beat 1 at k={k} and the same epochs",
                    f"{PAPER_NLL[2, k]} < {PAPER_NLL[1, k]}",
                    _text(two),
                    _text(one),
                    "nats",
                    max(two) < min(one),
                )
            )
    best = outcomes.get(_name(1, 50, 0))
    if best is None:
        return found
    found.append(
        Claim(
            "1 layer, k=50: at most 88 nats within two hours",
            f"{PAPER_NLL[1, 50]} after 3280 epochs",
            f"{best.value('nll'):.2f} in {best.minutes:.0f} min, {best.epochs:g} epochs",
            "88",
            "nats",
            best.value("nll") <= 88.0 and best.minutes <= 120.0,
        )
    )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """NLL by k and depth beside samples of the best model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), width_ratios=(1, 1.1))
    for layers in (1, 2):
        named = [(k, _values(outcomes, layers, k, "nll")) for (d, k) in PAPER_NLL if d == layers
                 if _name(layers, k, 0) in outcomes]  # fmt: skip
        left.plot(
            [k for k, _ in named], [np.mean(v) for _, v in named], "o-", label=_layers(layers)
        )
    left.set(xscale="log", xlabel="k", ylabel="test NLL by L_5000 (nats)", xticks=[1, 5, 50])
    left.set_xticklabels(["1", "5", "50"])
    left.legend()
    best = min(outcomes.values(), key=lambda o: o.value("nll"))
    samples = sorted((best.path / "samples").glob("samples-*.png"))[-1]
    right.imshow(Image.open(samples), cmap="gray")
    right.set_title(f"samples of {best.run.name}")
    right.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _name(layers: int, k: int, seed: int) -> str:
    return f"l{layers}_k{k}_seed{seed}"


def _layers(layers: int) -> str:
    return f"{layers} layer{'s' * (layers > 1)}"


def _of(outcomes: dict[str, Outcome], layers: int, k: int) -> list[Outcome]:
    return [o for name, o in outcomes.items() if name.startswith(f"l{layers}_k{k}_")]


def _values(outcomes: dict[str, Outcome], layers: int, k: int, measure: str) -> list[float]:
    return [o.value(measure) for o in _of(outcomes, layers, k)]


def _units(outcomes: dict[str, Outcome], layers: int, k: int) -> list[float]:
    names = [f"active_units_layer_{layer + 1}" for layer in range(layers)]
    return [sum(o.value(n) for n in names) for o in _of(outcomes, layers, k)]


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.4g}" for v in values)
