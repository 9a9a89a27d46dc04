"""Ratios, floors and targets from the raw turns."""

import statistics
from collections.abc import Sequence
from typing import Any

from tools.bench import parts as descriptions
from tools.bench.parts import Comparison, Part
from tools.bench.work import Step, flops

QUIET = 0.1  # cores that other processes may keep busy; PyTorch's waiting threads suffer the most
Result = dict[str, Any]  # Of a part, as in results/bench.json.


def fastest(result: Result, names: Sequence[str]) -> str | None:
    """The one of these contenders with the largest median, None where none was measured."""
    having = [n for n in names if "median" in result["contenders"].get(n, {})]
    return max(having, key=lambda n: result["contenders"][n]["median"], default=None)


_FORMS = {  # Of first / second; they grow with it or fall with it.
    "ratio": lambda x: x,
    "time": lambda x: x,
    "share": lambda x: 1.0 - x,
    "extra": lambda x: x - 1.0,
}


def compared(result: Result, comparison: Comparison) -> dict[str, Any] | None:
    """By medians of steps/s, and the least and largest of one turn; None where not measured."""
    first, second = (fastest(result, names) for names in (comparison.first, comparison.second))
    if first is None or second is None:
        return None
    a, b = (result["contenders"][name] for name in (first, second))
    if comparison.form == "memory":
        value = a["peak_mib"] / b["peak_mib"]
        return {"of": first, "over": second, "value": value, "least": value, "most": value}
    form = _FORMS[comparison.form]
    turns = [form(x / y) for x, y in zip(a["rates"], b["rates"], strict=False)]
    return {
        "of": first,
        "over": second,
        "value": form(a["median"] / b["median"]),
        "least": min(turns),
        "most": max(turns),
    }


def floor(
    result: Result, step: Step, libraries: Sequence[str] = ("gemm_tf", "gemm_torch")
) -> dict[str, Any] | None:
    """Time that a step's matrix products take at least: each by the faster of some libraries."""
    timed = [result["contenders"].get(n, {}).get("each") for n in libraries]
    if not any(timed):
        return None
    medians = [
        min(statistics.median(turn[i] for turn in turns) for turns in timed if turns)
        for i in range(len(step))
    ]
    seconds = sum(times * m for (_, times), m in zip(step, medians, strict=True))
    total = flops(step)
    return {"flops": total, "seconds": seconds, "gflops_per_second": total / seconds / 1e9}


def _of_part(part: Part, result: Result) -> dict[str, Any]:
    found = {c.measure: compared(result, c) for c in part.comparisons}
    base = floor(result, part.step)
    if base:
        found["floor"] = base
        ours, theirs = (fastest(result, n) for n in (descriptions.OURS, descriptions.THEIRS))
        contenders = result["contenders"]
        for key, who in (("share_of_floor", ours), ("torch_share_of_floor", theirs)):
            if who:
                found[key] = {"of": who, "value": base["seconds"] * contenders[who]["median"]}
        for measure in ("over_torch", "over_torch_eager", "over_flows"):
            against = found.get(measure)
            if against:
                rate = contenders[against["over"]]["median"]
                possible = 1.0 / (base["seconds"] * rate)
                found[f"possible_{measure}"] = {"over": against["over"], "value": possible}
                own = floor(result, part.step, ("gemm_tf",))
                if own:
                    found["tensorflow_floor"] = {
                        "over": against["over"],
                        "seconds": own["seconds"],
                        "value": 1.0 / (own["seconds"] * rate),
                    }
    return {key: value for key, value in found.items() if value is not None}


def figures(results: dict[str, Result]) -> dict[str, Any]:
    """For each part that was measured its measures by name, each with its "value"."""
    found: dict[str, Any] = {}
    for name, part in descriptions.ALL.items():
        result = results.get(name)
        if not result:
            continue
        if isinstance(part, Part):
            found[name] = _of_part(part, result)
        elif "median" in result:
            found[name] = {"seconds": {
                "value": result["median"],
                "least": min(result["runs"]),
                "most": max(result["runs"]),
            }}  # fmt: skip
    return found


def disturbance(result: Result) -> float:
    """Cores that other processes kept busy while a part was measured: median over the turns."""
    others = [o for c in result.get("contenders", {}).values() for o in c["others"]]
    others += result.get("others", [])
    return statistics.median(others) if others else 0.0


def targets(found: dict[str, Any], results: dict[str, Result]) -> list[dict[str, Any]]:
    """Each target with its measured value and whether it holds.

    None instead of a verdict: not measured, or the machine had other work meanwhile.
    """
    rows = []
    for name, part in descriptions.ALL.items():
        for target in part.targets:
            measured = found.get(name, {})
            value = measured.get(target.measure, {}).get("value")
            holds = None
            if value is not None and disturbance(results[name]) <= QUIET:
                holds = value >= target.bound if target.sense == ">=" else value <= target.bound
            row = {
                "part": name, "measure": target.measure, "text": target.text,
                "sense": target.sense, "bound": target.bound, "value": value, "holds": holds,
            }  # fmt: skip
            possible = measured.get(f"possible_{target.measure}")
            if possible:
                row["possible"] = possible["value"]
            rows.append(row)
    return rows


def merged(old: dict[str, Result], new: dict[str, Result]) -> dict[str, Result]:
    """The parts measured now, and of the others what there was; in the order of `parts.ALL`.

    A part that failed, or in which nothing was measured, does not replace one that was measured.
    """
    both = {**old, **{name: r for name, r in new.items() if name not in old or _measured(r)}}
    return {name: both[name] for name in descriptions.ALL if name in both}


def _measured(result: Result) -> bool:
    contenders = result.get("contenders", {}).values()
    return "median" in result or any("median" in contender for contender in contenders)


def complete(results: dict[str, Result]) -> dict[str, Any]:
    """What results/bench.json holds: the raw parts, their figures and the targets."""
    found = figures(results)
    return {"parts": results, "figures": found, "targets": targets(found, results)}
