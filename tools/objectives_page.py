"""OBJECTIVES.md from results/*.json: which adversarial objective or trick helps against what.

What stands here by hand is the advice; every number comes from the claims and the benchmark.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfgen import run
from tools import results_page
from tools.bench import parts

_HEADER = """\
# Choosing an adversarial objective

Written by `python -m tools.reproduce` and `python -m tools.bench` from `results/*.json`: do not
edit. Begin with `gan.gan` and its non-saturating loss; take another for a trouble that you have
seen. Below each piece of advice stands what was measured here, *ours* and what it is held against,
or that nothing is yet: then it is its paper's;
all rows, the papers' own numbers and the commands are in [RESULTS.md](RESULTS.md), speed in
[BENCH.md](BENCH.md).
"""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Claims of a system, all or those whose text has one of some words."""

    system: str
    words: Sequence[str] = ()

    def about(self, text: str) -> bool:
        """Whether a claim is among them."""
        return not self.words or any(word.lower() in text.lower() for word in self.words)


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to try against one trouble."""

    trouble: str
    remedy: str
    cost: str
    evidence: Sequence[Evidence]
    # Measures of the benchmark's part "gan_tricks", or "gradient_penalty".
    measured_costs: Sequence[str] = ()


ADVICE = (
    Advice(
        "G stops learning while D is right about everything",
        "`gan.gan --objective=non_saturating`, the default, rather than `minimax`; or a critic, "
        "`gan.wgan_gp`.",
        "None for the two losses.",
        (Evidence("gan.gan", ("gradient",)),),
    ),
    Advice(
        "Fakes that D takes for real no longer move, though they are far from the data",
        "`gan.lsgan`, whose loss pulls at them all the same. On these digits its FID is worse than "
        "the GAN's, by RESULTS.md.",
        "None.",
        (Evidence("gan.lsgan", ("gradient",)),),
    ),
    Advice(
        "Modes are missing, or the samples are all alike",
        "`gan.wgan_gp`; `gan.mdgan` where there is an encoder to be had; `gan.unrolled` on small "
        "networks. Minibatch discrimination, `--minibatch_kernels`, is the trick for it, and did "
        "not help on the grid here. The rows say what each does to which data.",
        "`gan.wgan_gp`: five updates of the critic for each of G, each through a second "
        "derivative. `gan.mdgan`: an encoder. `gan.unrolled`: K further updates of D a step and "
        "the gradient through them. Minibatch discrimination: one layer.",
        (
            Evidence("gan.wgan_gp", ("modes", "FID")),
            Evidence("gan.mdgan"),
            Evidence("gan.unrolled", ("modes",)),
            Evidence("gan.improved", ("minibatch discrimination",)),
            Evidence("gan.wgan", ("stacked",)),
        ),
        ("gradient_penalty", "minibatch_discrimination_share", "unrolled_cost"),
    ),
    Advice(
        "The loss says nothing about the samples",
        "`gan.wgan` or `gan.wgan_gp`: the critic's estimate is a distance. `gan.began`'s own "
        "measure M did not follow FID here.",
        "`gan.wgan`: five updates of the critic for each of G.",
        (
            Evidence("metrics.distances", ("lines",)),
            Evidence("gan.wgan", ("lines", "estimate")),
            Evidence("gan.began", ("M falls",)),
        ),
    ),
    Advice(
        "A clipped critic learns too simple a function",
        "`gan.wgan_gp`: hold the gradient's norm near 1 and leave the weights alone.",
        "A second derivative of the critic at each of its updates.",
        (Evidence("gan.wgan_gp", ("weights", "show the modes", "sliced")),),
        ("gradient_penalty",),
    ),
    Advice(
        "The players run in circles",
        "`--historical_average_weight` pulls each player to its own past mean; "
        "label smoothing (`--positive_label=0.9`) keeps D from being too sure.",
        "A copy of each player's weights.",
        (Evidence("gan.improved", ("historical averaging", "smoothing")),),
        ("historical_averaging_share", "label_smoothing_share"),
    ),
    Advice(
        "G chases whatever D said last",
        "`--feature_matching_layer`: G matches the mean of D's features over the data; with "
        "`--adversarial_weight=0` by that alone.",
        "A pass of the data through D at each of G's updates.",
        (Evidence("gan.improved", ("100 labels",)),),
        ("feature_matching_share",),
    ),
    Advice(
        "Samples depend on the others of their batch, by batch norm",
        "`--norm=virtual`: a fixed reference batch normalises each.",
        "The reference batch goes through G at each step.",
        (Evidence("gan.improved", ("virtual",)),),
    ),
    Advice(
        "The ratio of two energies is to be held",
        "`gan.began --gamma`, by a controller; gamma is to trade diversity for quality. Here it "
        "collapsed with most.",
        "D is an autoencoder.",
        (Evidence("gan.began", ("gamma",)),),
    ),
    Advice(
        "D is to be an energy and not a probability",
        "`gan.ebgan`; `--repelling_weight` keeps its samples apart.",
        "D is an autoencoder.",
        (Evidence("gan.ebgan"),),
    ),
    Advice(
        "Samples are to be steered, without labels",
        "`gan.infogan`: a code that can be read off the image.",
        "A head on D.",
        (Evidence("gan.infogan"),),
    ),
    Advice(
        "There are few labels",
        "`gan.improved`: D is a classifier that learns from unlabelled images too.",
        "None beside the GAN's own.",
        (Evidence("gan.improved", ("100 labels",)),),
    ),
)


def page(results: Iterable[Mapping[str, Any]], bench: Mapping[str, Any]) -> str:
    """OBJECTIVES.md from the contents of results/*.json and of results/bench.json."""
    by_system = {result["system"]: result for result in results}
    contents = "\n".join(f"* [{a.trouble}](#{_anchor(a.trouble)})" for a in ADVICE) + "\n"
    sections = (_section(a, by_system, bench) for a in ADVICE)
    return "\n".join([_HEADER, contents, *sections])


def write() -> None:
    """Writes OBJECTIVES.md anew."""
    bench = json.loads((results_page.FOLDER / "bench.json").read_text(encoding="utf-8"))
    text = page(results_page.read(results_page.FOLDER), bench)
    run.write_text(results_page.FOLDER.parent / "OBJECTIVES.md", text)


def _section(
    advice: Advice, by_system: Mapping[str, Mapping[str, Any]], bench: Mapping[str, Any]
) -> str:
    measured, missing = [], []
    for evidence in advice.evidence:
        name = f"`{evidence.system}`"
        if evidence.system not in by_system:
            missing.append(f"{name}: nothing yet")
            continue
        result = by_system[evidence.system]
        for claim in result["claims"]:
            if evidence.about(claim["claim"]):
                ours = f"{claim['ours']} {claim['unit']}".strip()
                verdict = "holds" if claim["holds"] else "**falls short**"
                measured.append([name, claim["claim"], ours, claim["baseline"], verdict])
        missing += [
            f"{name}: {left['claim']}"
            for left in result["not_measured"]
            if evidence.about(left["claim"])
        ]
    cost = " ".join([advice.cost, *_costs(advice.measured_costs, bench)])
    lines = [f"## {advice.trouble}", "", advice.remedy, "", f"Cost: {cost}", ""]
    if measured:
        lines.append(results_page.table(["system", "claim", "ours", "against", ""], measured))
    if missing:
        lines += ["Not measured:", "", *(f"* {claim}" for claim in missing), ""]
    return "\n".join(lines)


def _costs(measures: Sequence[str], bench: Mapping[str, Any]) -> list[str]:
    """What the benchmark found of the tricks on a plain GAN's step, a sentence each."""
    part = parts.tricks()
    figures = bench["figures"].get(part.name, {})
    found = []
    measured = bench.get("parts", {})
    if "gradient_penalty" in measures and measured.keys() >= {"gan", "wgan_gp"}:
        plain, penalized = (
            measured[name]["contenders"]["tfgen"]["median"] for name in ("gan", "wgan_gp")
        )
        found.append(
            f"Measured: with the gradient penalty an update of both players takes "
            f"{plain / penalized:.1f} times a plain one."
        )
    for comparison in part.comparisons:
        if comparison.measure in measures and comparison.measure in figures:
            value = figures[comparison.measure]["value"]
            number = f"{value:.1f}" if comparison.form == "time" else f"{100 * value:.0f} %"
            text = comparison.text.format(number)
            found.append(f"Measured: {text[0].lower()}{text[1:]}.")
    return found


def _anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")
