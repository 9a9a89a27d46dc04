"""The claims are computed from numbers, and the page is computed from the files."""

import json
import pathlib

import pytest

from tfgen.errors import UserError
from tools import reproduce
from tools.claims import vae_iwae

GOOD = {  # (layers, k) -> NLL, active units of each layer
    (1, 1): (90.0, [19]),
    (1, 5): (89.0, [22]),
    (1, 50): (87.5, [25]),
    (2, 1): (89.5, [16, 5]),
    (2, 50): (86.0, [26, 7]),
}


def _outcomes(numbers: dict, minutes: float = 60.0) -> dict[str, reproduce.Outcome]:
    outcomes = {}
    for r in vae_iwae.runs("small"):
        layers, k = int(r.name[1]), int(r.name.split("_")[1][1:])
        nll, units = numbers[layers, k]
        measures = {"nll": {"value": nll + 0.01 * r.seed, "error": 0.1, "unit": "nats", "note": ""}}
        for layer, count in enumerate(units):
            measures[f"active_units_layer_{layer + 1}"] = {"value": count, "error": None}
        outcomes[r.name] = reproduce.Outcome(r, pathlib.Path("x"), measures, 100.0, minutes)
    return outcomes


def _falling_short(numbers: dict, minutes: float = 60.0) -> list[str]:
    return [c.claim for c in vae_iwae.check(_outcomes(numbers, minutes)) if not c.holds]


def test_all_claims_hold_for_good_numbers() -> None:
    assert _falling_short(GOOD) == []
    assert len(vae_iwae.check(_outcomes(GOOD))) == 7


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


def test_rows_that_were_not_run_are_not_claimed() -> None:
    outcomes = _outcomes(GOOD)
    some = {name: outcomes[name] for name in ("l1_k1_seed0", "l1_k50_seed0", "l2_k1_seed0")}
    claims = {c.claim: c for c in vae_iwae.check(some)}
    assert list(claims) == [
        "NLL falls with k, 1 layer: k=1, k=50",
        "active units rise with k, 1 layer: k=1, k=50",
        "2 layers beat 1 at k=1 and the same epochs",
        "1 layer, k=50: at most 88 nats within two hours",
    ]
    assert claims["active units rise with k, 1 layer: k=1, k=50"].paper == "19 < 25"
    assert vae_iwae.check({}) == []


def test_an_unknown_run_is_named() -> None:
    with pytest.raises(UserError, match="--only=l1_k2_seed0. Did you mean: l1_k5_seed0"):
        reproduce.main(["", "vae.iwae", "--only=l1_k2_seed0"])


def test_page_shows_what_falls_short() -> None:
    claims = [
        {"claim": "a", "paper": "1", "ours": "2", "baseline": "3", "unit": "nats", "holds": holds}
        for holds in (True, False)
    ]
    result = {
        "system": "vae.x",
        "budget": "small",
        "command": "python -m tools.reproduce vae.x",
        "minutes": 1.5,
        "seeds": [0],
        "claims": claims,
        "runs": [
            {
                "name": "r",
                "epochs": 3,
                "minutes": 1.5,
                "measures": {"nll": {"value": 1, "error": 0.5}},
            }
        ],
        "not_run": ["q"],
        "environment": {"cores": 2, "processor": "p", "tensorflow": "t", "date": "d"},
    }
    page = reproduce.page([result])
    assert page.count("**falls short**") == 1
    assert "Not run yet, and so not claimed: q." in page
    assert "| a | 1 | 2 | 3 | nats | holds |" in page
    assert "| r | 3 | 1.5 | 1 ± 0.5 |" in page
    assert "vae.iwae" in page.partition("Not measured yet: ")[2]


def test_the_page_in_the_repository_is_the_one_from_its_files() -> None:
    files = [json.loads(p.read_text()) for p in reproduce._result_files()]
    assert (reproduce.ROOT / "RESULTS.md").read_text() == reproduce.page(files)


def test_holds_in_the_files_is_a_truth_value_of_each_claim() -> None:
    for path in reproduce._result_files():
        for claim in json.loads(path.read_text())["claims"]:
            assert claim["holds"] in (True, False)
