"""The page on choosing an objective names real flags and real claims, and is the present one."""

import json
import re

import pytest

from tfgen import hparams
from tools import objectives_page, reproduce, results_page
from tools.objectives_page import ADVICE, Evidence

_EVIDENCE = [evidence for advice in ADVICE for evidence in advice.evidence]


@pytest.mark.parametrize("evidence", _EVIDENCE, ids=lambda e: f"{e.system}-{'-'.join(e.words)}")
def test_evidence_is_a_claim_of_its_system(evidence: Evidence) -> None:
    titles = [reproduce.title(c) for c in reproduce.load_claims(evidence.system).CLAIMS]
    for word in evidence.words:
        assert any(Evidence(evidence.system, [word]).about(title) for title in titles), titles


def test_every_gan_is_advised() -> None:
    text = " ".join(advice.remedy for advice in ADVICE)
    for system in hparams.systems():
        if system.startswith("gan."):
            assert f"`{system}" in text


def test_flags_exist() -> None:
    for advice in ADVICE:
        systems = re.findall(r"gan\.\w+", advice.remedy) or ["gan.gan"]
        known = {f for s in systems for f in hparams.load_system(s).HParams.__dataclass_fields__}
        for flag in re.findall(r"--(\w+)", advice.remedy):
            assert flag in known, flag


def test_claims_stand_under_their_trouble_and_open_ones_say_so() -> None:
    claim = {"claim": "lines: |theta|", "paper": "", "ours": "0.1", "baseline": "0.2", "unit": "m"}
    results = [
        {
            "system": "gan.wgan",
            "claims": [
                {**claim, "holds": True},
                {**claim, "claim": "of no trouble", "holds": False},
            ],
            "not_measured": [{"claim": "the critic's estimate", "missing": ["a"]}],
        }
    ]
    steps = {
        n: {"contenders": {"tfgen": {"median": m}}} for n, m in (("gan", 6.0), ("wgan_gp", 4.0))
    }
    bench = {"figures": {"gan_tricks": {"unrolled_cost": {"value": 6.54}}}, "parts": steps}
    text = objectives_page.page(results, bench)
    assert "Measured: a step of K = 5 takes 6.5 times a plain step." in text
    assert "an update of both players takes 1.5 times a plain one." in text
    assert "* `gan.mdgan`: nothing yet" in text
    _, _, section = text.partition("## The loss says nothing about the samples")
    section, _, _ = section.partition("\n## ")
    assert "| `gan.wgan` | lines: \\|theta\\| | 0.1 m | 0.2 | holds |" in section
    assert "* `gan.wgan`: the critic's estimate" in section
    assert "falls short" not in text


def test_links_lead_to_headings() -> None:
    text = objectives_page.page([], {"figures": {}})
    anchors = {objectives_page._anchor(advice.trouble) for advice in ADVICE}
    assert set(re.findall(r"\(#([^)]+)\)", text)) == anchors
    assert len(anchors) == len(ADVICE)


def test_the_page_is_the_present_one() -> None:
    written = (reproduce.ROOT / "OBJECTIVES.md").read_text(encoding="utf-8")
    bench = json.loads((results_page.FOLDER / "bench.json").read_text(encoding="utf-8"))
    assert written == objectives_page.page(results_page.read(results_page.FOLDER), bench)
