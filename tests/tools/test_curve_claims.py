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


def test_precisions_agree_within_the_spread_of_seeds() -> None:
    seeds = [_curve(1.0, 1.0, 1.0, 1.0), _curve(1.0, 1.0, 1.0, 3.0), _curve(1.0, 1.0, 1.0, 2.0)]
    # Seeds are at most sqrt(2^2 / 4) = 1 apart.
    (near,) = _common.curves_agree(seeds, [_curve(1.0, 1.0, 1.0, 3.9)], ["loss"], "digits")
    assert near.holds  # by 1.45, 0.45 and 0.95
    assert float(near.ours) == pytest.approx(0.95)
    assert near.baseline == "1 seeds"
    (far,) = _common.curves_agree(seeds, [_curve(1.0, 1.0, 1.0, 4.1)], ["loss"], "digits")
    assert not far.holds
    (early,) = _common.curves_agree(seeds, [_curve(4.0, 1.0, 1.0, 2.0)], ["loss"], "digits")
    assert not early.holds  # though the last quarter is that of the seeds
