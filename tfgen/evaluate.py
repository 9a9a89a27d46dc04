"""Evaluates a trained run: `python -m tfgen.evaluate --run_dir=runs/iwae_digits [--k=5000]`.

Which numbers make sense is the model's own word; they are printed as a table and added to the
run's evaluations.jsonl.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfgen import commands, hparams, run
from tfgen.errors import UserError
from tfgen.metrics.measure import Settings, split_features

if TYPE_CHECKING:
    from tfgen.data import Data

K = 5000  # Burda et al. 2016, section 5.1.
BY_WEIGHTS = ("likelihood.nll", "conditional.nll")  # The evaluations by importance samples.


@dataclasses.dataclass(frozen=True)
class Options(commands.RunOptions):
    """Options of the command."""

    data_dir: str | None = None  # Where TFDS keeps data sets; default: TFDS's own.
    on_bad_image: Literal["skip", "fail"] = "skip"  # As for training.
    split: Literal["test", "validation", "train"] = "test"  # Part of the data to evaluate on.
    # Importance samples an image of the NLL, for models with importance weights.
    k: int = K
    limit: int | None = None  # At most so many images; none takes all.
    seed: int = 0  # Source of the evaluation's noise.
    num_samples: int = 10_000  # Examples that the model generates to be compared with the data.
    # Network whose features are compared: classifier, random, savedmodel:PATH or inception:PATH.
    features: str = "classifier"
    cache_dir: str | None = None  # Keeps classifiers; default: $TFGEN_CACHE or ~/.cache/tfgen.

    def __post_init__(self) -> None:
        for name in ("k", "limit", "num_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be more than 0. Received: --{name}={value}")
        if not 0 <= self.seed < 2**31 - 1:
            raise ValueError(f"--seed must be from 0 to 2^31 - 2. Received: --seed={self.seed}")
        split_features(self.features)
        super().__post_init__()


def main(argv: Sequence[str]) -> int:
    """Evaluates; returns the exit status."""
    options = hparams.parse_options(argv, Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    run_dir = run.RunDir(options.run_dir)
    module, hp, _, model = commands.load_run(run_dir)

    if options.k != K and not set(BY_WEIGHTS).intersection(model.evaluations):
        system = module.__name__.removeprefix("tfgen.models.")
        raise UserError(
            f"--k counts importance samples, and {system} has no importance weights: leave it "
            f"out. Received: --k={options.k}"
        )
    data = commands.load_data(hp, options.data_dir, options.on_bad_image)
    _compare(run_dir, data)
    shared = ("split", "k", "seed", "limit", "num_samples", "features", "cache_dir")
    given = {name: getattr(options, name) for name in shared}
    settings = Settings(**given, progress=_progress)
    measures: dict[str, Any] = {}
    for name in model.evaluations:
        part, function = name.split(".")
        evaluation = getattr(importlib.import_module(f"tfgen.metrics.{part}"), function)
        measures.update(evaluation(model, data, settings))
    line = {
        "step": int(model.step.numpy()),
        **{name: value for name, value in given.items() if name != "cache_dir"},
        "measures": {name: dataclasses.asdict(m) for name, m in measures.items()},
    }
    run.append_jsonl(run_dir.evaluations, line)
    _print(measures, f"{run_dir.path}, step {line['step']}")
    return 0


def _compare(run_dir: run.RunDir, data: "Data") -> None:
    """Warns where there are more or fewer examples than in training, and refuses other ones."""
    from absl import logging

    changed = run_dir.other_data(data.spec.to_json())
    counts = [changed.pop(key) for key in list(changed) if key.endswith("_size")]
    if changed:
        raise UserError(
            f"the data is not that which the run in {run_dir.path} was trained on: "
            f"{'; '.join(changed.values())}. Restore the data"
        )
    if counts:
        logging.warning("the data has changed since the training: %s", "; ".join(counts))


def _progress(items: Iterable, label: str) -> Iterable:
    from rich import progress

    return progress.track(items, description=label, transient=True)


def _print(measures: dict[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in ("measure", "value", "error", "unit", "how"):
        numbers = column in ("value", "error")
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for name, m in measures.items():
        error = "" if m.error is None else f"± {m.error:.2g}"
        table.add_row(name, f"{m.value:.6g}", error, m.unit, m.note)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
