"""What a module of claims is made of.

Such a module, tools/claims/<family>_<system>.py, has:

rows(budget) -> list of `Run` and `Toy`    what is to be measured: the rows of results/<system>.json
measure(outcome) -> {name: Measure}        optional: what a run's folder tells beyond its evaluation
CLAIMS                                     functions (outcomes) -> `Claim` or a list of them
PICTURES                                   part: function (outcomes, path) that draws the picture
                                           results/<system>.<part>.png; no part, <system>.png

Rows are measured in portions and on several machines, so a claim reads only the numbers of rows and
never a folder, and a row that is not there raises `NotRun`: `tools.reproduce` then leaves the claim
out and says what is missing, under the first line of the function's docstring.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfgen.metrics.measure import Measure

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = "{folders}"  # In a row's flags: the folder that `tools.reproduce --folders_dir` names.


@dataclasses.dataclass(frozen=True)
class Run:
    """One training with its evaluation.

    Attributes:
        name: unique within a system and budget; a folder's name.
        flagfile: below configs/.
        flags: override the flagfile.
        evaluation: flags of `tfgen.evaluate`.
        seed: of the run.
    """

    name: str
    flagfile: str
    flags: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """What a row says of it; a row that says something else was measured otherwise."""
        return {
            "name": self.name,
            "flags": [f"--flagfile=configs/{self.flagfile}", *self.flags],
            "evaluation": list(self.evaluation),
            "seed": self.seed,
        }

    def settings(self) -> str:
        """A hash of what the flagfile says now, and those that it names, comments left out."""
        flags = "\n".join(_lines(f"configs/{self.flagfile}"))
        return hashlib.sha256(flags.encode()).hexdigest()[:16]


def _lines(flagfile: str) -> list[str]:
    """The flags of a flagfile below the repository's root, with those of flagfiles in it."""
    found = []
    for line in (ROOT / flagfile).read_text(encoding="utf-8").splitlines():
        flag = line.strip()
        if flag.startswith("--flagfile="):
            found += _lines(flag.removeprefix("--flagfile="))
        elif flag and not flag.startswith("#"):
            found.append(flag)
    return found


@dataclasses.dataclass(frozen=True)
class Toy:
    """A measurement that trains no system: a game, a network on two lines.

    Attributes:
        name: unique among the rows of a system and budget.
        function: (seed=..., **arguments) -> measures by name.
        arguments: of the function; JSON can write them.
        seed: of the measurement.
    """

    name: str
    function: Callable[..., dict[str, Measure]]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """What a row says of it; a row that says something else was measured otherwise."""
        return {
            "name": self.name,
            "toy": self.function.__name__,
            "arguments": json.loads(json.dumps(dict(self.arguments))),  # tuples become lists
            "seed": self.seed,
        }


class NotRun(LookupError):
    """A claim or a picture needs what has not been measured.

    Args:
        missing: names of the rows, or of what a row lacks.
    """

    def __init__(self, *missing: str):
        super().__init__(", ".join(missing))
        self.missing = missing


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a row gave.

    Attributes:
        name: of the row.
        measures: name -> {"value", "error", "unit", "note"}, as in evaluations.jsonl.
        minutes: that the training or the measurement took.
        epochs: epochs trained; None for a toy.
        folder: the run directory, where this call has made or seen it.
    """

    name: str
    measures: Mapping[str, Mapping[str, Any]]
    minutes: float = 0.0
    epochs: float | None = None
    folder: pathlib.Path | None = None

    def value(self, measure: str) -> float:
        """The number of a measure.

        Raises:
            NotRun: if the row has none of that name.
        """
        try:
            return self.measures[measure]["value"]
        except KeyError:
            raise NotRun(f"{measure} of {self.name}") from None

    def value_starting(self, start: str) -> float:
        """The number of the measure whose name starts so, e.g. "fid_" with any features.

        Raises:
            NotRun: if the row has none.
        """
        return self.value(next((m for m in self.measures if m.startswith(start)), start))

    @property
    def path(self) -> pathlib.Path:
        """The run directory.

        Raises:
            NotRun: if it is not at hand, the row having been measured in another call.
        """
        if self.folder is None:
            raise NotRun(f"folder of {self.name}")
        return self.folder


class Outcomes(dict[str, Outcome]):
    """Outcomes by the name of their row; to look up one that is not there raises `NotRun`.

    Args:
        outcomes: those that are there.
        rows: names of all rows of the budget; only these may be asked for.
    """

    def __init__(self, outcomes: Mapping[str, Outcome], rows: Iterable[str]):
        super().__init__(outcomes)
        self.rows = tuple(rows)

    def __missing__(self, name: str) -> Outcome:
        if name not in self.rows:
            raise KeyError(name)
        raise NotRun(name)

    def groups(self, *groups: Sequence[str]) -> list[list[Outcome]]:
        """The outcomes of groups of names.

        Raises:
            NotRun: with all names that are missing.
        """
        missing = [name for name in itertools.chain(*groups) if name not in self]
        unknown = [name for name in missing if name not in self.rows]
        if unknown:
            raise KeyError(*unknown)
        if missing:
            raise NotRun(*missing)
        return [[self[name] for name in names] for names in groups]

    def by_seed(self, *starts: str, seeds: Sequence[int]) -> list[list[Outcome]]:
        """The outcomes called <start>_seed<seed>: for each start, those of all seeds.

        Raises:
            NotRun: with all names that are missing.
        """
        return self.groups(*([f"{start}_seed{seed}" for seed in seeds] for start in starts))


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with its numbers; `holds` is computed from them, never typed.

    `why` is what is known of why it falls short, and what was tried; it is shown where it does.
    """

    claim: str
    paper: str
    ours: str
    baseline: str
    unit: str
    holds: bool
    why: str = ""
