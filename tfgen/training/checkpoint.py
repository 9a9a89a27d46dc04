"""Checkpoints: the whole state of a training in one file, written whole or not at all.

A checkpoint is a `.npz` archive: one array for each variable of `GenerativeModel.state_variables`
and one JSON record of what is not a variable (running means of the logs, time spent). The archive
carries a CRC-32 for every array, so a damaged or truncated file is known when it is read.
"""

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
_NAME = re.compile(r"step-(\d+)\.npz")


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
    arrays = {name: np.asarray(v.numpy()) for name, v in model.state_variables().items()}
    arrays[_RECORD] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    step = int(arrays["step"])
    with run.atomic(folder / f"step-{step:09d}.npz") as file:
        np.savez(file, allow_pickle=False, **arrays)
    for old in all_steps(folder)[:-keep]:
        (folder / f"step-{old:09d}.npz").unlink(missing_ok=True)


def all_steps(folder: pathlib.Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    matches = [_NAME.fullmatch(p.name) for p in folder.glob("step-*.npz")]
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
        path = folder / f"step-{step:09d}.npz"
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
    path = folder / f"step-{all_steps(folder)[-1]:09d}.npz"
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
