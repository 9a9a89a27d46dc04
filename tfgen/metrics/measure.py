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
        error: its standard error, or None where it has none; the note says if it is another one.
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


FEATURES = ("classifier", "random", "savedmodel:PATH", "inception:PATH")


def split_features(name: str) -> tuple[str, str]:
    """The kind and the path, "" without one, of a name like those in `FEATURES`.

    Raises:
        ValueError: if there is no such kind, or a path is missing or too many.
    """
    kind, _, path = name.partition(":")
    if f"{kind}{':PATH' if path else ''}" not in FEATURES:
        raise ValueError(
            f"--features must be one of {', '.join(FEATURES)}. Received: --features={name}"
        )
    return kind, path


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
        num_samples: examples that a model generates, and real ones at most, in a comparison.
        features: network whose features are compared: see `metrics.features`.
        cache_dir: where classifiers are kept; None for $TFGEN_CACHE or ~/.cache/tfgen.
    """

    split: str = "test"
    k: int = 5000
    seed: int = 0
    limit: int | None = None
    progress: Callable[[Any, str], Iterable] = _as_it_is
    num_samples: int = 10_000
    features: str = "classifier"
    cache_dir: str | None = None
