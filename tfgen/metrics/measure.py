"""A measured number with its uncertainty, and what an evaluation is told."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measured number.

    Attributes:
        value: the number.
        error: its standard error, or None where it has none.
        unit: e.g. "nats".
        note: how it was measured, in a few words.
    """

    value: float
    error: float | None
    unit: str
    note: str

    @classmethod
    def mean(cls, values: np.ndarray, unit: str, note: str) -> "Measure":
        """The mean of independent values [N] with its standard error."""
        values = np.asarray(values, np.float64)
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error, unit, note)


def _as_it_is(items: Iterable, label: str) -> Iterable:
    return items


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all evaluations of one call share.

    Attributes:
        split: "train", "validation" or "test".
        k: importance samples an image.
        seed: int, source of all noise.
        limit: at most so many images; None takes all.
        progress: wraps an iterable to show its progress under a label.
    """

    split: str = "test"
    k: int = 5000
    seed: int = 0
    limit: int | None = None
    progress: Callable[[Any, str], Iterable] = _as_it_is
