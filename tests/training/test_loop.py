"""What the loop leaves beside weights: warnings, curves, animations."""

import logging
import re
import types

import pytest
from PIL import Image

from tests.training.runs import train_here
from tfgen import run
from tfgen.training import loop


def test_a_finding_is_logged_once_for_as_long_as_it_lasts(caplog):
    findings = [{"collapse": "spread 0.01"}, {"collapse": "spread 0.02"}, {}, {"collapse": "0.03"}]
    warned: set[str] = set()
    with caplog.at_level(logging.WARNING, logger="absl"):
        for step, found in enumerate(findings):
            model = types.SimpleNamespace(diagnose=lambda logs, found=found: found)
            warned = loop._warn(model, {}, step, warned)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["step 0: collapse: spread 0.01", "step 3: collapse: 0.03"]


def test_a_run_ends_with_curves_and_an_animation_of_each_picture(tmp_path):
    flags = ("--flagfile=configs/gan_ring8.cfg", "--steps=40", "--steps_per_execution=10")
    events = ("--log_every_steps=10", "--pictures_every_steps=20")
    assert train_here(tmp_path / "a", *flags, *events) == 0
    run_dir = run.RunDir(tmp_path / "a")
    with Image.open(run_dir.curves) as curves:
        assert curves.width > 300
    with Image.open(run_dir.samples / "samples.gif") as gif:
        assert gif.n_frames == 2


GONE_WRONG = {
    r"step 40: mode collapse: the fakes' standard deviation is 0.0\d+ of the data's": [
        "--system=gan.ebgan", "--norm=none", "--hidden_units=64,64,64,64", "--steps=40",
        "--log_every_steps=40",
    ],
    r"step 200: the discriminator has won: discriminator_loss 0.00\d+ is next to 0": [
        "--system=gan.gan", "--objective=minimax", "--filters=8", "--steps=200",
        "--learning_rate=1e-6", "--discriminator_learning_rate=1e-2", "--log_every_steps=100",
    ],
}  # fmt: skip


@pytest.mark.parametrize("message", GONE_WRONG)
def test_a_game_that_goes_wrong_is_named(message, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert train_here(tmp_path / "run", "--data=digits", *GONE_WRONG[message]) == 0
    assert re.search(message, caplog.text)
