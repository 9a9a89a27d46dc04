"""The run directory: what lies where, written and read in this one place.

    flags.cfg           resolved flags; a valid flagfile
    data.json           the data's `DataSpec`: enough to build the model without the data
    checkpoints/        step-000001000.npz, ...: the whole state of the training
    metrics.jsonl       one line a logging interval, a function of the flags alone
    evaluations.jsonl   one line an evaluation
    samples/            pictures and arrays
    events/             for TensorBoard
    model.keras         the model for Keras users
    export/<n>/         SavedModels
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any

from tfgen.errors import UserError


class RunDir:
    """One run directory.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.flags = self.path / "flags.cfg"
        self.data = self.path / "data.json"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.samples = self.path / "samples"
        self.events = self.path / "events"
        self.keras = self.path / "model.keras"
        self.exports = self.path / "export"

    def create(self, flagfile: str) -> None:
        """Makes the directory for a run with these flags, or opens the one that they made.

        Args:
            flagfile: text of the resolved flags.

        Raises:
            UserError: if the directory belongs to a run of other flags (the difference is shown),
                or cannot be written.
        """
        with writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
            if self.flags.exists():
                self._refuse_other_flags(flagfile)
            else:
                write_text(self.flags, flagfile)

    def _refuse_other_flags(self, flagfile: str) -> None:
        old = self.flags.read_text(encoding="utf-8").splitlines()
        new = flagfile.splitlines()
        changed = [f"{line} (there)" for line in old if line not in new]
        changed += [f"{line} (now)" for line in new if line not in old]
        if changed:
            raise UserError(
                f"run directory {self.path} belongs to a run with other flags: "
                f"{', '.join(changed)}. Choose another --run_dir, or give the same flags to resume"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this directory at the same time.

        Raises:
            UserError: if one does already.
        """
        with writing(self.path), open(self.path / ".lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"run directory {self.path} is in use by another process; "
                    "wait for it or choose another --run_dir"
                ) from error
            yield

    def require(self) -> None:
        """Raises `UserError` unless a run has started here."""
        if not self.flags.is_file():
            raise UserError(
                f"no run in --run_dir={self.path}: {self.flags.name} is missing. "
                "Train first: python -m tfgen.train --flagfile=... --run_dir=..."
            )

    def cut_metrics(self, step: int) -> None:
        """Drops the lines of `metrics.jsonl` that lie after `step`; the run will write them anew."""
        lines = read_jsonl(self.metrics)
        if any(line["step"] > step for line in lines):
            kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
            write_text(self.metrics, "".join(kept))

    def next_export(self) -> pathlib.Path:
        """The first free `export/<n>`, n = 1, 2, ..."""
        taken = [int(p.name) for p in self.exports.glob("*") if p.name.isdigit()]
        return self.exports / str(max(taken, default=0) + 1)


@contextlib.contextmanager
def writing(path: os.PathLike) -> Iterator[None]:
    """Turns an `OSError` of the disk into one clear line.

    Raises:
        UserError: if the disk is full or the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        causes = {
            errno.ENOSPC: "no space left on the disk",
            errno.EDQUOT: "disk quota exceeded",
            errno.EACCES: "no permission to write",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a file is in the way of a folder",
            errno.EEXIST: "a file is in the way of a folder",
        }
        if error.errno not in causes:
            raise
        raise UserError(f"cannot write {error.filename or path}: {causes[error.errno]}") from error


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole when the block ends, or not at all."""
    with writing(path):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))


def append_jsonl(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds one line of JSON."""
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; none if it is missing; a half-written last one is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]
