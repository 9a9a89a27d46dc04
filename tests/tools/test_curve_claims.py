"""Curves of what a run logged, and whether those of two precisions agree."""

import json
import pathlib

import pytest

from tools.claims import _common
from tools.claims._base import Outcome


def _curve(*quarters: float) -> Outcome:
    return Outcome("run", {f"loss_q{i + 1}": {"value": v} for i, v in enumerate(quarters)})


def test_curves_are_means_over_quarters(tmp_path: pathlib.Path) -> None:
    logged = [{"step": i, "epoch": 0.1 * i, "loss": float(i), "other": 0.0} for i in range(1, 9)]
    lines = [*logged, {"step": 8, "validation_loss": 7.0}]  # which is of no interval
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = _common.curves(Outcome("run", {}, folder=tmp_path), ("loss",))
    means = {name: measure.value for name, measure in found.items()}
    assert means == {"loss_q1": 1.5, "loss_q2": 3.5, "loss_q3": 5.5, "loss_q4": 7.5}


SEEDS = [_curve(1.0, 1.0, 1.0, 1.0), _curve(1.0, 1.0, 1.0, 3.0), _curve(1.0, 1.0, 1.0, 2.0)]


def test_precisions_agree_within_the_spread_of_seeds() -> None:
    beside = [_curve(1.0, 1.0, 1.0, x) for x in (1.2, 2.9, 2.2)]
    (claim,) = _common.curves_agree(SEEDS, beside, ["loss"], "digits")
    assert claim.holds
    assert float(claim.ours) > 0.5
    assert claim.baseline == "3 and 3 runs"


@pytest.mark.parametrize("offset", [(2.5, 0, 0, 0), (0, 0, 0, 4.0)])
def test_an_offset_is_seen_in_any_quarter(offset) -> None:
    rounded = [
        _curve(*(seed.value(f"loss_q{i + 1}") + x for i, x in enumerate(offset))) for seed in SEEDS
    ]
    (claim,) = _common.curves_agree(SEEDS, rounded, ["loss"], "digits")
    assert not claim.holds
    assert float(claim.ours) == pytest.approx(0.1)  # the least of 20 ways, each there twice


def test_a_larger_spread_of_one_precision_is_seen() -> None:
    same = [_curve(1.0, 1.0, 1.0, 2.0 + 0.01 * i) for i in range(6)]
    wide = [_curve(1.0, 1.0, 1.0, 2.0 + x) for x in (-6.0, -4.0, -2.0, 2.0, 4.0, 6.0)]
    (claim,) = _common.curves_agree(same, wide, ["loss"], "digits")
    assert not claim.holds
