"""Trains a system: `python -m tfgen.train --flagfile=configs/iwae_digits.cfg [--flag=value ...]`.

The same command on an existing run directory resumes where it stopped, to the bit on one CPU.
"""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfgen import commands, hparams, run
from tfgen.errors import UserError, one_line

if TYPE_CHECKING:
    from tfgen.training.model import GenerativeModel


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command; none of them changes the trained weights on one device."""

    run_dir: str | None = None  # Where the run lies; default: runs/<name of the last flagfile>.
    data_dir: str | None = None  # Where TFDS keeps data sets; default: TFDS's own.
    # What happens to an image file that cannot be read: it is named and skipped, or all stops.
    on_bad_image: Literal["skip", "fail"] = "skip"
    # How the work is distributed; auto: over all GPUs, and over workers if TF_CONFIG is set.
    strategy: Literal["auto", "none", "mirrored", "multiworker", "tpu"] = "auto"
    log_every_steps: int = 100  # Steps between two lines of metrics.jsonl.
    validate_every_steps: int = 0  # Steps between two passes over the validation split; 0: never.
    checkpoint_every_steps: int = 1000  # Steps between two checkpoints.
    pictures_every_steps: int = 0  # Steps between two sets of pictures; 0: only at the end.
    keep_checkpoints: int = 3  # Checkpoints that stay.
    stop_at_step: int | None = None  # Stops there as if interrupted; the schedule is unchanged.
    dry_run: bool = False  # Print resolved flags, summary, parameters and memory, and stop.
    list: bool = False  # Print all systems with their papers, needs and configs, and stop.
    help: bool = False  # Print all flags (of a system, if --system is given), and stop.

    def __post_init__(self) -> None:
        for name in (
            "log_every_steps", "checkpoint_every_steps", "keep_checkpoints", "stop_at_step"
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be more than 0. Received: --{name}={value}")
        for name in ("validate_every_steps", "pictures_every_steps"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"--{name} must be 0 or more. Received: --{name}={getattr(self, name)}"
                )


def main(argv: Sequence[str]) -> int:
    """Trains; returns the exit status."""
    begun = time.monotonic()
    if any(hparams.asks(arg, "list") for arg in argv[1:]):
        from tfgen import listing

        print(listing.table())
        return 0
    if any(hparams.asks(arg, "help", "helpfull") for arg in argv[1:]):
        print(hparams.help_text(argv, Options, __doc__))
        return 0
    system, hp, options = hparams.parse(argv, Options)
    module = hparams.load_system(system)

    import keras
    import tensorflow as tf

    from tfgen.training import early_stopping, loop, strategies

    run_dir = run.RunDir(options.run_dir or _default_run_dir(argv, system))
    strategy = strategies.make(options.strategy)
    keras.config.set_dtype_policy(hp.precision)
    data = commands.load_data(hp, options.data_dir, options.on_bad_image)
    data.steps_per_epoch(hp.batch_size)
    with strategy.scope(), one_line():
        model = module.build(hp, data.spec)
    stopping = early_stopping.watch(model, data, hp)
    if options.dry_run:
        print(hparams.to_flagfile(system, hp))
        _print_summary(model, hp)
        return 0
    run_dir.create(hparams.to_flagfile(system, hp), hparams.to_flagfile(system, module.HParams()))
    chief = loop.is_chief(strategy)
    with run_dir.lock() if chief else contextlib.nullcontext():
        if chief:
            run_dir.keep_data(data.spec.to_json())
            run.write_arrays(run_dir.batch, next(iter(data.batches("validation", 64, limit=64))))
        progress = _Progress(begun)
        try:
            with strategy.scope(), progress:
                seconds = loop.train(
                    model,
                    data,
                    hp,
                    run_dir,
                    intervals=loop.Intervals(
                        log=options.log_every_steps,
                        validate=options.validate_every_steps,
                        checkpoint=options.checkpoint_every_steps,
                        pictures=options.pictures_every_steps,
                    ),
                    keep_checkpoints=options.keep_checkpoints,
                    stop_at_step=options.stop_at_step,
                    stopping=stopping,
                    report=progress.report,
                )
        except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
            raise UserError(
                "another worker died or cannot be reached. Start all workers again, each by the "
                "same command: the run goes on from its newest checkpoint"
            ) from error
        except loop.Interrupted as stop:
            print(f"{stop}; the same command resumes", file=sys.stderr)
            return 128 + stop.signum
        if chief:
            *_, trained = commands.load_run(run_dir)  # in float32, whatever it was trained in
            with run.atomic_path(run_dir.keras) as path:
                trained.save(path)
    step = int(tf.cast(model.step, tf.int64))
    print(f"{run_dir.path}: step {step}, {seconds / 60:.1f} minutes of training")
    return 0


def _default_run_dir(argv: Sequence[str], system: str) -> pathlib.Path:
    """runs/<name of the flagfile that was named last>, or of the system."""
    flagfiles = hparams.check_flagfiles(argv[1:])
    return pathlib.Path("runs") / (pathlib.Path(flagfiles[-1]).stem if flagfiles else system)


def _print_summary(model: "GenerativeModel", hp: hparams.HParams) -> None:
    from tfgen.training import memory

    model.summary(expand_nested=True)
    print(memory.describe(model, hp))


class _Progress:
    """Progress on the terminal: a bar with rate and time left, or a line now and then in a log."""

    def __init__(self, begun: float):
        self.begun = begun
        self.bar: Any = None
        self.task: Any = None
        self.next_line = 0.0
        self.first: tuple[int, float] | None = None

    def __enter__(self) -> "_Progress":
        if sys.stdout.isatty():
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("step {task.completed}/{task.total}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[rate]:.1f} steps/s"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[logs]}"),
            )
            self.bar.start()
        return self

    def report(self, step: int, total: int, logs: dict[str, float]) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = (step, now)
            print(f"first step after {now - self.begun:.1f} s", flush=True)
        rate = (step - self.first[0]) / max(now - self.first[1], 1e-9)
        shown = " ".join(f"{name} {value:.4g}" for name, value in logs.items())
        if self.bar:
            if self.task is None:
                self.task = self.bar.add_task("train", total=total, rate=rate, logs=shown)
            self.bar.update(self.task, completed=step, rate=rate, logs=shown)
        elif now >= self.next_line or step == total:
            self.next_line = now + 30
            pace = (
                f" ({rate:.1f} steps/s, {(total - step) / rate / 60:.0f} min left)" if rate else ""
            )
            print(f"step {step}/{total} {shown}{pace}", flush=True)

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.stop()


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
