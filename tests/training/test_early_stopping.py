"""Early stopping: a run that overfits ends at its best epoch, whenever it was interrupted."""

import numpy as np
import pytest

from tests.training import runs
from tests.training.toys import Line, batches, line_data
from tfgen import run
from tfgen.errors import UserError
from tfgen.training import checkpoint
from tfgen.training.early_stopping import EarlyStopping

EPOCH, PATIENCE = 13, 3  # 1397 digits in batches of 100
# Far more weights and larger steps than 1397 images bear: the validation loss soon rises again.
OVERFITS = (
    "--system=flow.maf",
    "--data=digits",
    "--early_stopping_epochs=none",  # MAF's default is the paper's 30
    "--blocks=2",
    "--hidden_units=64",
    "--learning_rate=1e-2",
    "--steps=400",
    "--log_every_steps=50",
    "--checkpoint_every_steps=10",
)
STOPPING = (*OVERFITS, f"--early_stopping_epochs={PATIENCE}")


def validations(path):
    lines = run.read_jsonl(run.RunDir(path).metrics)
    return {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, digits_dir):
    """The folder of a run that was never interrupted."""
    path = tmp_path_factory.mktemp("early") / "whole"
    assert runs.train_here(path, *STOPPING, f"--data_dir={digits_dir}") == 0
    return path


def test_it_looks_once_an_epoch_and_ends_when_patience_does(ended):
    losses = validations(ended)
    best = min(losses, key=losses.get)
    assert list(losses) == list(range(EPOCH, best + PATIENCE * EPOCH + 1, EPOCH))
    assert EPOCH < best < 400 - PATIENCE * EPOCH  # the case that this is about


def test_it_ends_with_the_weights_of_the_best_epoch(ended, tmp_path, digits_dir):
    losses = validations(ended)
    best = min(losses, key=losses.get)
    assert checkpoint.all_steps(ended / "checkpoints")[-1] == best
    assert not checkpoint.all_steps(ended / "checkpoints", "best")
    assert f"samples-{best:09d}.png" in {p.name for p in (ended / "samples").iterdir()}

    there = tmp_path / "there"  # without early stopping, to the same step
    stop = (f"--stop_at_step={best}", f"--validate_every_steps={EPOCH}")
    assert runs.train_here(there, *OVERFITS, *stop, f"--data_dir={digits_dir}") == 0
    wanted, found = runs.last_checkpoint(there), runs.last_checkpoint(ended)
    arrays = [name for name in wanted if not name.startswith("means/")]
    assert len(arrays) > 10
    for name in arrays:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def test_an_interrupted_run_ends_there_too(ended, tmp_path, digits_dir):
    losses = validations(ended)
    best = min(losses, key=losses.get)
    # Within an epoch, right after the best one, and when the patience is nearly at its end.
    for stop in (EPOCH + 4, best, best + PATIENCE * EPOCH - 1):
        flags = (*STOPPING, f"--stop_at_step={stop}", f"--data_dir={digits_dir}")
        assert runs.train_here(tmp_path, *flags) == 0
        assert checkpoint.all_steps(tmp_path / "checkpoints")[-1] == stop
        # What a kill can leave: a best epoch that the last checkpoint does not know.
        (tmp_path / "checkpoints" / f"best-{stop + 1:09d}.npz").write_bytes(b"PK")
    assert runs.train_here(tmp_path, *STOPPING, f"--data_dir={digits_dir}") == 0
    runs.assert_same_run(ended, tmp_path)


def test_a_run_that_ended_stays_as_it_is(ended, digits_dir, capsys):
    before = runs.last_checkpoint(ended), runs.metrics(ended)
    step = checkpoint.all_steps(ended / "checkpoints")[-1]
    assert runs.train_here(ended, *STOPPING, f"--data_dir={digits_dir}") == 0
    assert f"step {step}, " in capsys.readouterr().out
    assert runs.metrics(ended) == before[1]
    assert str(runs.last_checkpoint(ended)) == str(before[0])


def test_a_run_at_its_end_keeps_the_best_epoch_as_well(tmp_path, digits_dir):
    flags = [f for f in STOPPING if "steps=400" not in f]
    # Patience to spare, and a last epoch that is not whole.
    flags += ["--steps=250", "--early_stopping_epochs=100", f"--data_dir={digits_dir}"]
    assert runs.train_here(tmp_path, *flags) == 0
    losses = validations(tmp_path)
    best = min(losses, key=losses.get)
    assert list(losses) == [*range(EPOCH, 250, EPOCH), 250]
    assert best < 250
    assert checkpoint.all_steps(tmp_path / "checkpoints")[-1] == best


def test_patience():
    stopping = EarlyStopping("loss", interval=10, patience=2)
    improved = [stopping.improves(10 * i, {"loss": x}) for i, x in enumerate((3.0, 2.0, 2.0), 1)]
    assert improved == [True, True, False]
    assert stopping.state() == {"best_step": 20, "best_loss": 2.0}
    assert [stopping.over(step) for step in (20, 30, 39, 40)] == [False, False, False, True]
    other = EarlyStopping("loss", interval=10, patience=2)
    other.restore(stopping.state())
    assert not other.improves(40, {"loss": 2.5})
    assert other.improves(50, {"loss": 1.5})


def test_best_epochs_stay_while_a_checkpoint_needs_them(tmp_path):
    model = Line()
    model.compile("sgd")
    model.iterator = iter(batches(line_data(64), 8, repeat=True))
    for step in range(1, 10):
        model.run_steps(model.iterator, 1)
        if step in (2, 3, 5):
            checkpoint.save_best(tmp_path, model)
        if step in (4, 6, 9):
            checkpoint.save(tmp_path, model, {}, keep=2)
    assert checkpoint.all_steps(tmp_path) == [6, 9]
    assert checkpoint.all_steps(tmp_path, "best") == [5]  # 3 was that of step 4, which is gone
    checkpoint.remove_after(tmp_path, "best", 4)
    assert not checkpoint.all_steps(tmp_path, "best")
    with pytest.raises(UserError, match="weights of the best epoch: .*best-000000005"):
        checkpoint.rewind(tmp_path, model, 5, {}, keep=2)
    assert checkpoint.all_steps(tmp_path) == [6, 9]
