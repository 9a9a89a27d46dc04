"""What several modules of claims do with numbers."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tfgen import run
from tools.claims._base import Outcome


def text(values: Iterable[float], form: str = ".3g") -> str:
    """Numbers as they stand in a table, e.g. "1.5/1.62/1.4" for three seeds."""
    return "/".join(f"{value:{form}}" for value in values)


def values(outcomes: Sequence[Outcome], measure: str) -> list[float]:
    """One measure of several rows."""
    return [outcome.value(measure) for outcome in outcomes]


def clearly_above(more: Sequence[float], less: Sequence[float]) -> bool:
    """Whether the mean of some seeds is above another mean by over twice the standard error.

    The error of the difference is the root of s_1^2 / n_1 + s_2^2 / n_2, s^2 being the unbiased
    variance over the seeds: for example 3, 4, 5 over 1, 2, 3 differ by 2 with an error of 0.82.
    """
    squares = [np.var(numbers, ddof=1) / len(numbers) for numbers in (more, less)]
    return bool(np.mean(more) - np.mean(less) > 2 * math.sqrt(sum(squares)))


def least_reverse_kl(share: float, classes: int) -> float:
    """The least KL(classes || uniform) where some class has at most this share, in nats.

    A smaller one says that every class has more. The others then share the rest evenly: of 10
    classes it is 0.105 for a missing one, and 0.051 for one of 2%.
    """
    rest = 1 - share
    other = rest * math.log(rest * classes / (classes - 1))
    return other + (share * math.log(share * classes) if share else 0.0)


def lines(outcome: Outcome) -> list[dict[str, float]]:
    """What a run logged, a line an interval."""
    return [line for line in run.read_jsonl(run.RunDir(outcome.path).metrics) if "epoch" in line]


def late_mean(outcome: Outcome, name: str) -> float:
    """The mean of what a run logged under a name over the last quarter of its training."""
    logged = [line[name] for line in lines(outcome)]
    return float(np.mean(logged[-max(1, len(logged) // 4) :]))
