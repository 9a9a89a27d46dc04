"""Measures what a system's paper claims: `python -m tools.reproduce vae.iwae [--budget=small]`.

Trains the system and its baselines (resuming what is there), evaluates them, checks the claims and
writes results/<system>.json and results/<system>.png; RESULTS.md and OBJECTIVES.md are generated
from all of results/*.json. What is to be run and what is claimed stands in
tools/claims/<family>_<system>.py.

The rows of results/<system>.json may be measured in portions, each on another machine:
--only=NAME,... measures some and keeps the others, --list shows what is done. The file is written
after each row.
"""

import dataclasses
import datetime
import functools
import importlib
import inspect
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from tfgen import commands, evaluate, hparams, run
from tfgen.errors import UserError
from tfgen.metrics.measure import Measure
from tools import objectives_page, results_page
from tools.claims._base import FOLDERS, Claim, NotRun, Outcome, Outcomes, Run, Toy

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = results_page.FOLDER


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command."""

    budget: Literal["small", "paper"] = "small"  # Size of the runs.
    data_dir: str | None = None  # Where TFDS keeps data sets; default: TFDS's own.
    folders_dir: str = "data"  # Where image folders lie that rows ask for by name, see tools.faces.
    runs_dir: str = "runs/reproduce"  # Where the runs lie; finished ones are not run again.
    only: str | None = None  # Names of rows, comma separated; the others stay as they are.
    list: bool = False  # Only print the rows, done or not.
    page_only: bool = False  # Measure nothing: check by the rows that are there, write RESULTS.md.
    evaluate_only: bool = False  # Use the checkpoints that are there, finished or not.
    help: bool = False  # Print all flags, and stop.


def main(argv: Sequence[str]) -> int:
    """Reproduces some systems; returns 0 whether their claims hold or not."""
    systems = [arg for arg in argv[1:] if not arg.startswith("-")]
    options = hparams.parse_options([arg for arg in argv if arg not in systems], Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    # What is measured here must leave room for the training of the next run.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if not systems and options.list:
        systems = systems_with_claims()
    for system in systems or ([] if options.page_only else [""]):
        claims = load_claims(system)
        if options.list:
            print_rows(system, claims, options.budget)
        else:
            reproduce(system, claims, options)
    if not options.list:
        run.write_text(ROOT / "RESULTS.md", results_page.page(results_page.read(RESULTS)))
        objectives_page.write()
    return 0


def systems_with_claims() -> list[str]:
    """Dotted names of what has a module in tools/claims: systems, and other modules of tfgen."""
    stems = sorted(p.stem for p in (ROOT / "tools/claims").glob("*_*.py"))
    return [stem.replace("_", ".", 1) for stem in stems if not stem.startswith("_")]


def load_claims(system: str) -> types.ModuleType:
    """The module of a system's claims.

    Raises:
        UserError: if it has none.
    """
    known = systems_with_claims()
    if system not in known:
        raise UserError(
            f"unknown system: {system!r}.{hparams.nearest(system, known)} "
            f"Systems with claims: {', '.join(known)}"
        )
    return importlib.import_module(f"tools.claims.{system.replace('.', '_')}")


def reproduce(system: str, claims: types.ModuleType, options: Options) -> None:
    """Measures the rows that are asked for, and checks all claims that have their rows."""
    rows = {row.name: row for row in claims.rows(options.budget)}
    names = _chosen(system, rows, options)
    done = kept(system, rows, options)
    folders = {}
    for name in names:
        row, folder = rows[name], _folder(system, name, options)
        if isinstance(row, Toy):
            done[name] = _played(row, folder)
        else:
            outcome = _trained(row, folder, options)
            found = _row(row, outcome, getattr(claims, "measure", lambda _: {}))
            if name in done and done[name]["measures"] == found["measures"]:
                found["environment"] = done[name]["environment"]  # where it was measured, and when
            done[name] = found
            folders[name] = folder
        _write(system, claims, options.budget, rows, done)
    found, left_out = _write(system, claims, options.budget, rows, done)
    for claim in found:
        print(f"{'holds' if claim.holds else 'FALLS SHORT'}: {claim.claim} | {claim.ours}")
    for left in left_out:
        print(f"not measured: {left['claim']} | needs {', '.join(left['missing'])}")
    if names:
        outcomes = _outcomes(rows, done, folders)
        for part, draw in claims.PICTURES.items():
            name = ".".join(filter(None, (system, part, "png")))
            try:
                draw(outcomes, RESULTS / name)
            except NotRun as error:
                print(f"results/{name} is left as it is: it needs {error}")


def _chosen(system: str, rows: Mapping[str, Run | Toy], options: Options) -> list[str]:
    """The rows that this call measures."""
    if options.page_only:
        return []
    if options.only is None:
        begun = (name for name in rows if _folder(system, name, options).exists())
        return list(begun if options.evaluate_only else rows)
    names = options.only.split(",")
    for name in names:
        if name not in rows:
            raise UserError(
                f"unknown row: --only={name}.{hparams.nearest(name, rows)} "
                f"Rows of {system}: {', '.join(rows)}"
            )
    return names


def _folder(system: str, name: str, options: Options) -> pathlib.Path:
    return ROOT / options.runs_dir / system / options.budget / name


def kept(system: str, rows: Mapping[str, Run | Toy], options: Options) -> dict[str, dict[str, Any]]:
    """The rows of results/<system>.json that are still those of the claims; says which are not.

    Raises:
        UserError: if all would be lost for nothing, because another budget's page was asked for.
    """
    found, dropped = _read_rows(system, rows, options.budget)
    if options.page_only and dropped and not found:
        raise UserError(f"results/{system}.json would lose {'; '.join(dropped)}")
    for text in dropped:
        print(f"results/{system}.json: dropped {text}")
    return found


def _read_rows(
    system: str, rows: Mapping[str, Run | Toy], budget: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    path = RESULTS / f"{system}.json"
    if not path.exists():
        return {}, []
    result = json.loads(path.read_text(encoding="utf-8"))
    if result["budget"] != budget:
        return {}, [f"all rows: they are of --budget={result['budget']}"]
    found, dropped = {}, []
    for row in results_page.rows(result):
        name = row["name"]
        if name not in rows:
            dropped.append(f"{name}: there is no such row any more")
        elif other := _differences(row, rows[name]):
            dropped.append(f"{name}: {other}")
        else:
            found[name] = {**rows[name].record(), **row}
    return found, dropped


def _differences(row: Mapping[str, Any], wanted: Run | Toy) -> str:
    """In what a row was measured otherwise than is wanted now; empty if in nothing."""
    record = wanted.record()
    if isinstance(wanted, Run) and "evaluation" not in row:
        del record["evaluation"]  # a file of the first form, which does not tell
    found = [f"{k} {row.get(k)}, now {v}" for k, v in record.items() if row.get(k) != v]
    if not found and isinstance(wanted, Run) and "settings" in row:
        changed = row["settings"] != wanted.settings()
        found = [f"configs/{wanted.flagfile} has changed since"] if changed else []
    return "; ".join(found)


def print_rows(system: str, claims: types.ModuleType, budget: str) -> None:
    """Prints the rows of a system, which of them are done, and their minutes."""
    rows = {row.name: row for row in claims.rows(budget)}
    done, dropped = _read_rows(system, rows, budget)
    print(f"{system}: {len(done)} of {len(rows)} rows are done at --budget={budget}")
    for name in rows:
        print(f"  {name:<32} {_state(done[name]) if name in done else 'not done'}")
    for text in dropped:
        print(f"  to be dropped: {text}")


def _state(row: Mapping[str, Any]) -> str:
    epochs = f", {row['epochs']:g} epochs" if "epochs" in row else ""
    return f"done, {row['minutes']:g} minutes{epochs}, {row['environment']['date']}"


def _trained(r: Run, folder: pathlib.Path, options: Options) -> Outcome:
    """Trains and evaluates a run, as far as that has not been done."""
    run_dir = run.RunDir(folder)
    data = [f"--data_dir={options.data_dir}"] if options.data_dir else []
    if not options.evaluate_only:
        _call("tfgen.train", [*training_flags(r, options.folders_dir), *data], run_dir)
    logged = [line for line in run.read_jsonl(run_dir.metrics) if "epoch" in line]
    if not logged:
        raise UserError(f"nothing is logged in {folder} yet: leave out --evaluate_only to train")
    done = _evaluations(run_dir, r, logged[-1]["step"])
    if not done:
        _call("tfgen.evaluate", [*r.evaluation, *data], run_dir)
        done = run.read_jsonl(run_dir.evaluations)
    return Outcome(
        r.name, done[-1]["measures"], _minutes(run_dir), logged[-1]["epoch"], run_dir.path
    )


def training_flags(r: Run, folders_dir: str) -> list[str]:
    """Flags of `tfgen.train` for a row, with the place of image folders in them."""
    folders = str(pathlib.Path(folders_dir).absolute())
    return [f"--flagfile=configs/{r.flagfile}", *(f.replace(FOLDERS, folders) for f in r.flags)]


def _evaluations(run_dir: run.RunDir, r: Run, step: int) -> list[dict[str, Any]]:
    """Evaluations of the run from a step on that were made with its flags."""
    wanted = hparams.parse_options(["", *r.evaluation, f"--run_dir={run_dir.path}"],
                                   evaluate.Options)  # fmt: skip
    return [
        line
        for line in run.read_jsonl(run_dir.evaluations)
        if line["step"] >= step
        and all(getattr(wanted, k) == line[k] for k in line.keys() - {"step", "measures"})
    ]


def _minutes(run_dir: run.RunDir) -> float:
    from tfgen.training import checkpoint

    return checkpoint.read_record(run_dir.checkpoints)["seconds"] / 60


def _call(module: str, flags: list[str], run_dir: run.RunDir) -> None:
    command = [sys.executable, "-m", module, *flags, f"--run_dir={run_dir.path}"]
    print(" ".join(command[1:]), flush=True)
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        raise UserError(f"{module} ended with status {status}; see above")


def _row(
    r: Run, outcome: Outcome, measure: Callable[[Outcome], dict[str, Measure]]
) -> dict[str, Any]:
    """A row of results/<system>.json."""
    return {
        **r.record(),
        "settings": r.settings(),
        "epochs": round(outcome.epochs or 0.0, 2),
        "minutes": round(outcome.minutes, 1),
        "measures": {**outcome.measures, **_plain(measure(outcome))},
        "environment": environment(),
    }


def _played(toy: Toy, folder: pathlib.Path) -> dict[str, Any]:
    """The row of a toy; like a finished run, one that lies in its folder is not made again."""
    path = folder / "row.json"
    if path.exists():
        row = json.loads(path.read_text(encoding="utf-8"))
        if not _differences(row, toy):
            return row
    print(f"{toy.name}: {toy.function.__name__}", flush=True)
    start = time.perf_counter()
    measures = toy.function(seed=toy.seed, **toy.arguments)
    row = {
        **toy.record(),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "measures": _plain(measures),
        "environment": environment(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    run.write_text(path, json.dumps(row) + "\n")
    return row


def _plain(measures: Mapping[str, Measure]) -> dict[str, dict[str, Any]]:
    return {name: dataclasses.asdict(measure) for name, measure in measures.items()}


def _outcomes(
    rows: Iterable[str],
    done: Mapping[str, dict[str, Any]],
    folders: Mapping[str, pathlib.Path] = types.MappingProxyType({}),
) -> Outcomes:
    found = {
        name: Outcome(name, row["measures"], row["minutes"], row.get("epochs"), folders.get(name))
        for name, row in done.items()
    }
    return Outcomes(found, rows)


def check(
    claims: Iterable[Callable[[Outcomes], Claim | list[Claim]]], outcomes: Outcomes
) -> tuple[list[Claim], list[dict[str, Any]]]:
    """The claims whose rows are there, and for the others {"claim", "missing"}."""
    found, left_out = [], []
    for function in claims:
        try:
            claimed = function(outcomes)
        except NotRun as error:
            left_out.append({"claim": title(function), "missing": list(error.missing)})
            continue
        found += claimed if isinstance(claimed, list) else [claimed]
    return found, left_out


def title(claim: Callable[[Outcomes], Claim | list[Claim]]) -> str:
    """What a claim's function is about: the first line of its docstring, and what was bound."""
    if isinstance(claim, functools.partial):
        given = ", ".join(f"{name} = {value}" for name, value in claim.keywords.items())
        return f"{title(claim.func)} ({given})"
    return (inspect.getdoc(claim) or "").partition("\n")[0].removesuffix(".")


