"""The run directory: what lies where, written and read in this one place.

flags.cfg           resolved flags; a valid flagfile
data.json           the data's `DataSpec`: enough to build the model without the data
batch.npz           up to 64 validation examples, for pictures without the data
checkpoints/        step-000001000.npz, ...: the whole state of the training; best-<n>.npz while
                    early stopping may want it
metrics.jsonl       one line a logging interval, a function of the flags alone
evaluations.jsonl   one line an evaluation
samples/            pictures and arrays; <name>.gif is a picture's change over the training
curves.png          what metrics.jsonl holds, plotted
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
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from tfgen.errors import UserError

_TEMPORARY = ".writing-"  # Begins the names of files that are not whole yet.


class RunDir:
    """One run directory.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path).expanduser()
        self.flags = self.path / "flags.cfg"
        self.data = self.path / "data.json"
        self.batch = self.path / "batch.npz"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.samples = self.path / "samples"
        self.curves = self.path / "curves.png"
        self.events = self.path / "events"
        self.keras = self.path / "model.keras"
        self.exports = self.path / "export"

    def create(self, flagfile: str, defaults: str = "") -> None:
        """Makes the directory for a run with these flags, or opens the one that they made.

        Args:
            flagfile: text of the resolved flags.
            defaults: the same of the flags' defaults: a flag that the run there does not know, as
                it came with a later version, may be at its default.

        Raises:
            UserError: if the directory belongs to a run of other flags (the difference is shown)
                that has a checkpoint or is in use, or cannot be written.
        """
        with writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
            if not self.flags.exists():
                write_text(self.flags, flagfile)
            elif changed := self._other_flags(flagfile, defaults):
                if self._has_checkpoint():
                    raise UserError(
                        f"run directory {self.path} belongs to a run with other flags: "
                        f"{', '.join(changed)}. Choose another --run_dir, or give the same flags "
                        "to resume"
                    )
                with self.lock():  # that run ended before it began
                    write_text(self.flags, flagfile)

    def _other_flags(self, flagfile: str, defaults: str) -> list[str]:
        """Flags of the run there that differ from these, and these."""
        old = self.flags.read_text(encoding="utf-8").splitlines()
        known = {line.partition("=")[0] for line in old}
        since = {line for line in defaults.splitlines() if line.partition("=")[0] not in known}
        new = [line for line in flagfile.splitlines() if line not in since]
        changed = [f"{line} (there)" for line in old if line not in new]
        changed += [f"{line} (now)" for line in new if line not in old]
        return changed

    def keep_data(self, spec: str) -> None:
        """Writes what the data is, in JSON; a run that has a checkpoint goes on with the same.

        Raises:
            UserError: if it is other data than before (the difference is shown), or the file
                cannot be written.
        """
        if self.data.exists() and self._has_checkpoint():
            if changed := self.other_data(spec):
                raise UserError(
                    f"the data is not that which the run in {self.path} began with: "
                    f"{'; '.join(changed.values())}. Choose another --run_dir, or restore the data"
                )
        write_text(self.data, spec)

    def other_data(self, spec: str) -> dict[str, str]:
        """What of the data, in JSON, is not as the run has it: key -> the difference in words."""
        old, new = json.loads(self.data.read_text(encoding="utf-8")), json.loads(spec)
        return {
            key: f"{key} {old.get(key)} (there), {new.get(key)} (now)"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        }

    def _has_checkpoint(self) -> bool:
        return any(not p.name.startswith(_TEMPORARY) for p in self.checkpoints.iterdir())

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this directory at the same time.

        Raises:
            UserError: if one does already.
        """
        with contextlib.ExitStack() as stack:
            with writing(self.path):
                file = stack.enter_context(open(self.path / ".lock", "w", encoding="utf-8"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UserError(
                        f"run directory {self.path} is in use by another process; "
                        "wait for it or choose another --run_dir"
                    ) from error
                # What a killed process left half-written; only who holds the lock writes these.
                for half in self.checkpoints.glob(f"{_TEMPORARY}*"):
                    half.unlink()
                for half in self.path.glob(f"{_TEMPORARY}*-{self.keras.name}"):
                    half.unlink()
            yield

    def require(self) -> None:
        """Raises `UserError` unless a run has started here."""
        if not self.flags.is_file():
            raise UserError(
                f"no run in --run_dir={self.path}: {self.flags.name} is missing. "
                "Train first: python -m tfgen.train --flagfile=... --run_dir=..."
            )

    def cut_metrics(self, step: int) -> None:
        """Drops the lines of `metrics.jsonl` after `step`; the run will write them anew.

        A last line that was being written when the process was killed goes as well.
        """
        if self.metrics.exists():
            lines = [line for line in read_jsonl(self.metrics) if line["step"] <= step]
            write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))


def next_version(folder: pathlib.Path) -> pathlib.Path:
    """`folder/<n>`, n being one more than the highest that is there, from 1."""
    taken = [int(p.name) for p in folder.glob("*") if p.name.isdecimal()]
    return folder / str(max(taken, default=0) + 1)


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
            errno.EFBIG: "the file would be larger than is allowed",
            errno.EACCES: "no permission to write",
            errno.EPERM: "no permission to write",
            errno.EISDIR: "a folder is in the way of a file",
            errno.ENAMETOOLONG: "the name is too long",
            errno.EROFS: "the file system is read-only",
            errno.ENOENT: "there is no such folder and none can be made",
            errno.ENOTDIR: "a file is in the way of a folder",
            errno.EEXIST: "a file is in the way of a folder",
            errno.ENOTEMPTY: "a folder is in the way",
        }
        if error.errno not in causes:
            raise
        raise UserError(f"cannot write {error.filename or path}: {causes[error.errno]}") from error


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Another path with the same suffix; what is written there moves to `path` when the block ends.

    It may be a file or a folder. If the block fails, nothing is left of it.
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    with writing(path):
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A binary file that appears at `path` whole when the block ends, or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with atomic(path) as file:
        file.write(text.encode("utf-8"))


def write_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Writes a compressed `.npz` of arrays or tensors, whole or not at all."""
    with atomic(path) as file:
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(file, allow_pickle=False, **plain)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` by name.

    Raises:
        UserError: if it cannot be read, e.g. because it is damaged or holds Python objects.
    """
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} as an .npz of arrays: {error}") from error


def append_jsonl(path: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds one line of JSON; a half-written last line, left by a kill, is dropped first."""
    with writing(path), open(path, "a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(line) + "\n").encode())


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; none if it is missing; a half-written last one is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole, _, _ = text.rpartition("\n")
    return [json.loads(line) for line in whole.splitlines() if line]
