"""What Isola et al. 2017 claim of pix2pix, measured on pairs made in code.

The paper's five-way ablation (table 1, cityscapes labels to photos) on label maps whose textures
have one mean and differ in their waves: a recogniser tells which class a pixel shows, as a network
trained on photos does in the paper. And an input with two right answers: who minimises a distance
answers with their mean (section 1). The whole objective is also trained in bfloat16.
"""

from tfgen.metrics.measure import Measure
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run
from tools.claims._common import SEEDS, curves, curves_agree, text, values

ABLATION = {
    "l1": ("--adversarial_weight=0",),
    "gan": ("--conditional=false", "--reconstruction=none"),
    "cgan": ("--reconstruction=none",),
    "l1_gan": ("--conditional=false",),
    "l1_cgan": (),
}
PAPER = {"l1": 0.42, "gan": 0.22, "cgan": 0.57, "l1_gan": 0.64, "l1_cgan": 0.66}
ANSWERS = {"answers_cgan": (), "answers_l2": ("--adversarial_weight=0", "--reconstruction=l2")}
PRECISIONS = {"l1_cgan": (), "bfloat16": ("--precision=mixed_bfloat16",)}
LOSSES = ("generator_loss", "discriminator_loss", "distance")


def rows(budget: str) -> list[Run]:
    """All on three seeds."""
    del budget  # there is one
    arms = {**{n: ("mosaic", f) for n, f in {**ABLATION, **PRECISIONS}.items()},
            **{n: ("two_answers", f) for n, f in ANSWERS.items()}}  # fmt: skip
    return [
        Run(
            f"{name}_seed{seed}",
            f"pix2pix_{data}.cfg",
            (*flags, f"--seed={seed}"),
            ("--limit=1000",),
            seed,
        )
        for seed in SEEDS
        for name, (data, flags) in arms.items()
    ]


def measure(outcome: Outcome) -> dict[str, Measure]:
    """Of the whole objective: its losses over the training."""
    name = outcome.name.rpartition("_seed")[0]
    return curves(outcome, LOSSES) if name in PRECISIONS else {}


def condition_helps(outcomes: Outcomes) -> Claim:
    """The conditional GAN is recognised better than the unconditional one, on each seed."""
    return _better(outcomes, "cgan", "gan", "cGAN above GAN")


def game_helps(outcomes: Outcomes) -> Claim:
    """L1 and the conditional GAN are recognised better than L1 alone, on each seed."""
    return _better(outcomes, "l1_cgan", "l1", "L1 + cGAN above L1")


def distance_helps(outcomes: Outcomes) -> Claim:
    """L1 and the conditional GAN are recognised better than the conditional GAN, on each seed."""
    why = (
        "here the cGAN alone leaves hardly a pixel that is not recognised, where the paper's makes "
        "artefacts that L1 reduces; and L1 draws different textures of one mean together."
    )
    return _better(outcomes, "l1_cgan", "cgan", "L1 + cGAN above cGAN", why)


def distance_is_least_by_l1(outcomes: Outcomes) -> Claim:
    """L1 alone has the least mean difference to the target, on each seed."""
    ours, theirs = (
        values(group, "error") for group in outcomes.by_seed("l1", "l1_cgan", seeds=SEEDS)
    )
    return Claim(
        "mosaic: by the mean difference to the target L1 alone is the best, on each seed: it does "
        "not see what the recogniser sees",
        "",
        text(ours),
        text(theirs) + " L1 + cGAN",
        "grey, 0 to 1",
        all(a < b for a, b in zip(ours, theirs, strict=True)),
    )


def answers_are_not_averaged(outcomes: Outcomes) -> list[Claim]:
    """Two right answers: L2 gives their mean, the conditional GAN one of them, on each seed."""
    game, mean = outcomes.by_seed(*ANSWERS, seeds=SEEDS)
    found = []
    for group, near, far, who in (
        (game, "nearest_answer_error", "mean_answer_error", "the cGAN gives one of them"),
        (mean, "mean_answer_error", "nearest_answer_error", "L2 gives their mean"),
    ):
        ours, other = values(group, near), values(group, far)
        names = {"nearest_answer_error": "the nearest answer", "mean_answer_error": "the mean"}
        found.append(
            Claim(
                f"an input with two right answers: {who}: distance to {names[near]} less than half "
                f"of that to {names[far]}, on each seed",
                "section 1 in words",
                text(ours),
                text(other),
                "grey, 0 to 1",
                all(2 * a < b for a, b in zip(ours, other, strict=True)),
            )
        )
    return found


def precisions_agree(outcomes: Outcomes) -> list[Claim]:
    """The losses of training in bfloat16 are those in float32, within the spread of seeds."""
    return curves_agree(*outcomes.by_seed(*PRECISIONS, seeds=SEEDS), LOSSES, "mosaic")


CLAIMS = (
    condition_helps,
    game_helps,
    distance_helps,
    distance_is_least_by_l1,
    answers_are_not_averaged,
    precisions_agree,
)

# Source, translation and target of each arm, seed 0.
PICTURES = _gallery.grids(
    {"": [f"{name}_seed0" for name in (*ABLATION, *ANSWERS)]},
    "translations",
)


def _better(outcomes: Outcomes, name: str, other: str, what: str, why: str = "") -> Claim:
    ours, theirs = (
        values(group, "pixel_accuracy") for group in outcomes.by_seed(name, other, seeds=SEEDS)
    )
    return Claim(
        f"mosaic: pixels that show the class of the label map, by a recogniser: {what}, on each "
        "seed",
        f"{PAPER[name]:.2f} > {PAPER[other]:.2f} (table 1, cityscapes)",
        text(ours),
        text(theirs),
        "share",
        all(a > b for a, b in zip(ours, theirs, strict=True)),
        why,
    )