def _write(
    system: str,
    claims: types.ModuleType,
    budget: str,
    rows: Mapping[str, Run | Toy],
    done: Mapping[str, dict[str, Any]],
) -> tuple[list[Claim], list[dict[str, Any]]]:
    """Writes results/<system>.json; returns its claims and those left out, as `check` does."""
    found, left_out = check(claims.CLAIMS, _outcomes(rows, done))
    ordered = [done[name] for name in rows if name in done]
    result = {
        "system": system,
        "budget": budget,
        "command": f"python -m tools.reproduce {system} --budget={budget}",
        "minutes": round(sum(row["minutes"] for row in ordered), 1),
        "seeds": sorted({row["seed"] for row in ordered}),
        "claims": [dataclasses.asdict(c) for c in found],
        "not_measured": left_out,
        "runs": ordered,
        "not_run": [name for name in rows if name not in done],
    }
    RESULTS.mkdir(exist_ok=True)
    run.write_text(RESULTS / f"{system}.json", json.dumps(result, indent=1) + "\n")
    return found, left_out


def environment() -> dict[str, Any]:
    """The date, the versions and the processors that a row comes from."""
    from importlib import metadata

    import tensorflow as tf

    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    packages = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", "unknown GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "gpus": gpus,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `_call` ends its child
    sys.exit(commands.execute(main, sys.argv))
