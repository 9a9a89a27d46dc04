"""RESULTS.md from results/*.json: what is claimed, what was measured, where and when."""

import itertools
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tfgen import hparams

FOLDER = pathlib.Path(__file__).parent.parent / "results"
_HEADER = """\
# Results

Written by `python -m tools.reproduce` from `results/*.json`: do not edit. A claim that
falls short stays here and says so. The paper's numbers are for its own, full budget.
A claim is made only where all the rows it needs have been measured.
"""
_QUARTER = re.compile(r"_q[1-4]$")  # The end of a measure that is part of a curve.
_SHORT = ("elbo", "fid", "kid", "kl", "nll")  # written in capitals


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The contents of results/*.json, but for the benchmark's."""
    files = [p for p in folder.glob("*.json") if not p.stem.startswith("bench")]
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(files, key=lambda p: p.stem)]


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A result's rows, each with its environment; once there was one for the whole file."""
    whole = {"environment": result["environment"]} if "environment" in result else {}
    return [{**whole, **row} for row in result["runs"]]


def page(results: Sequence[dict[str, Any]]) -> str:
    """RESULTS.md from the contents of results/*.json."""
    sections = [_HEADER, _summary(results), *map(_section, results)]
    return "\n".join(sections)


def _summary(results: Sequence[dict[str, Any]]) -> str:
    measured = {result["system"]: result for result in results}
    body = []
    for system in sorted({*measured, *hparams.systems()}):
        if system not in measured:
            body.append([system, "", "", "all"])
            continue
        result = measured[system]
        holds = [claim["holds"] for claim in result["claims"]]
        left_out = len(result.get("not_measured", []))
        link = f"[{system}](#{system.replace('.', '')})"
        body.append([link, *(_count(n) for n in (sum(holds), holds.count(False), left_out))])
    return table(["system", "claims that hold", "fall short", "not measured"], body)


def _count(number: int) -> str:
    return str(number) if number else ""


def _section(result: dict[str, Any]) -> str:
    parts = [f"## {result['system']}\n", _provenance(result)]
    if result["claims"]:
        parts.append(_claims(result["claims"]))
        parts += _whys(result["claims"])
    if result.get("not_measured"):
        parts.append(_left_out(result["not_measured"]))
    for alike in _alike(rows(result)):
        parts.append(_rows(alike))
    if result["not_run"]:
        parts.append(f"Rows not measured yet: {_names(result['not_run'])}.\n")
    pictures = sorted(
        path for kind in ("png", "gif") for path in FOLDER.glob(f"{result['system']}.*{kind}")
    )
    if not pictures and result["runs"]:
        parts.append("There is no picture yet.\n")
    parts += [f"![{path.stem}](results/{path.name})\n" for path in pictures]
    return "\n".join(parts)


def _provenance(result: dict[str, Any]) -> str:
    text = f"`{result['command']}`: budget {result['budget']}"
    if not result["runs"]:
        return f"{text}; no row has been measured.\n"
    return (
        f"{text}, {result['minutes']:g} minutes in all, "
        f"seeds {', '.join(map(str, result['seeds']))}; "
        f"{_environments([row['environment'] for row in rows(result)])}.\n"
    )


def _environments(environments: Sequence[dict[str, Any]]) -> str:
    """Machines, with their rows where there are several; versions; the dates from first to last."""
    machines = Counter(map(_machine, environments))
    if len(machines) > 1:
        said = ", ".join(f"{machine} ({_rows_of(n)})" for machine, n in machines.items())
    else:
        said = next(iter(machines))
    versions = sorted({environment["tensorflow"] for environment in environments})
    dates = [environment["date"] for environment in environments]
    when = " to ".join(dict.fromkeys((min(dates), max(dates))))
    return f"{said}, TensorFlow {' and '.join(versions)}, {when}"


def _machine(environment: dict[str, Any]) -> str:
    gpus = "".join(f" with {gpu}" for gpu in environment.get("gpus", []))
    return f"{environment['cores']} cores of {environment['processor']}{gpus}"


def _rows_of(number: int) -> str:
    return f"{number} row{'s' * (number > 1)}"


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    body = [
        [*(claim[k] for k in ("claim", "paper", "ours", "baseline", "unit")),
         "holds" if claim["holds"] else "**falls short**"]
        for claim in claims
    ]  # fmt: skip
    return table(["claim", "paper", "ours", "baseline", "unit", ""], body)


def _whys(claims: Iterable[dict[str, Any]]) -> list[str]:
    """One part, what is known of the claims that fall short, or none."""
    known = [c for c in claims if not c["holds"] and c.get("why")]
    if not known:
        return []
    lines = [f"* *{claim['claim']}*: {claim['why']}" for claim in known]
    return ["\n".join(["What is known of why they fall short:", "", *lines, ""])]


def _left_out(not_measured: Iterable[dict[str, Any]]) -> str:
    lines = [f"* {left['claim']}: needs {_names(left['missing'])}" for left in not_measured]
    return "\n".join(["Not measured, and so not claimed:", "", *lines, ""])


def _names(names: Iterable[str]) -> str:
    """Names of rows, those that differ by their seeds as one: "a_seed0, 1"."""
    seeds: dict[str, list[str]] = {}
    for name in names:
        start, _, seed = name.partition("_seed")
        seeds.setdefault(start, []).append(seed)
    return "; ".join(
        f"{start}_seed{', '.join(of)}" if all(of) else start for start, of in seeds.items()
    )


def _alike(all_rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows in groups of the same measures but for curves: those of one data set, or of one toy."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in all_rows:
        groups.setdefault(_measures(row), []).append(row)
    return list(groups.values())


def _measures(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in row["measures"] if not _QUARTER.search(name))


def _rows(alike: Sequence[dict[str, Any]]) -> str:
    """The table of some rows; what is the same in all stands below it, and curves below that."""
    names = _measures(alike[0])
    columns: dict[str, list[dict[str, Any]]] = {}
    if "epochs" in alike[0]:
        columns["epochs"] = [{"value": row["epochs"]} for row in alike]
    for name, said in zip(names, _titles(names), strict=True):
        columns[said] = [row["measures"][name] for row in alike]
    varying = [said for said, measures in columns.items() if _varies(measures)]
    body = [
        [row["name"], f"{row['minutes']:g}", *(_number(columns[said][at]) for said in varying)]
        for at, row in enumerate(alike)
    ]
    shown = table(["toy" if "toy" in alike[0] else "run", "minutes", *varying], body)
    same = [f"{said} {_number(columns[said][0])}" for said in columns if said not in varying]
    shown += f"\nThe same in all: {', '.join(same)}.\n" if same else ""
    if features := _features(names):
        shown += (
            f"\nFID and its like are by the features of the {features.replace('_', ' ')}, and are "
            "comparable with no others.\n"
        )
    return shown + _curves(alike)


def _features(names: Sequence[str]) -> str:
    """What the measures of samples were taken by, as their names say; empty if there are none."""
    return next((name.removeprefix("fid_") for name in names if name.startswith("fid_")), "")


def _curves(alike: Sequence[dict[str, Any]]) -> str:
    """The table of what rows logged, four means a cell, or nothing."""
    drawn = [row for row in alike if len(row["measures"]) > len(_measures(row))]
    if not drawn:
        return ""
    names = [name.removesuffix("_q1") for name in drawn[0]["measures"] if name.endswith("_q1")]
    body = [[r["name"], *(_quarters(r["measures"], name) for name in names)] for r in drawn]
    title = "\nMeans over the quarters of the training:\n\n"
    return title + table(["run", *_titles(names)], body)


def _quarters(measures: dict[str, dict[str, Any]], name: str) -> str:
    return ", ".join(f"{measures[f'{name}_q{quarter}']['value']:.3g}" for quarter in range(1, 5))


def _varies(measures: Sequence[dict[str, Any]]) -> bool:
    """Whether rows differ in a number as it is written, or there is but one row."""
    return len(measures) == 1 or len(set(map(_number, measures))) > 1


def _titles(names: Sequence[str]) -> list[str]:
    """Measures as a reader says them: "FID" for "fid_mnist_classifier"."""
    features = _features(names)
    said = []
    for name in names:
        words = (
            name.removesuffix(f"_{features}" if features else "")
            .replace("ms_ssim", "MS-SSIM")
            .split("_")
        )
        said.append(" ".join(word.upper() if word in _SHORT else word for word in words))
    return said


def _number(measure: dict[str, Any]) -> str:
    error = f" ± {measure['error']:.2g}" if measure.get("error") is not None else ""
    return f"{measure['value']:.4g}{error}"


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table of cells."""
    ruled = itertools.chain([header, ["---"] * len(header)], body)
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in ruled)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)
