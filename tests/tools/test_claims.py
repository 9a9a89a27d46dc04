"""Every module of claims keeps to its form, by made-up numbers and without a folder."""

import dataclasses
import importlib.util
import pathlib

import pytest
from PIL import Image

from tfgen import evaluate, hparams, run, train
from tools import reproduce
from tools.claims._base import Claim, Outcome, Outcomes, Run, Toy

SYSTEMS = reproduce.systems_with_claims()
LOGGED = (  # What some picture draws from metrics.jsonl.
    "energy_real", "energy_fake", "k", "discriminator_loss", "information_c1",
)  # fmt: skip
OF_TOYS = [s for s in SYSTEMS if all(  # which have no folders
    isinstance(row, Toy) for row in reproduce.load_claims(s).rows("small")
)]  # fmt: skip
CASES = [(system, budget) for system in SYSTEMS for budget in ("small", "paper")]


class _AnyMeasure(dict):
    """Has a number for every name, and names that `Outcome.value_starting` may look for."""

    def __init__(self):
        super().__init__({name: self[name] for name in ("fid_x", "mode_score_x")})

    def __missing__(self, name: str) -> dict:
        return {"value": 1.0, "error": None, "unit": "", "note": ""}


def _made_up(rows: list[Run | Toy]) -> Outcomes:
    names = [row.name for row in rows]
    return Outcomes({n: Outcome(n, _AnyMeasure(), 1.0, 1.0) for n in names}, names)


def _reads_rows(claims, row_names: list[str]) -> list:
    """The claims that need rows: those that cannot be made without any."""
    _, left_out = reproduce.check(claims, Outcomes({}, row_names))
    titles = {left["claim"] for left in left_out}
    return [claim for claim in claims if reproduce.title(claim) in titles]


def test_there_are_modules() -> None:
    assert "vae.iwae" in SYSTEMS
    for name in set(SYSTEMS) - set(hparams.systems()):  # of another module of tfgen
        assert importlib.util.find_spec(f"tfgen.{name}"), name


@pytest.mark.parametrize(("system", "budget"), CASES)
def test_rows(system: str, budget: str) -> None:
    rows = reproduce.load_claims(system).rows(budget)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        assert "," not in row.name  # of --only
        assert "/" not in row.name  # a folder's name
        if isinstance(row, Run):
            flags = [f"--flagfile=configs/{row.flagfile}", *row.flags]
            _, hp, _ = hparams.parse(["", *flags], train.Options)
            assert hp.seed == row.seed
            hparams.parse_options(["", *row.evaluation, "--run_dir=x"], evaluate.Options)
        else:
            assert callable(row.function)
            assert row.record()["arguments"] == dict(row.arguments)


@pytest.mark.parametrize("system", SYSTEMS)
def test_claims_are_made_from_rows_alone(system: str) -> None:
    module = reproduce.load_claims(system)
    rows = module.rows("small")
    row_names = [row.name for row in rows]
    found, left_out = reproduce.check(module.CLAIMS, _made_up(rows))
    assert not left_out  # so none asked for a folder, which no made-up outcome has
    assert found
    assert len({claim.claim for claim in found}) == len(found)
    for claim in found:
        assert isinstance(claim, Claim)
        assert isinstance(claim.holds, bool)
        assert all(isinstance(text, str) for text in dataclasses.astuple(claim)[:5])
    titles = [reproduce.title(claim) for claim in module.CLAIMS]
    assert all(titles)
    assert len(set(titles)) == len(titles)

    needy = _reads_rows(module.CLAIMS, row_names)
    for name in row_names:  # a claim that lacks a row says so and does without an error
        some = {n: o for n, o in _made_up(rows).items() if n != name}
        _, left_out = reproduce.check(needy, Outcomes(some, row_names))
        assert all(left["missing"] == [name] for left in left_out)


@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - set(OF_TOYS)))
def test_a_picture_needs_folders(system: str, tmp_path) -> None:
    module = reproduce.load_claims(system)
    for draw in module.PICTURES.values():
        with pytest.raises(reproduce.NotRun, match="folder of"):
            draw(_made_up(module.rows("small")), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("system", OF_TOYS)
def test_a_picture_of_toys_is_drawn_from_rows_alone(system: str, tmp_path) -> None:
    module = reproduce.load_claims(system)
    for part, draw in module.PICTURES.items():
        draw(_made_up(module.rows("small")), tmp_path / f"x{part}.png")
        assert Image.open(tmp_path / f"x{part}.png").width > 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A run directory that has what pictures are made of."""
    run_dir = run.RunDir(tmp_path_factory.mktemp("run"))
    run_dir.samples.mkdir()
    styles = [f"styles_of_class_{label}" for label in (2, 3, 4)]
    kinds = (
        "samples", "reconstructions", "completions", "analogies", "canvases", "progressions",
        "translations", "a_to_b_to_a",
    )  # fmt: skip
    for name in (*kinds, "c1", "c2", "c3", *styles):
        Image.new("L", (8, 8)).save(run_dir.samples / f"{name}-000000010.png")
    Image.new("L", (8, 8)).save(run_dir.samples / "drawing-000000010.gif")
    for step in (10, 20):
        line = {"step": step, "epoch": 1.0, **dict.fromkeys(LOGGED, 1.0)}
        run.append_jsonl(run_dir.metrics, line)
    return run_dir.path


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_picture_is_drawn_from_folders(system: str, folder, tmp_path) -> None:
    module = reproduce.load_claims(system)
    outcomes = _made_up(module.rows("small"))
    there = {n: dataclasses.replace(o, folder=folder) for n, o in outcomes.items()}
    for part, draw in module.PICTURES.items():
        draw(Outcomes(there, outcomes.rows), tmp_path / f"x{part}.png")
        assert Image.open(tmp_path / f"x{part}.png").width > 200
