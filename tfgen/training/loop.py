"""The training loop of all systems: steps in the graph, events between them.

Executions end at multiples of `steps_per_execution` and wherever an event is due, so their borders
are a function of the step and a resumed run has the same ones.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import signal
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from tfgen import run
from tfgen.data import Data
from tfgen.errors import UserError, one_line
from tfgen.hparams import HParams
from tfgen.training import checkpoint, early_stopping
from tfgen.training.model import GenerativeModel

_PORTION_BYTES = 2**26  # Read at once where the whole training split is looked at.


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.signum, self.step = signum, step


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How often things happen, in steps; 0 is never. None of it changes the weights."""

    log: int = 100
    validate: int = 0
    checkpoint: int = 1000
    pictures: int = 0

    def end_of_execution(self, step: int, steps_per_execution: int, last: int) -> int:
        """The step at which an execution that starts at `step` must end."""
        ends = [_next_multiple(step, n) for n in (steps_per_execution, *self._all()) if n]
        return min(*ends, last)

    def _all(self) -> tuple[int, ...]:
        return (self.log, self.validate, self.checkpoint, self.pictures)


def _next_multiple(step: int, interval: int) -> int:
    return (step // interval + 1) * interval


def train(
    model: GenerativeModel,
    data: Data,
    hparams: HParams,
    run_dir: run.RunDir,
    *,
    intervals: Intervals,
    keep_checkpoints: int = 3,
    stop_at_step: int | None = None,
    stopping: early_stopping.EarlyStopping | None = None,
    report: Callable[[int, int, dict[str, float]], None] = lambda step, total, logs: None,
) -> float:
    """Trains to the end of the run, from its newest checkpoint where there is one.

    Args:
        model: as its system's `build` made it.
        data: what it is trained on.
        hparams: of the run.
        run_dir: gets checkpoints, metrics, pictures and TensorBoard events.
        intervals: how often.
        keep_checkpoints: how many of them stay.
        stop_at_step: ends the training there, as if interrupted; the step sizes do not change.
        stopping: ends it early, with the weights of the best epoch; None does not.
        report: called after each execution with the step, the last step and the means so far.

    Returns:
        Seconds spent in training, over all of the run's processes.

    Raises:
        UserError: for a loss that is not finite, a full disk, or no checkpoint that can be read.
        Interrupted: after SIGINT or SIGTERM, when a checkpoint has been written.
    """
    total = hparams.total_steps(data.spec.train_size)
    last = total if stop_at_step is None else min(total, stop_at_step)
    chief = is_chief(model.distribute_strategy)
    portion = _portion(data)
    record = checkpoint.restore(run_dir.checkpoints, model)
    if record is None:
        with one_line():
            model.adapt(data.batches("train", portion, seed=hparams.seed))
        model.means.reset()
        record = {"seconds": 0.0, "means": vars(model.means)}
    if record.get("rewound"):
        return record["seconds"]
    if stopping:
        stopping.restore(record.get("early_stopping", stopping.state()))
    for name, value in record["means"].items():
        setattr(model.means, name, value)
    step = int(model.step.numpy())
    _check_together(model.distribute_strategy, step)
    if chief:
        run_dir.cut_metrics(step)
        checkpoint.remove_after(run_dir.checkpoints, "best", step)
    writer = tf.summary.create_file_writer(str(run_dir.events)) if chief else None
    iterator = _stream(model, data, hparams, step)
    seconds, begun = record["seconds"], time.monotonic()
    rate_from = (step, begun)

    def state() -> dict[str, Any]:
        spent = seconds + time.monotonic() - begun
        watched = {"early_stopping": stopping.state()} if stopping else {}
        return {"seconds": spent, "means": vars(model.means), **watched}

    def over() -> bool:
        return step == total or (stopping is not None and stopping.over(step))

    def write_scalars(step: int, logs: dict[str, float], group: str) -> None:
        if writer:
            with _events(writer, step, run_dir.events):
                for name, value in logs.items():
                    tf.summary.scalar(f"{group}/{name}", value)

    def settle() -> None:
        with model.averaged_weights():
            model.settle(lambda: data.batches("train", portion, seed=hparams.seed))

    warned: set[str] = set()
    with _signals() as received:
        while step < last and not over():
            end = intervals.end_of_execution(step, model.steps_per_execution, last)
            if stopping:
                end = min(end, _next_multiple(step, stopping.interval))
            for row in model.run_steps(iterator, end - step):
                step += 1
                _check_finite(row, step, run_dir)
                model.means.update(row)
            logs = model.means.result()
            report(step, total, logs)
            due = lambda interval, step=step: interval and step % interval == 0  # noqa: E731
            if due(intervals.log) or step == total:
                rate = (step - rate_from[0]) / max(time.monotonic() - rate_from[1], 1e-9)
                rate_from = (step, time.monotonic())
                model.means.reset()
                warned = _warn(model, logs, step, warned)
                if chief:
                    batches = model.batches_before(step)
                    epoch = batches / data.steps_per_epoch(hparams.batch_size)
                    run.append_jsonl(run_dir.metrics, {"step": step, "epoch": epoch, **logs})
                    write_scalars(step, logs, "train")
                    write_scalars(step, {"steps_per_second": rate}, "speed")
            looks = stopping and (due(stopping.interval) or step == total)
            validates = looks or due(intervals.validate)
            settled = validates or due(intervals.pictures) or step == last
            if settled:
                settle()
            if validates:
                logs = validate(model, data, hparams)
                line = {f"validation_{k}": v for k, v in logs.items()}
                if stopping and looks:
                    _check_finite(line, step, run_dir)
                    if stopping.improves(step, logs) and chief:
                        checkpoint.save_best(run_dir.checkpoints, model)
                if chief:
                    run.append_jsonl(run_dir.metrics, {"step": step, **line})
                    write_scalars(step, logs, "validation")
            if chief and (due(intervals.pictures) or (step == total and not stopping)):
                draw(model, data, hparams, run_dir, writer, step)
            interrupted = bool(received)
            if interrupted and not settled:  # Its checkpoint may be the one that is used.
                settle()
            if chief and (due(intervals.checkpoint) or step == last or interrupted):
                checkpoint.save(run_dir.checkpoints, model, state(), keep_checkpoints)
            if interrupted:
                raise Interrupted(received[0], step)
    if chief and stopping and over():
        ended = {**state(), "rewound": True}
        checkpoint.rewind(run_dir.checkpoints, model, stopping.best_step, ended, keep_checkpoints)
        draw(model, data, hparams, run_dir, writer, stopping.best_step)
    if chief:
        _draw_training(run_dir)
    return seconds + time.monotonic() - begun


def _warn(model: GenerativeModel, logs: dict[str, float], step: int, warned: set[str]) -> set[str]:
    """Logs what the model finds wrong, once for as long as it lasts; returns what it is."""
    found = model.diagnose(logs)
    for name in found.keys() - warned:
        logging.warning("step %d: %s: %s", step, name, found[name])
    return set(found)


def _draw_training(run_dir: run.RunDir) -> None:
    """Curves of all that was logged, and a GIF of each picture that was drawn more than once."""
    from tfgen.metrics import pictures

    pictures.curves(run.read_jsonl(run_dir.metrics), run_dir.curves)
    drawn: dict[str, list[pathlib.Path]] = {}
    for path in sorted(run_dir.samples.glob("*-[0-9]*.png")):
        name, _, step = path.stem.rpartition("-")
        if step.isdecimal():  # and not those of `tfgen.sample`, "<name>-seed<n>"
            drawn.setdefault(name, []).append(path)
    for name, paths in drawn.items():
        if len(paths) > 1:
            pictures.animate(paths, run_dir.samples / f"{name}.gif")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run directory: with several workers only the first does."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_type in (None, "chief") or (
        resolver.task_type == "worker" and resolver.task_id == 0
    )  # fmt: skip


