"""Checkpoints: the whole state of a training in one file, written whole or not at all.

A checkpoint is a `.npz` archive: one array for each variable of `GenerativeModel.state_variables`
and one JSON record of what is not a variable (running means of the logs, time spent). The archive
carries a CRC-32 for every array, so a damaged or truncated file is known when it is read.
"""

import itertools
import json
import pathlib
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
from absl import logging

from tfgen import run
from tfgen.errors import UserError
from tfgen.training.model import GenerativeModel

_RECORD = "record.json"
# What numpy and zipfile raise for an archive whose bytes are wrong or missing.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
_NAME = re.compile(r"[a-z]+-(\d+)\.npz")


def save(folder: pathlib.Path, model: GenerativeModel, record: dict[str, Any], keep: int) -> None:
    """Writes `folder/step-<n>.npz`, then removes all but the newest `keep` checkpoints.

    Args:
        folder: the run's `checkpoints`.
        model: its state is written.
        record: what JSON can hold.
        keep: how many checkpoints stay, at least 1.

    Raises:
        UserError: if the disk is full or cannot be written; the older checkpoints stay.
    """
    _write(folder, "step", model, record)
    _tidy(folder, keep)


def save_best(folder: pathlib.Path, model: GenerativeModel) -> None:
    """Writes `folder/best-<n>.npz`, which is no checkpoint until `rewind` makes it one.

    It stays until no checkpoint is left that was written when it was the best.

    Raises:
        UserError: as of `save`.
    """
    _write(folder, "best", model, {})


def rewind(
    folder: pathlib.Path, model: GenerativeModel, step: int, record: dict[str, Any], keep: int
) -> None:
    """Sets the model to `best-<step>.npz` and makes that the newest checkpoint.

    Args:
        folder: the run's `checkpoints`.
        model: its state is set.
        step: of the file.
        record: the checkpoint's.
        keep: as for `save`.

    Raises:
        UserError: if the file is missing or damaged, or as of `save`.
    """
    path = _path(folder, "best", step)
    try:
        arrays, _ = _read(path)
    except _DAMAGE as error:
        raise UserError(f"cannot read the weights of the best epoch: {path} ({error})") from error
    _assign(path, arrays, model, weights_only=False)
    _write(folder, "step", model, record)
    remove_after(folder, "step", step)
    remove_after(folder, "best", -1)
    _tidy(folder, keep)


def remove_after(folder: pathlib.Path, kind: str, step: int) -> None:
    """Removes files of a kind, "step" or "best", that were written after a step."""
    for later in all_steps(folder, kind):
        if later > step:
            _path(folder, kind, later).unlink(missing_ok=True)


def _write(folder: pathlib.Path, kind: str, model: GenerativeModel, record: dict) -> None:
    arrays = {name: np.asarray(v.numpy()) for name, v in model.state_variables().items()}
    arrays[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    with run.atomic(_path(folder, kind, int(arrays["step"]))) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _tidy(folder: pathlib.Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and best ones that none of these needs."""
    steps = all_steps(folder)
    for old in steps[:-keep]:
        _path(folder, "step", old).unlink(missing_ok=True)
    for old, better in itertools.pairwise(all_steps(folder, "best")):
        if better <= steps[-keep:][0]:
            _path(folder, "best", old).unlink(missing_ok=True)


def _path(folder: pathlib.Path, kind: str, step: int) -> pathlib.Path:
    return folder / f"{kind}-{step:09d}.npz"


def all_steps(folder: pathlib.Path, kind: str = "step") -> list[int]:
    """Steps of the checkpoints in a folder, oldest first; or of the "best" ones."""
    matches = [_NAME.fullmatch(p.name) for p in folder.glob(f"{kind}-*.npz")]
    return sorted(int(m[1]) for m in matches if m)


def restore(
    folder: pathlib.Path, model: GenerativeModel, *, weights_only: bool = False
) -> dict[str, Any] | None:
    """Sets the model to the newest checkpoint that can be read.

    A damaged one is named in a warning and passed over for the one before it.

    Args:
        folder: the run's `checkpoints`.
        model: its variables are set.
        weights_only: leave the optimisers alone, for a model that is only used.

    Returns:
        The record saved with it, or None where there is no checkpoint.

    Raises:
        UserError: if there are checkpoints and none can be read, or one is of another model.
    """
    steps = all_steps(folder)
    for step in reversed(steps):
        path = _path(folder, "step", step)
        try:
            arrays, record = _read(path)
        except _DAMAGE as error:
            logging.warning("damaged checkpoint passed over: %s (%s)", path, error)
            continue
        _assign(path, arrays, model, weights_only)
        return record
    if steps:
        raise UserError(
            f"all {len(steps)} checkpoints in {folder} are damaged; "
            "remove them to start again from step 0"
        )
    return None


def read_record(folder: pathlib.Path) -> dict[str, Any]:
    """The record of the newest checkpoint, without a model."""
    path = _path(folder, "step", all_steps(folder)[-1])
    with np.load(path, allow_pickle=False) as archive:
        return json.loads(archive[_RECORD].tobytes())


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(arrays.pop(_RECORD).tobytes())


def _assign(
    path: pathlib.Path, arrays: dict[str, np.ndarray], model: GenerativeModel, weights_only: bool
) -> None:
    variables = model.state_variables()
    if weights_only:
        arrays = {k: v for k, v in arrays.items() if not k.startswith("optimizer/")}
        variables = {k: v for k, v in variables.items() if not k.startswith("optimizer/")}
    if set(arrays) != set(variables):
        odd = sorted(set(arrays) ^ set(variables))[0]
        where = "the checkpoint" if odd in arrays else "the model"
        raise UserError(f"checkpoint {path} is of another model: only {where} has {odd!r}")
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise UserError(
                f"checkpoint {path} is of another model: {name!r} has shape "
                f"{arrays[name].shape} there and {tuple(variable.shape)} here"
            )
    for name, variable in variables.items():
        variable.assign(arrays[name])
