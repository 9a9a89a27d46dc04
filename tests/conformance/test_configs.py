"""Every flagfile: parses strictly, names a real system, opens with its paper and its command."""

import dataclasses
import pathlib
import re

import pytest

from tfgen import hparams, listing, train

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.cfg"))
FRAGMENTS = sorted((ROOT / "configs" / "common").glob("*.cfg"))


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A config holds hyperparameters only; options of commands have no place there."""


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # nested flagfiles are relative to it


def test_there_are_configs():
    assert CONFIGS
    assert FRAGMENTS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parses_strictly_and_names_a_real_system(path):
    name, hp, _ = hparams.parse(["", f"--flagfile={path}"], Nothing)
    assert name in hparams.systems()
    text = path.read_text()
    assert "--system=" in text, "the system stands in the config itself, where a reader sees it"
    assert hp == hparams.parse(["", f"--flagfile={path}"], train.Options)[1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_opens_with_paper_and_command(path):
    paper, command, *_ = path.read_text().splitlines()
    assert re.match(r"# .*\b(19|20)\d\d\b.* \| ", paper), "# paper (year), table | expected | time"
    start = f"# python -m tfgen.train --flagfile=configs/{path.name}"
    assert command == start or command.startswith(start + " ")
    flags = [arg for arg in command.split()[4:] if arg != "--data_dir=DIR"]
    hparams.parse(["", *flags], train.Options)  # the command itself has no dead flag


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_named_after_its_system(path):
    system = hparams.named_system(["", f"--flagfile={path}"], Nothing)
    assert path.stem.startswith(system.split(".")[1] + "_"), "<system>_<data>.cfg"


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_fragments_suit_some_system(path):
    assert path.read_text().startswith("# ")
    assert "--system" not in path.read_text().replace("# ", "")
    good = 0
    for name in hparams.systems():
        try:
            hparams.parse(["", f"--system={name}", f"--flagfile={path}"], Nothing)
            good += 1
        except hparams.UserError:
            continue
    assert good
    if path.stem == "smoke":
        assert good == len(hparams.systems())


def test_every_config_is_listed():
    listed = [p for paths in listing.configs_by_system(ROOT / "configs").values() for p in paths]
    assert sorted(listed) == CONFIGS
