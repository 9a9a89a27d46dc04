"""Claims are computed from rows, rows accumulate, and the page is computed from the files."""

import copy
import functools
import json
import types

import numpy as np
import pytest

from tfgen.errors import UserError
from tfgen.metrics.measure import Measure
from tools import reproduce, results_page
from tools.claims import _common, vae_iwae
from tools.claims._base import Claim, NotRun, Outcome, Outcomes, Run, Toy

GOOD = {  # (layers, k) -> NLL, active units of each layer
    (1, 1): (90.0, [19]),
    (1, 5): (89.0, [22]),
    (1, 50): (87.5, [25]),
    (2, 1): (89.5, [16, 5]),
    (2, 50): (86.0, [26, 7]),
}


def _of_iwae(numbers: dict, minutes: float = 60.0, budget: str = "small") -> Outcomes:
    outcomes = {}
    for r in vae_iwae.rows(budget):
        layers, k = int(r.name[1]), int(r.name.split("_")[1][1:])
        nll, units = numbers[layers, k]
        measures = {"nll": {"value": nll + 0.01 * r.seed, "error": 0.1, "unit": "nats", "note": ""}}
        for layer, count in enumerate(units):
            measures[f"active_units_layer_{layer + 1}"] = {"value": count, "error": None}
        outcomes[r.name] = Outcome(r.name, measures, minutes, 100.0)
    return Outcomes(outcomes, outcomes)


def _falling_short(numbers: dict, minutes: float = 60.0) -> list[str]:
    found, _ = reproduce.check(vae_iwae.CLAIMS, _of_iwae(numbers, minutes))
    return [c.claim for c in found if not c.holds]


def test_all_claims_hold_for_good_numbers() -> None:
    found, left_out = reproduce.check(vae_iwae.CLAIMS, _of_iwae(GOOD))
    assert len(found) == 7
    assert not left_out
    assert _falling_short(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "minutes", "claim"),
    [
        ({(1, 5): (90.5, [22])}, 60, "NLL falls with k, 1 layer"),
        ({(1, 5): (90.01, [22])}, 60, "NLL falls with k, 1 layer"),  # beaten by seed 1 or 2
        ({(1, 50): (87.5, [22])}, 60, "active units rise with k, 1 layer"),
        ({(2, 50): (89.6, [26, 7])}, 60, "NLL falls with k, 2 layers"),
        ({(2, 1): (91.0, [16, 5])}, 60, "2 layers beat 1 at k=1"),
        ({(1, 50): (88.1, [25])}, 60, "at most 88 nats"),
        ({}, 121, "at most 88 nats within two hours"),
    ],
)
def test_a_claim_that_fails_is_seen(changed: dict, minutes: float, claim: str) -> None:
    assert any(claim in c for c in _falling_short({**GOOD, **changed}, minutes))


def test_a_claim_with_a_missing_row_is_named_and_not_made() -> None:
    everything = _of_iwae(GOOD)
    without = {
        name: o for name, o in everything.items() if name not in ("l1_k1_seed2", "l2_k1_seed0")
    }
    found, left_out = reproduce.check(vae_iwae.CLAIMS, Outcomes(without, everything.rows))
    assert [c.claim for c in found] == [
        "2 layers beat 1 at k=50 and the same epochs, each by the step size that suits it "
        "(1e-3, 3e-3)",
        "1 layer, k=50: at most 88 nats within two hours",
    ]
    assert {left["claim"]: left["missing"] for left in left_out} == {
        "NLL falls with k (layers = 1)": ["l1_k1_seed2"],
        "Active units rise with k (layers = 1)": ["l1_k1_seed2"],
        "NLL falls with k (layers = 2)": ["l2_k1_seed0"],
        "Active units rise with k (layers = 2)": ["l2_k1_seed0"],
        "2 layers beat 1 at the same k and the same epochs (k = 1)": ["l1_k1_seed2", "l2_k1_seed0"],
    }


def test_a_budget_without_a_row_does_not_make_its_claim() -> None:
    found, left_out = reproduce.check(vae_iwae.CLAIMS, _of_iwae(GOOD, budget="paper"))
    assert [c.claim for c in found] == [
        "NLL falls with k, 1 layer: k=1, k=50",
        "active units rise with k, 1 layer: k=1, k=50",
        "1 layer, k=50: at most 88 nats within two hours",
    ]
    assert not left_out


