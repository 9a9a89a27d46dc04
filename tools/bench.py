"""Measures tfgen's speed against PyTorch, plain Keras and the machine; writes BENCH.md.

    python -m tools.bench                     all of it, about half an hour on a quiet machine
    python -m tools.bench --only=k1,k50       some parts: k1, k50, first_step
    python -m tools.bench --render_only       BENCH.md anew from results/bench.json

The figures are ratios of contenders that take turns (A B C A B C ...) on the same two cores, each
in a process of its own that sleeps while others work; medians over the turns. Needs what
requirements-bench.txt lists besides tfgen's own packages.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tools import bench_worker

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("k1", "k50", "first_step")
THREADS = 2
REST_SECONDS = 0.3  # between two turns, so that threads of the last one are asleep
WARM_UP_STEPS = 20
QUIET = 0.1  # cores that other processes may keep busy; PyTorch's waiting threads suffer the most

OURS = ("tfgen", "tfgen_jit")  # in float32
THEIRS = ("torch", "torch_compile")
OURS_ANY = (*OURS, "tfgen_bf16")
THEIRS_ANY = (*THEIRS, "torch_bf16", "torch_compile_bf16")

# What is asked: part, measure, "at least" or "at most", bound.
TARGETS = (
    ("k1", "over_torch", ">=", 1.5, "k = 1: steps/s over the faster PyTorch, float32"),
    ("k50", "over_torch", ">=", 3.5, "k = 50: steps/s over the faster PyTorch, float32"),
    ("k50", "share_of_floor", ">=", 0.6, "k = 50: share of the matrix products' floor"),
    ("k1", "replicas_cost", "<=", 1.2, "k = 1: step time of two replicas over one"),
    ("k50", "replicas_cost", "<=", 1.2, "k = 50: step time of two replicas over one"),
    ("first_step", "seconds", "<=", 10.0, "digits: seconds from command to first step"),
    ("k1", "waiting_share", "<=", 0.05, "k = 1: share of the step spent on the input pipeline"),
)

NAMES = {
    "tfgen": "tfgen",
    "tfgen_jit": "tfgen `--jit`",
    "tfgen_bf16": "tfgen `--precision=mixed_bfloat16`",
    "torch": "PyTorch, eager",
    "torch_compile": "PyTorch, `torch.compile`",
    "torch_bf16": "PyTorch, eager, bfloat16 autocast",
    "torch_compile_bf16": "PyTorch, `torch.compile`, bfloat16 autocast",
    "keras": "plain Keras: custom `train_step`, `fit`, tf.data AUTOTUNE",
    "tfgen_2_replicas": "tfgen, two logical CPUs, same global batch",
    "tfgen_constant": "tfgen on one constant batch",
    "tfgen_pipeline": "tfgen's input pipeline alone (batches)",
}


class Contender:
    """A worker process; `error` says why there is none."""

    def __init__(self, name: str, order: dict[str, Any], logs: pathlib.Path):
        self.name = name
        self.log = logs / f"{name}_k{order['k']}.log"
        self.error: str | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench_worker", json.dumps({**order, "contender": name})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            cwd=ROOT,
            env=_environment(),
        )
        self.facts = self._read()

    def run(self, steps: int) -> dict[str, Any]:
        """Has it make so many steps; empty when it failed, now or before."""
        if self.error:
            return {}
        assert self.process.stdin  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"steps": steps}), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout  # noqa: S101
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "ended without an answer"}
        self.error = answer.pop("error", None)
        if self.error:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-3:]
            print(f"{self.name}: {self.error}", *tail, sep="\n  ", file=sys.stderr)
            return {}
        return answer

    def cpu_seconds(self) -> float:
        """Processor time that the process has used."""
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
            fields = text.rpartition(")")[2].split()
            return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def close(self) -> None:
        """Lets it end."""
        assert self.process.stdin  # noqa: S101
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _environment() -> dict[str, str]:
    threads = str(THREADS)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"}
    return {**quiet, **os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}


def _busy_seconds() -> float:
    """Processor time that all of the machine's processes have used."""
    with contextlib.suppress(OSError):
        fields = pathlib.Path("/proc/stat").read_text().split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _children_seconds() -> float:
    """Processor time of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# Measuring.


def interleaved(
    names: Sequence[str], order: dict[str, Any], repeats: int, seconds: float, logs: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Turns of all contenders, one after the other, `repeats` times.

    Returns:
        For each contender its facts, the steps of a turn, and one list entry a turn of "rates"
        (steps/s), "cpu_ms" (processor time a step), "others" (cores that other processes kept busy
        meanwhile) and, for the matrix products, "each" (seconds of each).
    """
    found: dict[str, dict[str, Any]] = {}
    contenders = []
    try:
        for name in names:
            contender = Contender(name, order, logs)
            contenders.append(contender)
            contender.run(WARM_UP_STEPS)
            trial = contender.run(WARM_UP_STEPS)
            rate = WARM_UP_STEPS / trial["seconds"] if trial else 0.0
            steps = max(WARM_UP_STEPS, round(seconds * rate / WARM_UP_STEPS) * WARM_UP_STEPS)
            found[name] = {
                **contender.facts,
                "steps": steps,
                "rates": [],
                "cpu_ms": [],
                "others": [],
                "each": [],
            }
            print(f"{name}: {rate:.1f} steps/s at first", file=sys.stderr)
        for turn in range(repeats):
            for contender in contenders:
                if contender.error:
                    continue
                result = found[contender.name]
                time.sleep(REST_SECONDS)
                before = _busy_seconds() - contender.cpu_seconds(), time.monotonic()
                measured = contender.run(result["steps"])
                after = _busy_seconds() - contender.cpu_seconds(), time.monotonic()
                if not measured:
                    continue
                result["rates"].append(result["steps"] / measured["seconds"])
                result["others"].append(
                    max(0.0, (after[0] - before[0]) / max(after[1] - before[1], 1e-9))
                )
                result["cpu_ms"].append(measured["cpu_ms"])
                result["peak_mib"] = measured["peak_mib"]
                if "each" in measured:
                    result["each"].append(measured["each"])
            shown = (f"{n} {r['rates'][-1]:.1f}" for n, r in found.items() if r["rates"])
            print(f"turn {turn + 1} of {repeats}:", ", ".join(shown), file=sys.stderr)
    finally:
        for contender in contenders:
            contender.close()
    for contender in contenders:
        result = found[contender.name]
        if contender.error:
            result["error"] = contender.error
        if not result["each"]:
            del result["each"]
        if result["rates"]:
            result["median"] = statistics.median(result["rates"])
    return found


