"""Checkpoints: whole or not at all, and damaged ones are passed over."""

import errno
import logging

import keras
import numpy as np
import pytest

from tests.training.toys import Line, Tug, batches, line_data
from tfgen.errors import UserError
from tfgen.training import checkpoint

RECORD = {"seconds": 1.5, "means": {"sums": {"loss": 0.1}, "weight": 2.0, "updates": 2}}


@pytest.fixture
def model():
    model = Line()
    model.compile(keras.optimizers.Adam(0.1), ema_decay=0.9)
    model.iterator = iter(batches(line_data(64), 8, repeat=True))
    return model


def state(model):
    return {name: np.array(v.numpy()) for name, v in model.state_variables().items()}


def save(folder, model, steps=1, keep=3):
    """Trains some steps, then saves; returns the state."""
    model.run_steps(model.iterator, steps)
    checkpoint.save(folder, model, RECORD, keep)
    return state(model)


def assert_state(model, expected):
    found = state(model)
    assert set(found) == set(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path, model):
    saved = save(tmp_path, model, steps=3)
    assert len(saved) == 1 + 2 + 2 + 6  # the step, weights, averages, Adam
    model.run_steps(model.iterator, 2)
    assert checkpoint.restore(tmp_path, model) == RECORD
    assert_state(model, saved)
    assert int(model.step.numpy()) == 3


def test_names_do_not_depend_on_what_was_built_before(tmp_path, model):
    saved = save(tmp_path, model)
    later = Line()
    later.compile(keras.optimizers.Adam(0.1), ema_decay=0.9)
    assert set(saved) == set(state(later))
    checkpoint.restore(tmp_path, later)
    assert_state(later, saved)


def test_weights_only_leaves_the_optimiser(tmp_path, model):
    saved = save(tmp_path, model, steps=3)
    model.run_steps(model.iterator, 2)
    moved = state(model)
    assert checkpoint.restore(tmp_path, model, weights_only=True) == RECORD
    optimizer = {name for name in saved if name.startswith("optimizer/")}
    assert optimizer
    assert_state(model, {n: (moved if n in optimizer else saved)[n] for n in saved})


def test_no_checkpoint(tmp_path, model):
    before = state(model)
    assert checkpoint.restore(tmp_path, model) is None
    assert checkpoint.restore(tmp_path / "none", model) is None
    assert_state(model, before)


@pytest.mark.parametrize("keep", [1, 2])
def test_keeps_the_newest(tmp_path, model, keep):
    for _ in range(4):
        save(tmp_path, model, keep=keep)
    assert checkpoint.all_steps(tmp_path) == [1, 2, 3, 4][-keep:]
    assert len(names(tmp_path)) == keep


def test_a_full_disk_leaves_the_old_ones_and_no_half(tmp_path, model, monkeypatch):
    saved = save(tmp_path, model)
    before = names(tmp_path)

    def half(file, **arrays):
        file.write(b"PK half of an archive")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(UserError, match=r"cannot write .*: no space left on the disk"):
        save(tmp_path, model, keep=1)
    assert names(tmp_path) == before
    checkpoint.restore(tmp_path, model)
    assert_state(model, saved)


def test_an_interrupt_leaves_no_half(tmp_path, model, monkeypatch):
    save(tmp_path, model)
    before = names(tmp_path)

    def stopped(file, **arrays):
        file.write(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stopped)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, model)
    assert names(tmp_path) == before


def truncate(data):
    return data[: len(data) // 2]


def empty(data):
    return b""


def flip_a_bit_of_an_array(data):
    # In the middle of the archive lie values of arrays, which only their CRC-32 protects.
    middle = data.index(b"NUMPY", len(data) // 2) + 130
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def flip_a_bit_of_a_header(data):
    at = data.index(b"descr")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def no_archive(data):
    return b"<html>" + data


DAMAGES = [truncate, empty, flip_a_bit_of_an_array, flip_a_bit_of_a_header, no_archive]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_and_passed_over(tmp_path, model, damage, caplog):
    saved = save(tmp_path, model)
    save(tmp_path, model)
    newest = tmp_path / "step-000000002.npz"
    newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level(logging.WARNING, "absl"):
        assert checkpoint.restore(tmp_path, model) == RECORD
    (warning,) = [r.getMessage() for r in caplog.records if r.name == "absl"]
    assert warning.startswith(f"damaged checkpoint passed over: {newest}")
    assert "\n" not in warning
    assert_state(model, saved)


def test_every_flipped_byte_is_found_or_harmless(tmp_path, model):
    saved = save(tmp_path, model)
    path = tmp_path / "step-000000001.npz"
    data = path.read_bytes()
    for at in np.random.default_rng(0).integers(len(data), size=150):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        message = ""
        try:
            checkpoint.restore(tmp_path, model)
        except UserError as error:
            message = str(error)
        assert message == "" or "all 1 checkpoints" in message
        assert_state(model, saved)  # where it was not found, it was e.g. in a time stamp


def test_all_damaged(tmp_path, model):
    for _ in range(2):
        save(tmp_path, model)
    for path in tmp_path.iterdir():
        path.write_bytes(truncate(path.read_bytes()))
    before = state(model)
    with pytest.raises(UserError, match=r"all 2 checkpoints in .* are damaged; remove them"):
        checkpoint.restore(tmp_path, model)
    assert_state(model, before)


def test_of_another_model(tmp_path, model):
    save(tmp_path, model)
    other = Tug()
    other.compile(low="sgd", high="sgd")
    before = state(other)
    with pytest.raises(UserError, match=r"step-000000001\.npz is of another model: only the"):
        checkpoint.restore(tmp_path, other)
    assert_state(other, before)


def test_of_another_shape(tmp_path, model):
    save(tmp_path, model)
    other = Line(inputs=4)
    other.compile(keras.optimizers.Adam(0.1), ema_decay=0.9)
    before = state(other)
    with pytest.raises(UserError, match=r"another model: .* has shape \(3, 1\) there and \(4"):
        checkpoint.restore(tmp_path, other)
    assert_state(other, before)