def test_looking_up_what_is_missing() -> None:
    here = Outcome("a_seed0", {"fid_x_classifier": {"value": 2.0}})
    outcomes = Outcomes({"a_seed0": here}, ["a_seed0", "a_seed1", "b_seed0", "b_seed1"])
    assert outcomes["a_seed0"].value_starting("fid_") == 2.0
    with pytest.raises(NotRun, match="^b_seed0$"):
        outcomes["b_seed0"]
    with pytest.raises(NotRun) as error:
        outcomes.by_seed("a", "b", seeds=(0, 1))
    assert error.value.missing == ("a_seed1", "b_seed0", "b_seed1")
    with pytest.raises(NotRun, match="nll of a_seed0"):
        here.value("nll")
    with pytest.raises(NotRun, match="folder of a_seed0"):
        _ = here.path
    for ask in (lambda: outcomes["c_seed0"], lambda: outcomes.groups(["c_seed0"])):
        with pytest.raises(KeyError, match="c_seed0"):  # no row at all: a mistake of the module
            ask()


# A module of claims with two runs and a toy, whose training and evaluation are made up.


def _better(outcomes: Outcomes) -> Claim:
    """A beats B."""
    a, b = (outcomes[name].value("nll") for name in ("a", "b"))
    return Claim("A beats B", "", f"{a:g}", f"{b:g}", "nats", a < b)


def _measured(outcomes: Outcomes, name: str) -> Claim:
    """A run's folder was looked at."""
    found = outcomes[name].value("files")
    return Claim(f"{name} has a file", "", f"{found:g}", "1", "files", found == 1)


def _toyed(outcomes: Outcomes) -> Claim:
    """The toy is even."""
    number = outcomes["toy"].value("number")
    return Claim("the toy is even", "", f"{number:g}", "", "", number % 2 == 0)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """(reproduce the made-up system with options) -> its result; `made` lists what was computed."""
    made = []

    def train(r, folder, options):
        made.append(r.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log").touch()
        measures = {"nll": {"value": 1.0 + r.seed, "error": 0.1, "unit": "nats", "note": ""}}
        return Outcome(r.name, measures, 1.26, 3.0, folder)

    def toy(seed, scale):
        made.append("toy")
        return {"number": Measure(scale * (seed + 1), None, "", "")}

    def measure(outcome):
        return {"files": Measure(len(list(outcome.path.iterdir())), None, "files", "")}

    def picture(outcomes, path, names=("a", "b")):
        path.write_text(" ".join(str(outcomes[name].path.name) for name in names))

    claims = types.SimpleNamespace(
        rows=lambda budget: [
            Run("a", "iwae_digits.cfg", ("--k=1",)),
            Run("b", "iwae_digits.cfg", ("--k=5",), ("--k=10",), 1),
            Toy("toy", toy, {"scale": 2}, 4),
        ],
        measure=measure,
        CLAIMS=(_better, functools.partial(_measured, name="b"), _toyed),
        PICTURES={"": picture, "part": functools.partial(picture, names=("a",))},
    )
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    monkeypatch.setattr(reproduce, "_trained", train)
    monkeypatch.setattr(reproduce, "environment", lambda: {"date": f"day {len(made)}"})

    def call(**options) -> dict:
        options = reproduce.Options(runs_dir=str(tmp_path / "runs"), **options)
        reproduce.reproduce("vae.x", claims, options)
        return json.loads((tmp_path / "vae.x.json").read_text())

    return types.SimpleNamespace(call=call, made=made, claims=claims, folder=tmp_path)


def test_rows_accumulate(bench, capsys) -> None:
    first = bench.call(only="b")
    assert [row["name"] for row in first["runs"]] == ["b"]
    assert [c["claim"] for c in first["claims"]] == ["b has a file"]
    assert first["not_measured"] == [
        {"claim": "A beats B", "missing": ["a"]},
        {"claim": "The toy is even", "missing": ["toy"]},
    ]
    assert first["not_run"] == ["a", "toy"]
    assert "not measured: A beats B | needs a\n" in capsys.readouterr().out

    second = bench.call(only="toy,a")
    assert bench.made == ["b", "toy", "a"]
    assert [row["name"] for row in second["runs"]] == ["a", "b", "toy"]
    assert second["runs"][1] == first["runs"][0]
    assert [row["environment"]["date"] for row in second["runs"]] == ["day 3", "day 1", "day 2"]
    assert [c["holds"] for c in second["claims"]] == [True, True, True]
    assert second["seeds"] == [0, 1, 4]
    assert second["not_measured"] == []


def test_a_finished_row_keeps_where_it_was_measured(bench) -> None:
    bench.call(only="b")
    again = bench.call(only="b")
    assert bench.made == ["b", "b"]
    assert again["runs"][0]["environment"] == {"date": "day 1"}


def test_rows_are_written_as_they_are_measured(bench, monkeypatch) -> None:
    trained = reproduce._trained

    def fails(r, folder, options):
        if r.name == "b":
            raise UserError("no space left")
        return trained(r, folder, options)

    monkeypatch.setattr(reproduce, "_trained", fails)
    with pytest.raises(UserError, match="no space left"):
        bench.call()
    result = json.loads((bench.folder / "vae.x.json").read_text())
    assert [row["name"] for row in result["runs"]] == ["a"]


def test_what_a_folder_tells_lands_in_the_row(bench) -> None:
    row = bench.call(only="a")["runs"][0]
    assert row["measures"]["files"] == {"value": 1, "error": None, "unit": "files", "note": ""}
    assert row["measures"]["nll"]["value"] == 1.0
    assert (row["minutes"], row["epochs"]) == (1.3, 3.0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Run("b", "iwae_digits.cfg", ("--k=6",), ("--k=10",), 1), "b: flags [.*--k=5.*--k=6"),
        (Run("b", "iwae_mnist.cfg", ("--k=5",), ("--k=10",), 1), "b: flags [.*iwae_mnist"),
        (Run("b", "iwae_digits.cfg", ("--k=5",), ("--k=99",), 1), "b: evaluation [.*--k=10.*99"),
        (Run("b", "iwae_digits.cfg", ("--k=5",), ("--k=10",), 2), "b: seed 1, now 2"),
        (Run("c", "iwae_digits.cfg"), "b: there is no such row any more"),
    ],
)
def test_a_row_of_other_flags_is_dropped(bench, capsys, row: Run, said: str) -> None:
    bench.call()
    rows = bench.claims.rows("small")
    bench.claims.rows = lambda budget: [rows[0], row, rows[2]]
    bench.claims.CLAIMS = (_toyed,)
    capsys.readouterr()
    result = bench.call(page_only=True)
    assert [row["name"] for row in result["runs"]] == ["a", "toy"]
    printed = capsys.readouterr().out
    assert printed.count("dropped") == 1
    assert all(part in printed for part in ("vae.x.json: dropped", *said.split(".*")))