def measure_k(
    k: int, images: pathlib.Path, args: argparse.Namespace, logs: pathlib.Path
) -> dict[str, Any]:
    """The part k1 or k50: all contenders in turns."""
    names = [n for n in bench_worker.CONTENDERS if k == 1 or n not in _ONLY_K1]
    if args.contenders:
        names = [n for n in names if n in args.contenders]
    order = {"k": k, "images": str(images), "threads": THREADS}
    found = interleaved(names, order, args.repeats, args.seconds, logs)
    return {"k": k, "batch_size": bench_worker.BATCH, "contenders": found}


_ONLY_K1 = ("tfgen_constant", "tfgen_pipeline")


def measure_first_step(args: argparse.Namespace, work: pathlib.Path) -> dict[str, Any]:
    """Wall clock from the start of the command to its line "first step after"."""
    config = ROOT / "configs" / "iwae_digits.cfg"
    flags = [f"--flagfile={config.relative_to(ROOT)}"]
    if not config.exists():
        flags = ["--system=vae.iwae", "--data=digits"]
    seconds, said, others = [], [], []
    for turn in range(args.repeats + 1):
        run_dir = work / f"run_{turn}"
        command = [
            sys.executable, "-m", "tfgen.train", *flags, f"--run_dir={run_dir}",
            f"--data_dir={work / 'digits'}", "--stop_at_step=10",
        ]  # fmt: skip
        begun, busy, own = time.monotonic(), _busy_seconds(), _children_seconds()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=_environment(),
        )
        assert process.stdout  # noqa: S101
        after = None
        for line in process.stdout:
            if line.startswith("first step after") and after is None:
                after = time.monotonic() - begun
                said.append(float(line.split()[3]))
        if process.wait() or after is None:
            return {"error": f"{' '.join(flags)} ended with status {process.returncode}"}
        busy = _busy_seconds() - busy - (_children_seconds() - own)
        others.append(max(0.0, busy / (time.monotonic() - begun)))
        seconds.append(after)
        print(f"first step after {after:.1f} s", file=sys.stderr)
    return {
        "command": " ".join(["python -m tfgen.train", *flags, "--stop_at_step=10"]),
        "first_ever": seconds[0],  # prepares the data set as well
        "runs": seconds[1:],
        "said": said[1:],
        "others": others[1:],
        "median": statistics.median(seconds[1:]),
    }


