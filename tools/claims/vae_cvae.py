"""What Sohn et al. 2015 claim of the conditional VAE (table 1), measured on digits and MNIST.

Paper, MNIST, test NLL of the hidden pixels in nats, 1, 2, 3 quadrants seen: baseline network 99.75,
62.18, 25.99; CVAE by Monte Carlo 68.39, 45.34, 20.96; CVAE by importance sampling 63.91, 44.73,
20.95. The baseline has as many updates here as the rest of the CVAE.
"""

import functools

import numpy as np

from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import seeds_of, text, values

DATA = ("digits", "mnist")
QUADRANTS = (1, 2, 3)
ESTIMATES = {"Monte Carlo": "nll_monte_carlo", "importance sampling": "nll"}
PAPER = {
    "nll_baseline": (99.75, 62.18, 25.99),
    "nll_monte_carlo": (68.39, 45.34, 20.96),
    "nll": (63.91, 44.73, 20.95),
}


def rows(budget: str) -> list[Run]:
    """Digits and MNIST with 1, 2 and 3 quadrants seen."""
    del budget  # there is one
    return [
        Run(
            f"q{quadrants}_{data}_seed{s}",
            f"cvae_{data}.cfg",
            (f"--quadrants={quadrants}", f"--seed={s}"),
            ("--k=1000",),
            s,
        )
        for data in DATA
        for quadrants in QUADRANTS
        for s in seeds_of(data)
    ]


def better(outcomes: Outcomes, data: str, quadrants: int, estimate: str) -> Claim:
    """The CVAE's NLL of the hidden pixels is below the baseline's."""
    (runs,) = outcomes.by_seed(f"q{quadrants}_{data}", seeds=seeds_of(data))
    measure = ESTIMATES[estimate]
    ours, baseline = values(runs, measure), values(runs, "nll_baseline")
    paper = [PAPER[name][quadrants - 1] for name in (measure, "nll_baseline")]
    seen = f"{quadrants} quadrant{'s' if quadrants > 1 else ''} seen"
    return Claim(
        f"{data}, {seen}: NLL of the hidden pixels by {estimate}, 1000 samples, below that of the "
        "baseline network",
        f"{paper[0]} < {paper[1]}" if data == "mnist" else "",
        text(ours, ".4g"),
        text(baseline, ".4g"),
        "nats",
        all(a < b for a, b in zip(ours, baseline, strict=True)),
    )


def gain_grows(outcomes: Outcomes) -> Claim:
    """MNIST: the gain on the baseline, per hidden pixel, is larger the less is seen."""
    hidden = [28 * 28 * (4 - quadrants) / 4 for quadrants in QUADRANTS]
    starts = [f"q{quadrants}_mnist" for quadrants in QUADRANTS]
    groups = outcomes.by_seed(*starts, seeds=seeds_of("mnist"))
    names = ("nll_baseline", "nll")
    ours = [[float(np.mean(values(runs, name))) for runs in groups] for name in names]
    measured, paper = (
        [(b - n) / h for b, n, h in zip(*numbers, hidden, strict=True)]
        for numbers in (ours, [PAPER[name] for name in names])
    )
    return Claim(
        "mnist: gain on the baseline in a hidden pixel falls with 1, 2, 3 quadrants seen",
        " > ".join(f"{gain:.3f}" for gain in paper),
        " > ".join(f"{gain:.3f}" for gain in measured),
        "0",
        "nats a pixel",
        measured[0] > measured[1] > measured[2],
    )


CLAIMS = (
    *(
        functools.partial(better, data=data, quadrants=quadrants, estimate=estimate)
        for data in DATA
        for quadrants in QUADRANTS
        for estimate in ESTIMATES
    ),
    gain_grows,
)

# Completions of validation images: seen, baseline, six draws, truth.
PICTURES = _gallery.grids(
    {data: [f"q{quadrants}_{data}_seed0" for quadrants in QUADRANTS] for data in DATA},
    "completions",
)