def test_rows_of_another_budget_are_dropped(bench, capsys) -> None:
    bench.call()
    with pytest.raises(UserError, match="would lose all rows: they are of --budget=small"):
        bench.call(budget="paper", page_only=True)
    assert bench.call(budget="paper", only="a")["not_run"] == ["b", "toy"]
    assert "dropped all rows: they are of --budget=small" in capsys.readouterr().out


def test_a_toy_is_made_once_in_a_folder_of_runs(bench) -> None:
    bench.call(only="toy")
    again = bench.call(only="toy")
    assert bench.made == ["toy"]
    assert again["runs"][0]["measures"]["number"]["value"] == 10
    assert again["runs"][0]["environment"] == {"date": "day 1"}

    rows = bench.claims.rows("small")
    changed = Toy("toy", rows[2].function, {"scale": 3}, 4)
    bench.claims.rows = lambda budget: [*rows[:2], changed]
    assert bench.call(only="toy")["runs"][0]["measures"]["number"]["value"] == 15


def test_a_picture_is_drawn_where_its_folders_are_at_hand(bench, capsys) -> None:
    picture = bench.folder / "vae.x.png"
    bench.call(only="a")
    assert not picture.exists()
    assert (bench.folder / "vae.x.part.png").read_text() == "a"
    assert "vae.x.png is left as it is: it needs b" in capsys.readouterr().out
    bench.call(only="b")
    assert "it needs folder of a" in capsys.readouterr().out
    bench.call()
    assert picture.read_text() == "a b"
    picture.write_text("old")
    bench.call(page_only=True)
    assert picture.read_text() == "old"


def test_a_picture_of_toys_is_drawn_without_folders(bench) -> None:
    toy = bench.claims.rows("small")[2]
    bench.claims.rows = lambda budget: [toy]
    bench.claims.CLAIMS = (_toyed,)
    bench.claims.PICTURES = {
        "": lambda outcomes, path: path.write_text(f"{outcomes['toy'].value('number'):g}")
    }
    bench.call()
    assert (bench.folder / "vae.x.png").read_text() == "10"


