"""A run that was stopped, however and whenever, ends as the unbroken run does, to the bit."""

import json
import random
import signal
import time

import pytest

from tests.training import runs
from tfgen import run
from tfgen.training import checkpoint

TINY = ("--latent_dims=3", "--hidden_units=8", "--data=digits")
# 13 steps an epoch; neither executions (4) nor logs (5), checkpoints (6) and validations (9) divide
# the stops, nor each other.
FLAGS = (
    *TINY,
    "--batch_size=100",
    "--epochs=3",
    "--schedule=linear",
    "--warmup_steps=11",
    "--ema_decay=0.9",
    "--clip_norm=5",
    "--steps_per_execution=4",
    "--log_every_steps=5",
    "--checkpoint_every_steps=6",
    "--validate_every_steps=9",
    "--pictures_every_steps=17",
)


@pytest.mark.parametrize(
    "system",
    [
        ("--system=vae.vae", "--kl_warmup_steps=20"),
        ("--system=vae.iwae", "--k=3", "--dreg", "--latent_dims=3,2", "--hidden_units=8,4"),
    ],
    ids=["vae", "iwae"],
)
def test_stops_in_the_middle_of_epochs(tmp_path, digits_dir, system):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = (*FLAGS, *system, f"--data_dir={digits_dir}")
    assert runs.train_here(whole, *flags) == 0
    for stop in (10, 23):
        assert runs.train_here(parts, *flags, f"--stop_at_step={stop}") == 0
        assert checkpoint.all_steps(parts / "checkpoints")[-1] == stop
    # What a kill can leave: half a line, lines after the last checkpoint, half a checkpoint.
    with open(run.RunDir(parts).metrics, "a") as file:
        file.write(json.dumps({"step": 25, "loss": 0.0}) + '\n{"step": 30, "lo')
    half = parts / "checkpoints" / ".writing-1-step-000000024.npz"
    half.write_bytes(b"PK")
    assert runs.train_here(parts, *flags) == 0
    runs.assert_same_run(whole, parts)
    assert not half.exists()
    steps = [line["step"] for line in run.read_jsonl(run.RunDir(whole).metrics)]
    assert steps == sorted([*range(5, 36, 5), 39, *range(9, 37, 9)])


def test_a_finished_run_stays_as_it_is(tmp_path, digits_dir, capsys):
    flags = ("--system=vae.vae", *TINY, "--epochs=0.3", f"--data_dir={digits_dir}")
    assert runs.train_here(tmp_path, *flags) == 0
    before = runs.last_checkpoint(tmp_path), runs.metrics(tmp_path)
    assert runs.train_here(tmp_path, *flags) == 0
    assert "step 4, " in capsys.readouterr().out
    assert runs.metrics(tmp_path) == before[1]
    assert str(runs.last_checkpoint(tmp_path)) == str(before[0])


def test_the_seed_decides_the_run(tmp_path, digits_dir):
    flags = ("--system=vae.vae", *TINY, "--epochs=0.3", f"--data_dir={digits_dir}")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert runs.train_here(tmp_path / name, *flags, f"--seed={seed}") == 0
    runs.assert_same_run(tmp_path / "a", tmp_path / "b")
    assert runs.metrics(tmp_path / "a") != runs.metrics(tmp_path / "c")


# Real processes.

SLOW_FLAGS = (
    "--system=vae.iwae",
    "--data=digits",
    "--k=50",
    "--batch_size=20",
    "--epochs=30",
    "--ema_decay=0.99",
    "--warmup_steps=100",
    "--steps_per_execution=7",
    "--log_every_steps=10",
    "--checkpoint_every_steps=25",
    "--validate_every_steps=300",
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, digits_dir):
    """The run directory of a run in a process that nobody disturbed."""
    path = tmp_path_factory.mktemp("unbroken")
    process = runs.start("tfgen.train", *_slow_flags(path, digits_dir))
    try:
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return path


def _slow_flags(path, digits_dir):
    return (*SLOW_FLAGS, f"--run_dir={path}", f"--data_dir={digits_dir}")


def _wait_for_progress(process, path, beyond, seconds=200):
    """Waits until the metrics of this process go beyond a step."""
    end = time.monotonic() + seconds
    while runs.last_metrics_step(path) <= beyond:
        assert process.poll() is None, f"ended early: {process.communicate()[0]}"
        assert time.monotonic() < end, "no progress"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_random_moments(tmp_path, digits_dir, unbroken):
    moments = random.Random(0)
    flags = _slow_flags(tmp_path, digits_dir)
    stopped_at = []
    for kill in range(7):
        process = runs.start("tfgen.train", *flags)
        try:
            if kill == 3:  # while it starts
                time.sleep(moments.uniform(0.5, 4))
            else:
                newest = max([0, *checkpoint.all_steps(tmp_path / "checkpoints")])
                _wait_for_progress(process, tmp_path, max(newest, *stopped_at, 0))
                time.sleep(moments.uniform(0, 0.5))
            assert process.poll() is None, "the run ended before it could be killed"
        finally:
            process.kill()
            process.wait()
        stopped_at.append(runs.last_metrics_step(tmp_path))
    assert stopped_at[-1] > 0
    process = runs.start("tfgen.train", *flags)
    try:
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    runs.assert_same_run(unbroken, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_a_checkpoint(tmp_path, digits_dir, unbroken, number):
    flags = _slow_flags(tmp_path, digits_dir)
    process = runs.start("tfgen.train", *flags)
    try:
        _wait_for_progress(process, tmp_path, 30)
        process.send_signal(number)
        output, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    step = checkpoint.all_steps(tmp_path / "checkpoints")[-1]
    message = f"stopped by {number.name} at step {step}; the same command resumes"
    assert output.splitlines()[-1] == message
    process = runs.start("tfgen.train", *flags)
    try:
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    runs.assert_same_run(unbroken, tmp_path)
