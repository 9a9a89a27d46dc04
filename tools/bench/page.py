"""BENCH.md from results/bench.json."""

import statistics
from collections.abc import Sequence
from typing import Any

from tools.bench.figures import QUIET, Result, disturbance
from tools.bench.parts import ALL, NAMES, THEIRS_ANY, FirstStep, Part

_INTRODUCTION = """# Speed

Made by `python -m tools.bench` from `results/bench.json`; do not edit. Contenders take turns on the
same two cores in one run, each in a process of its own; figures are medians over the turns, [least,
most] in brackets.

To reproduce: `pip install -r requirements-bench.txt`, then `python -m tools.bench` on a machine
that does nothing else. `--only=PART,PART` measures some parts and keeps the others' figures.
"""

_POSSIBLE = """*Possible at most*: the ratio to PyTorch that a float32 step would reach here that
did nothing but its matrix products, each at the faster library's rate. A target above it is out of
this machine's reach for any implementation.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, align, *rows))


def shown(value: float | None, measure: str) -> str:
    """A measure's value with its unit."""
    if value is None:
        return "not measured"
    if "share" in measure:
        return f"{100 * value:.0f} %"
    return f"{value:.1f} s" if measure == "seconds" else f"{value:.2f}"


def render(results: dict[str, Any]) -> str:
    """The page."""
    parts = results["parts"]
    lines = [_INTRODUCTION]
    disturbed = [name for name, result in parts.items() if disturbance(result) > QUIET]
    if disturbed:
        lines += [
            f"**Not valid: {', '.join(disturbed)}.** The machine had other work meanwhile, which "
            "slows the contenders unequally (PyTorch's threads wait by spinning); no verdicts.",
            "",
        ]
    missing = [name for name in ALL if name not in parts]
    if missing:
        lines += [f"Not measured yet: {', '.join(missing)}.", ""]
    lines += ["## Targets", "", _targets(results["targets"]), "", _POSSIBLE]
    for name, part in ALL.items():
        if isinstance(part, Part) and name in parts:
            lines += _part(part, parts[name], results["figures"][name])
    lines += _first_steps(parts)
    lines += ["## Measured on", "", *(_measured_on(name, parts[name]) for name in parts)]
    return "\n".join(lines) + "\n"


def _targets(targets: Sequence[dict[str, Any]]) -> str:
    rows = []
    for row in targets:
        sense = "at least" if row["sense"] == ">=" else "at most"
        bound = f"{sense} {shown(row['bound'], row['measure'])}"
        possible = f"{row['possible']:.2f}" if "possible" in row else ""
        verdict = {True: "yes", False: "**no**", None: "-"}[row["holds"]]
        rows.append((row["text"], bound, shown(row["value"], row["measure"]), possible, verdict))
    return _table(("", "target", "measured", "possible at most", "holds"), rows)


def _part(part: Part, result: Result, figures: dict[str, Any]) -> list[str]:
    notes = [*_comparisons(part, figures), *_floor(figures), *part.notes, *_adams(result)]
    lines = [f"## {part.title}", "", part.about, "", _contenders(result, figures), ""]
    return [*lines, *(f"* {note}" for note in notes), ""]


def _contenders(result: Result, figures: dict[str, Any]) -> str:
    contenders, rows = result["contenders"], []
    theirs = figures.get("over_torch", {}).get("over")
    base = contenders[theirs or "tfgen"].get("median") if theirs or "tfgen" in contenders else None
    for name, text in NAMES.items():
        found = contenders.get(name)
        if not found:
            continue
        if "median" not in found:
            rows.append((text, f"failed: {found.get('error', '?')[:60]}", "", "", ""))
            continue
        rate = f"{found['median']:.1f} [{min(found['rates']):.1f}, {max(found['rates']):.1f}]"
        ratio = f"{found['median'] / base:.2f}" if base and name != "tfgen_pipeline" else ""
        cpu = f"{statistics.median(found['cpu_ms']):.2f}"
        rows.append((text, rate, ratio, cpu, f"{found['peak_mib']:.0f}"))
    over = "over the faster float32 PyTorch" if theirs else "over plain tfgen"
    return _table(("", "steps/s", over, "CPU ms a step", "peak MiB"), rows)


def _comparisons(part: Part, figures: dict[str, Any]) -> list[str]:
    notes = []
    for comparison in part.comparisons:
        found = figures.get(comparison.measure)
        if not found:
            continue
        value, least, most = (found[key] for key in ("value", "least", "most"))
        if comparison.form == "ratio":
            who = f"({found['of']} / {found['over']})"
            notes.append(f"{comparison.text}: **{value:.2f}** [{least:.2f}, {most:.2f}] {who}")
        elif comparison.form in ("time", "memory"):
            notes.append(comparison.text.format(f"{value:.2f} [{least:.2f}, {most:.2f}]"))
        else:
            least, most = sorted((100 * least, 100 * most))
            notes.append(comparison.text.format(f"{100 * value:.1f} % [{least:.1f}, {most:.1f}]"))
    return notes


def _floor(figures: dict[str, Any]) -> list[str]:
    floor = figures.get("floor")
    if not floor:
        return []
    reached = "".join(
        f"; {figures[key]['of']} reaches {100 * figures[key]['value']:.0f} %"
        for key in ("share_of_floor", "torch_share_of_floor")
        if key in figures
    )
    lines = [
        f"floor: {floor['flops'] / 1e9:.2f} GFLOP of matrix products a step, at "
        f"{floor['gflops_per_second']:.0f} GFLOP/s {1000 * floor['seconds']:.2f} ms, "
        f"{1 / floor['seconds']:.1f} steps/s{reached}"
    ]
    own = figures.get("tensorflow_floor")
    if own:
        lines.append(
            f"the same products by TensorFlow alone take {1000 * own['seconds']:.2f} ms: a float32 "
            f"step by TensorFlow's kernels can reach {own['value']:.2f} of {own['over']} at most"
        )
    return lines


def _adams(result: Result) -> list[str]:
    notes = []
    for name in THEIRS_ANY:
        facts = result["contenders"].get(name, {})
        if "adam" in facts:
            rates = "; ".join(f"{n}: {r}" for n, r in facts["adam_steps_per_second"].items())
            notes.append(f"{name}: Adam {facts['adam']} (steps/s in the trial: {rates})")
    return notes


def _first_steps(parts: dict[str, Result]) -> list[str]:
    lines = []
    for name, part in ALL.items():
        result = parts.get(name)
        if not isinstance(part, FirstStep) or not result:
            continue
        if "error" in result:
            lines.append(f"* {part.config} failed: {result['error']}")
            continue
        lines.append(
            f"* `{result['command']}`: {result['median']:.1f} s from the start of the process "
            f"[{min(result['runs']):.1f}, {max(result['runs']):.1f}]; "
            f"{result['first_ever']:.1f} s the very first time, when the data set is prepared."
        )
    return ["## From command to first step", "", *lines, ""] if lines else []


def _measured_on(name: str, result: Result) -> str:
    env = result["environment"]
    versions = ", ".join(f"{p} {v}" for p, v in env["versions"].items())
    return (
        f"* {name}: {env['cpu']}, {env['cores_used']} of {env['cores_of_machine']} cores, "
        f"{env['threads']} threads; Python {env['python']}, {versions}; {result['repeats']} "
        f"turns, {env['date']}; images: {result['images']}; other processes kept "
        f"{disturbance(result):.2f} cores busy."
    )
