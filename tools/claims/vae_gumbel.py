"""What Jang et al. 2017 claim of the Gumbel-softmax, measured.

Paper, table 1, MNIST, categorical VAE, bound by m = 1000 in nats: Gumbel-softmax 101.5,
straight-through Gumbel-softmax 107.8, score function 110.6.
"""

import functools

import numpy as np
import scipy.special
import scipy.stats
import tensorflow as tf

from tfgen import distributions
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import SEEDS, text, values

DATA = ("digits", "mnist")
ESTIMATORS = {
    "relaxed": (),
    "straight_through": ("--straight_through",),
    "score": ("--estimator=score",),
}
PAPER = {"relaxed": "101.5", "straight_through": "107.8", "score": "110.6"}
DRAWS = 100_000


def rows(budget: str) -> list[Run]:
    """Digits and MNIST by each estimator."""
    del budget  # there is one
    return [
        Run(
            f"{name}_{data}_seed{s}",
            f"gumbel_{data}.cfg",
            (*flags, f"--seed={s}"),
            ("--k=1000",),
            s,
        )
        for data in DATA
        for name, flags in ESTIMATORS.items()
        for s in SEEDS
    ]


def frequencies(outcomes: Outcomes) -> Claim:
    """The argmax of draws has the categories' probabilities at any temperature."""
    del outcomes  # by numbers
    found = []
    for seed, temperature in enumerate((0.1, 1.0, 10.0)):
        logits, draws = _draws(temperature, seed)
        counts = np.bincount(draws.argmax(1), minlength=logits.size)
        expected = DRAWS * scipy.special.softmax(logits.astype(np.float64))
        found.append(float(scipy.stats.chisquare(counts, expected).pvalue))
    return Claim(
        "argmax of the draws against the probabilities, chi^2, at temperatures 0.1, 1, 10: p",
        "section 2.1",
        text(found),
        "0.001",
        "",
        min(found) > 0.001,
    )


def limits(outcomes: Outcomes) -> Claim:
    """Cold draws are one-hots and hot draws are uniform."""
    del outcomes  # by numbers
    largest = [float(np.median(_draws(t)[1].max(1))) for t in (0.01, 1.0, 1000.0)]
    return Claim(
        "largest number of a draw of 5 values at temperatures 0.01, 1, 1000, median",
        "figure 1",
        text(largest, ".4f"),
        "1 and 1/5 in the limits",
        "",
        largest[0] > 0.999 and abs(largest[2] - 0.2) < 0.002,
    )


def better(outcomes: Outcomes, data: str, estimator: str) -> Claim:
    """The bound by relaxed draws is below the score function's."""
    groups = outcomes.by_seed(f"{estimator}_{data}", f"score_{data}", seeds=SEEDS)
    ours, score = (values(group, "nll") for group in groups)
    return Claim(
        f"{data}: bound by discrete samples, m = 1000, {estimator.replace('_', '-')} below the "
        "score function's with its variance normalised",
        f"{PAPER[estimator]} < {PAPER['score']}" if data == "mnist" else "",
        text(ours, ".4g"),
        text(score, ".4g"),
        "nats",
        max(ours) < min(score),
        "on these small images the score function is nearly as good: means over seeds differ by "
        "less than the seeds do."
        if data == "digits"
        else "",
    )


CLAIMS = (
    frequencies,
    limits,
    *(
        functools.partial(better, data=data, estimator=estimator)
        for data in DATA
        for estimator in ("relaxed", "straight_through")
    ),
)

# Samples by each estimator.
PICTURES = _gallery.grids({data: [f"{name}_{data}_seed0" for name in ESTIMATORS] for data in DATA})


def _draws(temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The logits of one variable of 5 values, and draws [DRAWS, 5]."""
    logits = np.float32([0.5, -1.0, 2.0, 0.0, 1.0])
    categoricals = distributions.Categoricals(tf.constant(logits[None]), temperature)
    return logits, categoricals.sample(DRAWS, seed=[seed, 1]).numpy()
