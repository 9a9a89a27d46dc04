"""Measuring: contenders in processes of their own take turns; the time to the first step."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
THREADS = 2
REST_SECONDS = 0.3  # between two turns, so that threads of the last one are asleep


class Contender:
    """A worker process; `error` says why there is none."""

    def __init__(self, name: str, order: dict[str, Any], logs: pathlib.Path):
        self.name = name
        self.log = logs / f"{name}.log"
        self.error: str | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench.worker", json.dumps({**order, "contender": name})],
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


def interleaved(
    names: Sequence[str],
    order: dict[str, Any],
    *,
    repeats: int,
    seconds: float,
    portion: int,
    logs: pathlib.Path,
) -> dict[str, dict[str, Any]]:
    """Turns of all contenders, one after the other, `repeats` times.

    Args:
        names: of the contenders.
        order: what each is told to do.
        repeats: turns of each.
        seconds: about the length of a turn.
        portion: steps of a turn are a multiple of it; a contender makes two such portions first.
        logs: folder for what the contenders print.

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
            contender.run(portion)
            trial = contender.run(portion)
            rate = portion / trial["seconds"] if trial else 0.0
            steps = max(portion, round(seconds * rate / portion) * portion)
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


def first_step(config: str, repeats: int, work: pathlib.Path) -> dict[str, Any]:
    """Wall clock from the start of `tfgen.train` to its line "first step after".

    Args:
        config: name of a flagfile in configs/.
        repeats: runs, after one that prepares the data set.
        work: folder for the runs.
    """
    flags = [f"--flagfile=configs/{config}.cfg"]
    seconds, said, others = [], [], []
    for turn in range(repeats + 1):
        run_dir = work / f"{config}_{turn}"
        command = [
            sys.executable, "-m", "tfgen.train", *flags, f"--run_dir={run_dir}",
            f"--data_dir={work / config}", "--stop_at_step=10",
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
