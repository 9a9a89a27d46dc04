"""What several modules of claims do with numbers."""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from tfgen import commands, run
from tfgen.metrics.measure import Measure
from tools.claims._base import Claim, Outcome

SEEDS = (0, 1, 2)
_QUARTERS = range(1, 5)


def seeds_of(data: str) -> tuple[int, ...]:
    """The seeds of a system's runs on a data set where a run on MNIST takes over 15 minutes."""
    return SEEDS[:1] if data.startswith("mnist") else SEEDS


def each(seeds: Sequence[int]) -> str:
    """On how many seeds a claim was measured, as its text says it."""
    return f"on each of {len(seeds)} seeds" if len(seeds) > 1 else "on the one seed"


def text(values: Iterable[float], form: str = ".3g") -> str:
    """Numbers as they stand in a table, e.g. "1.5/1.62/1.4" for three seeds."""
    return "/".join(f"{value:{form}}" for value in values)


def values(outcomes: Sequence[Outcome], measure: str) -> list[float]:
    """One measure of several rows."""
    return [outcome.value(measure) for outcome in outcomes]


def parameters(outcome: Outcome) -> dict[str, Measure]:
    """The number of a run's parameters: a `measure` of modules whose arms differ in it."""
    model = commands.load_run(run.RunDir(outcome.path))[3]
    return {"parameters": Measure(model.count_params(), None, "weights", "")}


def sizes(*groups: Sequence[Outcome]) -> list[str]:
    """How many parameters the runs of each group have, e.g. "20,321 weights"."""
    return [f"{group[0].value('parameters'):,.0f} weights" for group in groups]


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


def curves(outcome: Outcome, names: Sequence[str]) -> dict[str, Measure]:
    """What a run logged under some names, as means over each quarter of its training."""
    logged = lines(outcome)
    return {
        f"{name}_q{quarter}": Measure(
            float(np.mean([line[name] for line in part])), None, "", "mean over a quarter"
        )
        for quarter, part in zip(_QUARTERS, np.array_split(np.array(logged), 4), strict=True)
        for name in names
    }


def curves_agree(
    precise: Sequence[Outcome],
    rounded: Sequence[Outcome],
    names: Sequence[str],
    data: str,
    note: str = "",
) -> list[Claim]:
    """Loss curves of two precisions differ by no more than those of seeds.

    By the mean distance of curves of the one group to those of the other, which for groups of one
    size ranks as their energy distance does; the distance of two curves is the root mean square of
    their difference over the quarters. p is the share of all ways to part the runs in two such
    groups that give as large a distance; of 3 and 3 runs it is 0.1 at least, of 6 and 6 0.002.

    Args:
        precise: runs in float32, as many as in bfloat16.
        rounded: runs in bfloat16.
        names: of what was logged.
        data: named in the claims.
        note: follows in the claims.
    """
    return [_agree(precise, rounded, name, data, note) for name in names]


def _agree(
    precise: Sequence[Outcome], rounded: Sequence[Outcome], name: str, data: str, note: str
) -> Claim:
    found = [
        np.array([o.value(f"{name}_q{quarter}") for quarter in _QUARTERS])
        for o in (*precise, *rounded)
    ]
    apart = np.array([[_distance(a, b) for b in found] for a in found])
    everyone = range(len(found))
    distances = [
        apart[np.ix_(chosen, [i for i in everyone if i not in chosen])].mean()
        for chosen in itertools.combinations(everyone, len(precise))
    ]  # the first is of the runs as they are
    share = float(np.mean(np.array(distances) >= distances[0] - 1e-12))
    return Claim(
        f"{data}: the curve of {name.replace('_', ' ')} in bfloat16 differs from that in float32 "
        f"by no more than those of seeds do: p by their energy distance over 0.1{note}",
        "",
        f"{share:.2g}",
        f"{len(precise)} and {len(rounded)} runs",
        "p",
        share > 0.1,
    )


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))
