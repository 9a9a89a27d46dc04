"""Runs of `tfgen.train`, in this process or in one of their own, and what they leave."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from tfgen import commands, run, train
from tfgen.training import checkpoint

ROOT = pathlib.Path(__file__).parents[2]


def train_here(run_dir: pathlib.Path, *flags: str) -> int:
    """The exit status of `tfgen.train` in this process."""
    return commands.execute(train.main, ["train", f"--run_dir={run_dir}", *flags])


def start(module: str, *flags: str, **environment: str) -> subprocess.Popen:
    """`python -m MODULE` in a process of its own."""
    return start_script(["-m", module, *flags], **environment)


def start_script(arguments: list[str], **environment: str) -> subprocess.Popen:
    """Python with these arguments in a process of its own, output and errors in one pipe."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def metrics(run_dir: pathlib.Path) -> str:
    return run.RunDir(run_dir).metrics.read_text()


def last_metrics_step(run_dir: pathlib.Path) -> int:
    lines = run.read_jsonl(run.RunDir(run_dir).metrics)
    return lines[-1]["step"] if lines else 0


def last_checkpoint(run_dir: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of the newest checkpoint, and its running means; not the time it took."""
    folder = run.RunDir(run_dir).checkpoints
    arrays, record = checkpoint._read(folder / f"step-{checkpoint.all_steps(folder)[-1]:09d}.npz")
    means = {f"means/{k}": np.array(json.dumps(v)) for k, v in record["means"].items()}
    return {**arrays, **means}


def assert_same_run(a: pathlib.Path, b: pathlib.Path) -> None:
    """Weights, optimisers, averages and metrics of two runs are equal to the bit."""
    left, right = last_checkpoint(a), last_checkpoint(b)
    assert set(left) == set(right)
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert metrics(a) == metrics(b)