def _check_together(strategy: tf.distribute.Strategy, step: int) -> None:
    """Whether all workers begin at the same step: they read one folder, or should.

    Raises:
        UserError: if another one begins elsewhere; all of them raise it.
    """
    if strategy.cluster_resolver is None:
        return
    own = strategy.run(lambda: tf.constant(float(step), tf.float64))
    mean = float(strategy.reduce(tf.distribute.ReduceOp.MEAN, own, axis=None))
    if mean != step:
        raise UserError(
            f"the workers do not begin at the same step: this one at {step}, the mean is {mean:g}. "
            "All need the same --run_dir, on a file system that they share"
        )


def _stream(model: GenerativeModel, data: Data, hparams: HParams, step: int) -> Iterator:
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if hparams.batch_size % replicas:
        raise UserError(
            f"--batch_size must divide by the number of replicas, {replicas}. "
            f"Received: --batch_size={hparams.batch_size}"
        )

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return data.train(
            hparams.batch_size // replicas,
            seed=hparams.seed,
            start_step=model.batches_before(step),
            replicas=replicas // context.num_input_pipelines,
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
        )

    if replicas == 1:
        return iter(of_worker(tf.distribute.InputContext()))
    return iter(strategy.distribute_datasets_from_function(of_worker))


def validate(model: GenerativeModel, data: Data, hparams: HParams) -> dict[str, float]:
    """Means of `test_step` over the validation split; with EMA weights where there are any."""
    before = dict(vars(model.means))
    batches: Any = data.batches("validation", hparams.batch_size, seed=hparams.seed)
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        share = functools.partial(_slices, batches, hparams.batch_size // replicas, replicas)
        batches = strategy.distribute_datasets_from_function(share)
    model.means.reset()
    with model.averaged_weights():
        iterator = iter(batches)
        examples_a_call = hparams.batch_size * model.steps_per_execution
        for _ in range(math.ceil(data.spec.validation_size / examples_a_call)):
            model.test_function(iterator)
    logs = model.means.result()
    vars(model.means).update(before)
    return logs


def _slices(
    batches: tf.data.Dataset, size: int, replicas: int, context: tf.distribute.InputContext
) -> tf.data.Dataset:
    """Cuts global batches into `size` examples a replica, and keeps those of one worker.

    The last replicas of a short batch get fewer examples, or none: 5 examples over 4 replicas of 2
    give [2], [2], [1] and [0].
    """
    here = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * here

    def cut(batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
        starts = tf.data.Dataset.range(first, first + here).map(lambda replica: replica * size)
        return starts.map(lambda start: {k: v[start : start + size] for k, v in batch.items()})

    return batches.flat_map(cut)


def draw(
    model: GenerativeModel,
    data: Data,
    hparams: HParams,
    run_dir: run.RunDir,
    writer: tf.summary.SummaryWriter | None,
    step: int,
) -> None:
    """Writes the model's pictures to `samples/<name>-<step>.png` and to TensorBoard.

    Animations are `samples/<name>-<step>.gif`.
    """
    from tfgen.metrics import pictures

    # Of points there are enough to show their density.
    shown = 1000 if model.needs == ("point",) else 64
    batch = model.as_batch(next(iter(data.batches("validation", shown, seed=hparams.seed))))
    with model.averaged_weights():
        grids = model.pictures(batch, hparams.seed)
        animations = model.animations(batch, hparams.seed)
    for name, frames in animations.items():
        path = run_dir.samples / f"{name}-{step:09d}.gif"
        pictures.animate([pictures.tile(frame) for frame in frames], path)
    for name, grid in grids.items():
        if not grid.size:  # e.g. interpolations of a single validation image
            continue
        image = pictures.tile(grid)
        pictures.save_png(run_dir.samples / f"{name}-{step:09d}.png", image)
        if writer:
            with _events(writer, step, run_dir.events):
                tf.summary.image(name, image[None])


def _portion(data: Data) -> int:
    """Examples read at once where the whole training split is looked at: 1000, or some 64 MB."""
    size = sum(4 * math.prod(shape) for shape in data.spec.shapes.values())
    return max(1, min(1000, _PORTION_BYTES // size))


@contextlib.contextmanager
def _events(writer: tf.summary.SummaryWriter, step: int, folder: pathlib.Path) -> Iterator[None]:
    """Summaries made inside are on the disk when it ends, or it is one clear line why not."""
    try:
        with writer.as_default(step):
            yield
            writer.flush()
    except tf.errors.OpError as error:
        raise UserError(f"cannot write {folder}: {error.message.splitlines()[0]}") from error


def _check_finite(logs: dict[str, float], step: int, run_dir: run.RunDir) -> None:
    for name, value in logs.items():
        if not math.isfinite(value):
            # The weights of step - 1 are those that gave this.
            steps = [s for s in checkpoint.all_steps(run_dir.checkpoints) if s < step - 1]
            good = f"step {steps[-1]} in {run_dir.checkpoints}" if steps else "none"
            raise UserError(
                f"{name} became {value} at step {step}. Last good checkpoint: {good}. "
                "Lower --learning_rate or set --clip_norm"
            )


class _signals:
    """Collects SIGINT and SIGTERM while it is entered; a second one acts as usual."""

    def __enter__(self) -> list[int]:
        self.received: list[int] = []
        self.before = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        return self.received

    def _receive(self, signum: int, frame: types.FrameType | None) -> None:
        logging.info("%s: ends after a checkpoint", signal.Signals(signum).name)
        self.received.append(signum)
        signal.signal(signum, self.before[signal.Signals(signum)])

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
