"""The command: a table for people, a line of JSON for programs."""

import ast
import json
import pathlib

import numpy as np
import pytest

from tests import tiny_run
from tfgen import evaluate, run
from tfgen.errors import UserError
from tfgen.models.vae import iwae


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> run.RunDir:
    return tiny_run.make(tmp_path_factory.mktemp("run"), data="digits")


def _evaluate(run_dir: run.RunDir, digits_dir: str, **flags: object) -> dict:
    status = tiny_run.call(
        evaluate.main, run_dir=run_dir.path, data_dir=digits_dir, **{"k": 20, **flags}
    )
    assert status == 0
    return run.read_jsonl(run_dir.evaluations)[-1]


def test_writes_and_prints_every_measure(
    run_dir: run.RunDir, digits_dir: str, capsys: pytest.CaptureFixture
) -> None:
    line = _evaluate(run_dir, digits_dir)
    printed = capsys.readouterr().out
    assert set(line["measures"]) == {
        "nll",
        "nll_error_per_image",
        "effective_samples",
        "elbo",
        "log_likelihood",
        "kl",
        "active_units_layer_1",
        "unit_kl_layer_1",
        "collapsed_layer_1",
        "mutual_information",
        "marginal_kl",
        "reconstruction_error",
    }
    assert all(name in printed for name in line["measures"])
    m = {name: v["value"] for name, v in line["measures"].items()}
    assert m["nll"] < -m["elbo"]
    assert m["elbo"] == pytest.approx(m["log_likelihood"] - m["kl"], abs=1e-4)
    assert 0 <= m["reconstruction_error"] <= 1
    assert "300 test images" in line["measures"]["nll"]["note"]
    assert (line["num_samples"], line["features"]) == (10_000, "classifier")


def test_samples_are_compared_as_the_options_say(
    run_dir: run.RunDir, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iwae.IWAE, "evaluations", ("samples.fid", "samples.ms_ssim"))
    line = _evaluate(run_dir, digits_dir, num_samples=40, features="random", k=5000)
    assert set(line["measures"]) == {"fid_random", "ms_ssim", "ms_ssim_real"}
    assert "40 generated, 40 test images" in line["measures"]["fid_random"]["note"]


def test_same_seed_same_numbers_and_limit(run_dir: run.RunDir, digits_dir: str) -> None:
    first = _evaluate(run_dir, digits_dir, limit=50, seed=4)
    again = _evaluate(run_dir, digits_dir, limit=50, seed=4)
    other = _evaluate(run_dir, digits_dir, limit=50, seed=5)
    assert first == again
    assert first["measures"]["nll"] != other["measures"]["nll"]
    assert "50 test images" in first["measures"]["nll"]["note"]


def test_average_weights_are_the_ones_evaluated(run_dir: run.RunDir, digits_dir: str) -> None:
    from tfgen.training import checkpoint

    model = tiny_run.load(run_dir)
    newest = run_dir.checkpoints / f"step-{checkpoint.all_steps(run_dir.checkpoints)[-1]:09d}.npz"
    with np.load(newest, allow_pickle=False) as arrays:
        averages = [arrays[n] for n in sorted(arrays.files) if n.startswith("average/")]
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"k": 0}, "--k must be more than 0. Received: --k=0"),
        ({"limit": 0}, "--limit must be more than 0. Received: --limit=0"),
        ({"num_samples": 0}, "--num_samples must be more than 0. Received: --num_samples=0"),
        ({"features": "vgg"}, "--features must be one of classifier, random, savedmodel:PATH"),
        ({"split": "tests"}, "Did you mean: test?"),
        ({"run_dir": "nowhere"}, "no run in --run_dir=nowhere"),
    ],
)
def test_bad_input_is_one_line(
    run_dir: run.RunDir, flags: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    assert tiny_run.call(evaluate.main, **{"run_dir": run_dir.path, **flags}) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_k_of_a_model_without_importance_weights(
    run_dir: run.RunDir,
    digits_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(iwae.IWAE, "evaluations", ("likelihood.reconstruction_error",))
    flags = {"run_dir": run_dir.path, "data_dir": digits_dir}
    assert tiny_run.call(evaluate.main, **flags, k=50) == 1
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "--k counts importance samples, and vae.iwae has no importance weights: leave it out. "
            "Received: --k=50"
        )
    )
    assert tiny_run.call(evaluate.main, **flags, limit=10) == 0


def test_evaluations_by_importance_samples_are_those_that_read_k() -> None:
    reads = set()
    for path in pathlib.Path(evaluate.__file__).parent.joinpath("metrics").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and "settings.k" in ast.unparse(node):
                reads.add(f"{path.stem}.{node.name}")
    assert reads == set(evaluate.BY_WEIGHTS)


def test_jsonl_survives_a_half_written_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.jsonl"
    run.append_jsonl(path, {"a": 1})
    path.write_text(path.read_text() + '{"a": 2, "b"')
    assert run.read_jsonl(path) == [{"a": 1}]
    run.append_jsonl(path, {"a": 3})
    assert json.loads(path.read_text().splitlines()[-1]) == {"a": 3}
    assert run.read_jsonl(path) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("seed", [-1, 2**31 - 1])
def test_a_seed_out_of_range(run_dir: run.RunDir, digits_dir: str, seed: int) -> None:
    with pytest.raises(UserError, match=f"--seed must be from 0 to .*Received: --seed={seed}"):
        evaluate.main(
            ["", f"--run_dir={run_dir.path}", f"--data_dir={digits_dir}", f"--seed={seed}"]
        )


def test_progress_takes_batches_as_they_come() -> None:
    taken = []
    batches = (taken.append(number) or number for number in range(3))
    for used, number in enumerate(evaluate._progress(batches, "x")):
        assert taken == list(range(used + 1))
        assert number == used
    assert used == 2
