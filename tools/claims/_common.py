"""What several modules of claims do with numbers."""

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


def lines(outcome: Outcome) -> list[dict[str, float]]:
    """What a run logged, a line an interval."""
    return [line for line in run.read_jsonl(run.RunDir(outcome.path).metrics) if "epoch" in line]


def late_mean(outcome: Outcome, name: str) -> float:
    """The mean of what a run logged under a name over the last quarter of its training."""
    logged = [line[name] for line in lines(outcome)]
    return float(np.mean(logged[-max(1, len(logged) // 4) :]))