def test_evaluate_only_takes_the_rows_that_have_begun(bench) -> None:
    bench.call(only="b")
    bench.call(evaluate_only=True)
    assert bench.made == ["b", "b"]


def test_a_file_of_the_first_form_is_used(bench, capsys) -> None:
    result = bench.call(only="b")
    (row,) = result["runs"]
    result["environment"] = row.pop("environment")
    del row["evaluation"], result["not_measured"]
    (bench.folder / "vae.x.json").write_text(json.dumps(result))
    kept = bench.call(only="a")["runs"][1]
    assert kept["evaluation"] == ["--k=10"]
    assert kept["environment"] == {"date": "day 1"}
    assert "dropped" not in capsys.readouterr().out


def test_a_row_of_an_image_folder_is_told_where_folders_lie(tmp_path, monkeypatch) -> None:
    row = Run("f", "attribute_cmu_faces.cfg", ("--data=folder:{folders}/cmu_faces", "--seed=1"))
    monkeypatch.chdir(tmp_path)
    assert reproduce.training_flags(row, "faces") == [
        "--flagfile=configs/attribute_cmu_faces.cfg",
        f"--data=folder:{tmp_path}/faces/cmu_faces",
        "--seed=1",
    ]
    assert "{folders}" in row.record()["flags"][1]  # a row is the same wherever they lie


def test_the_list_says_what_is_done(bench, capsys) -> None:
    bench.call(only="b")
    capsys.readouterr()
    reproduce.print_rows("vae.x", bench.claims, "small")
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "vae.x: 1 of 3 rows are done at --budget=small"
    assert [row.split()[0] for row in rows] == ["a", "b", "toy"]
    assert rows[0].endswith(" not done")
    assert rows[1].endswith(" done, 1.3 minutes, 3 epochs, day 1")


def test_an_unknown_row_is_named() -> None:
    with pytest.raises(UserError, match="--only=l1_k2_seed0. Did you mean: l1_k5_seed0"):
        reproduce.main(["", "vae.iwae", "--only=l1_k2_seed0"])


def test_an_evaluation_by_other_flags_is_not_used(tmp_path) -> None:
    line = {"step": 5, "split": "test", "k": 10, "limit": None, "seed": 0, "measures": {}}
    run_dir = reproduce.run.RunDir(tmp_path)
    reproduce.run.append_jsonl(run_dir.evaluations, line)

    def found(*flags, step=5):
        return reproduce._evaluations(run_dir, Run("a", "x.cfg", (), flags), step)

    assert found("--k=10") == [line]
    assert found("--k=20") == []
    assert found() == []
    assert found("--k=10", step=6) == []


def test_late_means_are_over_the_last_quarter(tmp_path) -> None:
    for step in range(8):
        reproduce.run.append_jsonl(
            tmp_path / "metrics.jsonl", {"step": step, "epoch": 1, "x": step}
        )
    reproduce.run.append_jsonl(tmp_path / "metrics.jsonl", {"step": 8, "validation_x": 100})
    outcome = Outcome("a", {}, folder=tmp_path)
    assert _common.late_mean(outcome, "x") == 6.5


# The page.


def _result(**changed) -> dict:
    claims = [
        {"claim": "a", "paper": "1", "ours": "2", "baseline": "|3|", "unit": "nats", "holds": holds}
        for holds in (True, False)
    ]
    rows = [
        {
            "name": name,
            "epochs": 3,
            "minutes": 1.5,
            "measures": {
                "fid_digits_classifier": {"value": value, "error": 0.5},
                "classes_covered": {"value": 10, "error": None},
            },
            "environment": {"cores": 2, "processor": "p", "tensorflow": "t", "date": date},
        }
        for name, value, date in (("r", 1, "2026-01-02"), ("s", 2, "2026-01-02"))
    ]
    result = {
        "system": "vae.x",
        "budget": "small",
        "command": "python -m tools.reproduce vae.x",
        "minutes": 3.0,
        "seeds": [0],
        "claims": claims,
        "not_measured": [{"claim": "B is so", "missing": ["q_seed0", "q_seed2", "nll of r"]}],
        "runs": rows,
        "not_run": ["q"],
    }
    return {**result, **changed}