def make_images(path: pathlib.Path, data_dir: str | None) -> str:
    """Writes uint8 [60000, 28, 28, 1]; MNIST's where its directory is given. Returns the kind."""
    import numpy as np

    if data_dir is None:
        random = np.random.default_rng(0)
        axis = np.arange(28, dtype=np.float32)
        centre = random.uniform(9, 19, (60_000, 2, 1)).astype(np.float32)
        width = random.uniform(2, 5, (60_000, 2, 1)).astype(np.float32)
        bump = np.exp(-0.5 * ((axis - centre) / width) ** 2)  # [60000, 2, 28]
        grey = 255.0 * np.minimum(1.0, 1.5 * bump[:, 0, :, None] * bump[:, 1, None, :])
        np.save(path, grey.astype(np.uint8)[..., None])
        return "synthetic: one bright blob an image"
    script = (
        "import sys, numpy as np; from tfgen import data; "
        "d = data.load('mnist', data_dir=sys.argv[1], image_range='uint8'); "
        "b = d.batches('train', 1000); "
        "np.save(sys.argv[2], np.concatenate([x['image'].numpy() for x in b]))"
    )
    command = [sys.executable, "-c", script, data_dir, str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=_environment())
    return "mnist, train split"


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    model = "unknown"
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    versions = {}
    for package in ("tensorflow", "keras", "tensorflow-probability", "torch", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": model,
        "cores_of_machine": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS,
        "threads": THREADS,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


# Figures from the raw turns.


def _fastest(part: dict[str, Any], names: Sequence[str]) -> str | None:
    having = [n for n in names if "median" in part["contenders"].get(n, {})]
    return max(having, key=lambda n: part["contenders"][n]["median"], default=None)


def _ratio(part: dict[str, Any], above: str | None, below: str | None) -> dict[str, Any] | None:
    """Ratio of medians of steps/s, and the least and largest ratio of one turn."""
    if above is None or below is None:
        return None
    a, b = part["contenders"].get(above, {}), part["contenders"].get(below, {})
    if "median" not in a or "median" not in b:
        return None
    turns = [x / y for x, y in zip(a["rates"], b["rates"], strict=False)]
    return {
        "of": above,
        "over": below,
        "value": a["median"] / b["median"],
        "least": min(turns),
        "most": max(turns),
    }


def floor(part: dict[str, Any]) -> dict[str, Any] | None:
    """Time that the step's matrix products take at least: each by the faster library."""
    timed = [part["contenders"].get(n, {}).get("each") for n in ("gemm_tf", "gemm_torch")]
    if not any(timed):
        return None
    gemms = bench_worker.gemms(part["k"])
    medians = [
        [statistics.median(turn[i] for turn in t) for t in timed if t] for i in range(len(gemms))
    ]
    seconds = sum(min(m) for m in medians)
    flops = sum(g["flops"] for g in gemms)
    return {"flops": flops, "seconds": seconds, "gflops_per_second": flops / seconds / 1e9}


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """Ratios, floor and targets, all from the raw turns."""
    found: dict[str, Any] = {}
    for name in ("k1", "k50"):
        part = results["parts"].get(name)
        if not part:
            continue
        ours, theirs = _fastest(part, OURS), _fastest(part, THEIRS)
        here: dict[str, Any] = {
            "over_torch": _ratio(part, ours, theirs),
            "default_over_torch_eager": _ratio(part, "tfgen", "torch"),
            "best_over_best": _ratio(part, _fastest(part, OURS_ANY), _fastest(part, THEIRS_ANY)),
            "over_keras": _ratio(part, ours, "keras"),
            "replicas_cost": _ratio(part, "tfgen", "tfgen_2_replicas"),
        }
        base = floor(part)
        if base:
            here["floor"] = base
            contenders = part["contenders"]
            for key, who in (("share_of_floor", ours), ("torch_share_of_floor", theirs)):
                if who:
                    here[key] = {"of": who, "value": base["seconds"] * contenders[who]["median"]}
            if theirs:
                possible = 1.0 / (base["seconds"] * contenders[theirs]["median"])
                here["possible_over_torch"] = {"over": theirs, "value": possible}
        constant = _ratio(part, "tfgen", "tfgen_constant")
        if constant:
            here["waiting_share"] = {
                "value": 1.0 - constant["value"],
                "least": 1.0 - constant["most"],
                "most": 1.0 - constant["least"],
            }
        found[name] = {key: value for key, value in here.items() if value is not None}
    first = results["parts"].get("first_step")
    if first and "median" in first:
        found["first_step"] = {"seconds": {
            "value": first["median"], "least": min(first["runs"]), "most": max(first["runs"]),
        }}  # fmt: skip
    return found


def disturbance(part: dict[str, Any]) -> float:
    """Cores that other processes kept busy while the part was measured: median over the turns."""
    others = [o for c in part.get("contenders", {}).values() for o in c["others"]]
    others += part.get("others", [])
    return statistics.median(others) if others else 0.0


def targets(found: dict[str, Any], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with its measured value and whether it holds.

    None instead of a verdict: not measured, or the machine had other work meanwhile.
    """
    rows = []
    for part, measure, sense, bound, text in TARGETS:
        value = found.get(part, {}).get(measure, {}).get("value")
        holds = None
        if value is not None and disturbance(parts[part]) <= QUIET:
            holds = value >= bound if sense == ">=" else value <= bound
        row = {"part": part, "measure": measure, "text": text, "sense": sense, "bound": bound,
               "value": value, "holds": holds}  # fmt: skip
        if measure == "over_torch" and "possible_over_torch" in found.get(part, {}):
            row["possible"] = found[part]["possible_over_torch"]["value"]
        rows.append(row)
    return rows


# The page.


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, align, *rows))


def _shown(value: float | None, measure: str) -> str:
    if value is None:
        return "not measured"
    if "share" in measure:
        return f"{100 * value:.0f} %"
    return f"{value:.1f} s" if measure == "seconds" else f"{value:.2f}"


def render(results: dict[str, Any]) -> str:
    """BENCH.md."""
    found = results["figures"]
    lines = [
        "# Speed",
        "",
        "Made by `python -m tools.bench` from `results/bench.json`; do not edit. "
        "An IWAE (784-200-200-50, tanh, batch 100, Adam), shuffling and dynamic binarisation "
        "included on all sides. Contenders take turns on the same two cores in one run, each in a "
        "process of its own; figures are medians over the turns, [least, most] in brackets.",
        "",
        "To reproduce: `pip install -r requirements-bench.txt`, then `python -m tools.bench` on "
        "a machine that does nothing else.",
        "",
    ]
    disturbed = [name for name, part in results["parts"].items() if disturbance(part) > QUIET]
    if disturbed:
        lines += [
            f"**Not valid: {', '.join(disturbed)}.** The machine had other work meanwhile, which "
            "slows the contenders unequally (PyTorch's threads wait by spinning); no verdicts.",
            "",
        ]
    lines += ["## Targets", ""]
    rows = []
    for row in results["targets"]:
        sense = "at least" if row["sense"] == ">=" else "at most"
        verdict = {True: "yes", False: "**no**", None: "-"}[row["holds"]]
        possible = f"{row['possible']:.2f}" if "possible" in row else ""
        bound = f"{sense} {_shown(row['bound'], row['measure'])}"
        measured = _shown(row["value"], row["measure"])
        rows.append((row["text"], bound, measured, possible, verdict))
    lines += [
        _table(("", "target", "measured", "possible at most", "holds"), rows),
        "",
        "*Possible at most*: the ratio to PyTorch that a float32 step would reach here that did "
        "nothing but its matrix products, each at the faster library's rate. A target above it is "
        "out of this machine's reach for any implementation.",
        "",
    ]
    for name in ("k1", "k50"):
        if name in results["parts"]:
            lines += _render_part(results["parts"][name], found[name])
    first = results["parts"].get("first_step")
    if first:
        lines += ["## From command to first step", ""]
        if "error" in first:
            lines += [f"Failed: {first['error']}", ""]
        else:
            lines += [
                f"`{first['command']}`: {first['median']:.1f} s from the start of the process "
                f"[{min(first['runs']):.1f}, {max(first['runs']):.1f}]; "
                f"{first['first_ever']:.1f} s the very first time, when the data set is prepared.",
                "",
            ]
    lines += ["## Measured on", ""]
    for name, part in results["parts"].items():
        env = part["environment"]
        versions = ", ".join(f"{p} {v}" for p, v in env["versions"].items())
        busy = disturbance(part)
        lines.append(
            f"* {name}: {env['cpu']}, {env['cores_used']} of {env['cores_of_machine']} cores, "
            f"{env['threads']} threads; Python {env['python']}, {versions}; {part['repeats']} "
            f"turns, {env['date']}; images: {part['images']}; other processes kept {busy:.2f} "
            "cores busy."
        )
    return "\n".join(lines) + "\n"


def _render_part(part: dict[str, Any], here: dict[str, Any]) -> list[str]:
    rows = []
    base = part["contenders"].get(here.get("over_torch", {}).get("over", "torch"), {}).get("median")
    for name, text in NAMES.items():
        result = part["contenders"].get(name)
        if not result:
            continue
        if "median" not in result:
            rows.append((text, f"failed: {result.get('error', '?')[:60]}", "", "", ""))
            continue
        rate = f"{result['median']:.1f} [{min(result['rates']):.1f}, {max(result['rates']):.1f}]"
        ratio = f"{result['median'] / base:.2f}" if base and name != "tfgen_pipeline" else ""
        cpu = f"{statistics.median(result['cpu_ms']):.2f}"
        rows.append((text, rate, ratio, cpu, f"{result['peak_mib']:.0f}"))
    head = ("", "steps/s", "over the faster float32 PyTorch", "CPU ms a step", "peak MiB")
    lines = [f"## k = {part['k']}", "", _table(head, rows), ""]
    notes = []
    for key, text in (
        ("over_torch", "fastest float32 against fastest float32"),
        ("best_over_best", "fastest of any precision against fastest of any precision"),
        ("default_over_torch_eager", "defaults against eager PyTorch"),
        ("over_keras", "against plain Keras"),
    ):
        if key in here:
            r = here[key]
            notes.append(
                f"* {text}: **{r['value']:.2f}** [{r['least']:.2f}, {r['most']:.2f}] "
                f"({r['of']} / {r['over']})"
            )
    if "replicas_cost" in here:
        r = here["replicas_cost"]
        notes.append(
            f"* a step of two replicas takes {r['value']:.2f} [{r['least']:.2f}, {r['most']:.2f}] "
            "of one replica's time"
        )
    if "waiting_share" in here:
        r = here["waiting_share"]
        notes.append(
            f"* the input pipeline costs {100 * r['value']:.1f} % of the step "
            f"[{100 * r['least']:.1f}, {100 * r['most']:.1f}]"
        )
    if "floor" in here:
        f = here["floor"]
        notes.append(
            f"* floor: {f['flops'] / 1e9:.2f} GFLOP of matrix products a step, at "
            f"{f['gflops_per_second']:.0f} GFLOP/s {1000 * f['seconds']:.2f} ms, "
            f"{1 / f['seconds']:.1f} steps/s"
            + "".join(
                f"; {here[key]['of']} reaches {100 * here[key]['value']:.0f} %"
                for key in ("share_of_floor", "torch_share_of_floor")
                if key in here
            )
        )
    for name in THEIRS_ANY:
        facts = part["contenders"].get(name, {})
        if "adam" in facts:
            rates = ", ".join(f"{n} {r}" for n, r in facts["adam_steps_per_second"].items())
            notes.append(f"* {name}: Adam {facts['adam']} (steps/s in the trial: {rates})")
    return [*lines, *notes, ""]


# The command.


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    comma = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    parser.add_argument("--repeats", type=int, default=5, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--only", type=comma, default=list(PARTS), help="parts, by commas")
    parser.add_argument("--contenders", type=comma, default=[], help="some contenders, by commas")
    parser.add_argument("--data_dir", help="TFDS directory with mnist; default: synthetic images")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "results" / "bench.json")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "BENCH.md")
    parser.add_argument("--render_only", action="store_true", help="only write the page anew")
    args = parser.parse_args(argv)
    for given, known in ((args.only, PARTS), (args.contenders, bench_worker.CONTENDERS)):
        for name in given:
            if name not in known:
                parser.error(f"unknown: {name}; known: {', '.join(known)}")
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    return args


@contextlib.contextmanager
def _work_folder() -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tfgen_bench_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str]) -> int:
    """Measures the wanted parts, keeps the others, writes the JSON file and the page."""
    args = _parse(argv)
    results: dict[str, Any] = {"parts": {}}
    if args.out.exists():
        results = json.loads(args.out.read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers and folders go
    if not args.render_only:
        if hasattr(os, "sched_setaffinity"):  # the same two cores for all, inherited
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
        with _work_folder() as work:
            images, kind = work / "images.npy", "digits"
            if set(args.only) & {"k1", "k50"}:
                kind = make_images(images, args.data_dir)
            measures: dict[str, Callable[[], dict[str, Any]]] = {
                "k1": lambda: measure_k(1, images, args, work),
                "k50": lambda: measure_k(50, images, args, work),
                "first_step": lambda: measure_first_step(args, work),
            }
            for name in PARTS:
                if name not in args.only:
                    continue
                part = measures[name]()
                part.update(
                    repeats=args.repeats,
                    images="digits" if name == "first_step" else kind,
                    environment=environment(),
                )
                results["parts"][name] = part
    results["parts"] = {n: results["parts"][n] for n in PARTS if n in results["parts"]}
    if not results["parts"]:
        print(f"nothing measured yet: no {args.out}", file=sys.stderr)
        return 1
    results["figures"] = figures(results)
    results["targets"] = targets(results["figures"], results["parts"])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.page.write_text(render(results))
    for row in results["targets"]:
        verdict = {True: "holds", False: "FAILS", None: "no verdict"}[row["holds"]]
        print(f"{row['text']}: {_shown(row['value'], row['measure'])}, {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
