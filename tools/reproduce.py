"""Measures what a system's paper claims: `python -m tools.reproduce vae.iwae [--budget=small]`.

Trains the system and its baselines (resuming what is there), evaluates them, checks the claims and
writes results/<system>.json and results/<system>.png; RESULTS.md is generated from all of
results/*.json. What is to be run and what is claimed stands in tools/claims/<family>_<system>.py.
"""

import dataclasses
import datetime
import importlib
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

from tfgen import commands, hparams, run
from tfgen.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "results"


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command."""

    budget: Literal["small", "paper"] = "small"  # Size of the runs.
    data_dir: str | None = None  # Where TFDS keeps data sets; default: TFDS's own.
    runs_dir: str = "runs/reproduce"  # Where the runs lie; finished ones are not run again.
    page_only: bool = False  # Only write RESULTS.md from results/*.json.
    only: str | None = None  # Names of runs, comma separated; the page names those left out.
    evaluate_only: bool = False  # Use the checkpoints that are there, finished or not.
    help: bool = False  # Print all flags, and stop.


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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run gave.

    Attributes:
        run: the run.
        path: its run directory.
        measures: name -> {"value", "error", "unit", "note"}, as in evaluations.jsonl.
        epochs: epochs trained.
        minutes: minutes of training.
    """

    run: Run
    path: pathlib.Path
    measures: dict[str, dict[str, Any]]
    epochs: float
    minutes: float

    def value(self, measure: str) -> float:
        """The number of a measure."""
        return self.measures[measure]["value"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim with its numbers; `holds` is computed from them, never typed."""

    claim: str
    paper: str
    ours: str
    baseline: str
    unit: str
    holds: bool


def main(argv: Sequence[str]) -> int:
    """Reproduces one system; returns 0 whether its claims hold or not."""
    systems = [arg for arg in argv[1:] if not arg.startswith("-")]
    options = hparams.parse_options([arg for arg in argv if arg not in systems], Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    if not options.page_only:
        for system in systems or [""]:
            _reproduce(system, options)
    run.write_text(ROOT / "RESULTS.md", page([json.loads(p.read_text()) for p in _result_files()]))
    return 0


def _reproduce(system: str, options: Options) -> None:
    known = sorted(
        p.stem.replace("_", ".", 1)
        for p in (ROOT / "tools/claims").glob("*_*.py")
        if p.stem[0] != "_"
    )
    if system not in known:
        raise UserError(
            f"unknown system: {system!r}.{hparams.nearest(system, known)} "
            f"Systems with claims: {', '.join(known)}"
        )
    claims = importlib.import_module(f"tools.claims.{system.replace('.', '_')}")
    runs = {r.name: r for r in claims.runs(options.budget)}
    names = options.only.split(",") if options.only else list(runs)
    for name in names:
        if name not in runs:
            raise UserError(
                f"unknown run: --only={name}.{hparams.nearest(name, runs)} "
                f"Runs of {system}: {', '.join(runs)}"
            )
    outcomes = {name: _outcome(runs[name], system, options) for name in names}
    found = claims.check(outcomes)
    RESULTS.mkdir(exist_ok=True)
    claims.picture(outcomes, RESULTS / f"{system}.png")
    result = {
        "system": system,
        "budget": options.budget,
        "command": f"python -m tools.reproduce {system} --budget={options.budget}",
        "minutes": round(sum(o.minutes for o in outcomes.values()), 1),
        "seeds": sorted({o.run.seed for o in outcomes.values()}),
        "claims": [dataclasses.asdict(c) for c in found],
        "runs": [_row(o) for o in outcomes.values()],
        "not_run": [name for name in runs if name not in outcomes],
        "environment": environment(),
    }
    run.write_text(RESULTS / f"{system}.json", json.dumps(result, indent=1) + "\n")
    for claim in found:
        print(f"{'holds' if claim.holds else 'FALLS SHORT'}: {claim.claim} | {claim.ours}")


def _outcome(r: Run, system: str, options: Options) -> Outcome:
    run_dir = run.RunDir(ROOT / options.runs_dir / system / options.budget / r.name)
    data = [f"--data_dir={options.data_dir}"] if options.data_dir else []
    if not options.evaluate_only:
        _call("tfgen.train", [f"--flagfile=configs/{r.flagfile}", *r.flags, *data], run_dir)
    metrics = [line for line in run.read_jsonl(run_dir.metrics) if "epoch" in line]
    done = run.read_jsonl(run_dir.evaluations)
    if not done or done[-1]["step"] < metrics[-1]["step"]:
        _call("tfgen.evaluate", [*r.evaluation, *data], run_dir)
        done = run.read_jsonl(run_dir.evaluations)
    return Outcome(
        r, run_dir.path, done[-1]["measures"], metrics[-1]["epoch"], _minutes(run_dir)
    )  # fmt: skip


def _minutes(run_dir: run.RunDir) -> float:
    from tfgen.training import checkpoint

    return checkpoint.read_record(run_dir.checkpoints)["seconds"] / 60


def _call(module: str, flags: list[str], run_dir: run.RunDir) -> None:
    command = [sys.executable, "-m", module, *flags, f"--run_dir={run_dir.path}"]
    print(" ".join(command[1:]), flush=True)
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        raise UserError(f"{module} ended with status {status}; see above")


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.run.name,
        "flags": [f"--flagfile=configs/{outcome.run.flagfile}", *outcome.run.flags],
        "seed": outcome.run.seed,
        "epochs": round(outcome.epochs, 2),
        "minutes": round(outcome.minutes, 1),
        "measures": outcome.measures,
    }


def environment() -> dict[str, Any]:
    """Versions and the processor that the numbers come from."""
    import os
    from importlib import metadata

    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _result_files() -> list[pathlib.Path]:
    files = [p for p in RESULTS.glob("*.json") if not p.stem.startswith("bench")]
    return sorted(files, key=lambda p: p.stem)


def page(results: list[dict[str, Any]]) -> str:
    """RESULTS.md from the contents of results/*.json."""
    lines = [
        "# Results",
        "",
        "Written by `python -m tools.reproduce` from `results/*.json`: do not edit. A claim that",
        "falls short stays here and says so. The paper's numbers are for its own, full budget.",
    ]
    for result in results:
        env = result["environment"]
        lines += [
            "",
            f"## {result['system']}",
            "",
            f"`{result['command']}`: budget {result['budget']}, {result['minutes']:g} minutes of "
            f"training in all, seeds {', '.join(map(str, result['seeds']))}; {env['cores']} cores "
            f"of {env['processor']}, TensorFlow {env['tensorflow']}, {env['date']}.",
            "",
            "| claim | paper | ours | baseline | unit | |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for c in result["claims"]:
            verdict = "holds" if c["holds"] else "**falls short**"
            cells = [c["claim"], c["paper"], c["ours"], c["baseline"], c["unit"], verdict]
            lines.append("| " + " | ".join(cells) + " |")
        measures = _shown(result["runs"])
        lines += [
            "",
            "| run | epochs | minutes | " + " | ".join(measures) + " |",
            "| --- | --- | --- | " + " | ".join("---" for _ in measures) + " |",
        ]
        for row in result["runs"]:
            values = [_number(row["measures"].get(m)) for m in measures]
            cells = [row["name"], f"{row['epochs']:g}", f"{row['minutes']:g}", *values]
            lines.append("| " + " | ".join(cells) + " |")
        if result["not_run"]:
            lines += ["", f"Not run yet, and so not claimed: {', '.join(result['not_run'])}."]
        lines += ["", f"![{result['system']}](results/{result['system']}.png)"]
    missing = sorted(set(hparams.systems()) - {result["system"] for result in results})
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _shown(rows: list[dict[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row["measures"]))
    return list(names)


def _number(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    error = f" ± {measure['error']:.2g}" if measure["error"] is not None else ""
    return f"{measure['value']:.5g}{error}"


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