def test_page_shows_what_falls_short_and_what_is_not_measured() -> None:
    page = results_page.page([_result()])
    assert page.count("**falls short**") == 1
    assert "| a | 1 | 2 | \\|3\\| | nats | holds |" in page
    assert "* B is so: needs q_seed0, 2; nll of r" in page
    assert "Rows not measured yet: q." in page
    assert "| [vae.x](#vaex) | 1 | 1 | 1 |" in page
    assert "| vae.vae |  |  | all |" in page
    assert "![" not in page  # there is no such picture


def test_page_has_all_pictures_of_a_system_and_none_of_another(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(results_page, "FOLDER", tmp_path)
    for name in ("vae.x.png", "vae.x.part.png", "vae.x_y.png", "vae.x.json"):
        (tmp_path / name).touch()
    page = results_page.page([_result()])
    assert page.count("![") == 2
    assert "![vae.x.part](results/vae.x.part.png)" in page
    assert "![vae.x](results/vae.x.png)" in page
    assert "no picture" not in page


def test_page_says_why_a_claim_falls_short_and_only_then() -> None:
    result = _result()
    assert "why they fall short" not in results_page.page([result])
    for claim in result["claims"]:
        claim["why"] = f"as {claim['claim']} is hard"
    (short,) = (c["claim"] for c in result["claims"] if not c["holds"])
    page = results_page.page([result])
    assert f"What is known of why they fall short:\n\n* *{short}*: as {short} is hard\n" in page
    assert page.count("is hard") == 1


def test_page_says_what_rows_have_in_common_once() -> None:
    page = results_page.page([_result()])
    assert "| run | minutes | FID |" in page
    assert "| r | 1.5 | 1 ± 0.5 |" in page
    assert "The same in all: epochs 3, classes covered 10." in page
    assert "seeds 0; 2 cores of p, TensorFlow t, 2026-01-02." in page


def test_page_shows_curves_in_a_table_of_their_own() -> None:
    result = _result()
    row = copy.deepcopy(result["runs"][0])
    row["name"] = "drawn"
    for quarter in range(1, 5):
        row["measures"][f"kid_loss_q{quarter}"] = {"value": quarter / 10}
    result["runs"].append(row)
    page = results_page.page([result])
    assert page.count("| run | minutes | ") == 1  # one table of rows, curves or not
    assert "q1" not in page
    assert "Means over the quarters of the training:\n\n| run | KID loss |" in page
    assert "| drawn | 0.1, 0.2, 0.3, 0.4 |" in page


def test_page_tells_machines_and_dates_apart() -> None:
    result = _result()
    gpu = {"cores": 16, "processor": "x", "gpus": ["g"], "tensorflow": "t", "date": "2026-02-01"}
    toy = {"toy": "f", "name": "u", "minutes": 2.0, "measures": {"error": {"value": 1e-9}}}
    result["runs"].append({**toy, "environment": gpu})
    page = results_page.page([result])
    where = "2 cores of p (2 rows), 16 cores of x with g (1 row), TensorFlow t"
    assert f"{where}, 2026-01-02 to 2026-02-01." in page
    assert "| toy | minutes | error |" in page
    assert "| u | 2 | 1e-09 |" in page


def test_the_page_in_the_repository_is_the_one_from_its_files() -> None:
    written = (reproduce.ROOT / "RESULTS.md").read_text()
    assert written == results_page.page(results_page.read(results_page.FOLDER))


def test_holds_in_the_files_is_a_truth_value_of_each_claim() -> None:
    for result in results_page.read(results_page.FOLDER):
        for claim in result["claims"]:
            assert claim["holds"] in (True, False)
            assert not isinstance(claim["holds"], np.number)


def test_a_row_of_a_flagfile_that_has_changed_is_dropped(tmp_path, monkeypatch) -> None:
    configs = tmp_path / "configs"
    (configs / "common").mkdir(parents=True)
    (configs / "common/all.cfg").write_text("--steps=5\n")
    (configs / "x.cfg").write_text("# one\n--flagfile=configs/common/all.cfg\n--seed=1\n")
    monkeypatch.setattr("tools.claims._base.ROOT", tmp_path)
    run = Run("a", "x.cfg")
    row = {**run.record(), "settings": run.settings()}
    assert reproduce._differences(row, run) == ""
    (configs / "x.cfg").write_text("# another\n--flagfile=configs/common/all.cfg\n--seed=1\n")
    assert reproduce._differences(row, run) == ""  # comments are nothing
    (configs / "common/all.cfg").write_text("--steps=6\n")
    assert reproduce._differences(row, run) == "configs/x.cfg has changed since"
    del row["settings"]  # of a time when rows did not say
    assert reproduce._differences(row, run) == ""
