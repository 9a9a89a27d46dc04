"""What Yan et al. 2016 claim of Attribute2Image, measured on digits upon stripes and on faces.

The paper's images are faces of LFW and birds of CUB, neither of which is at hand. Its layered model
was better than its conditional VAE without layers, by far on birds, whose backgrounds vary. Here
the attributes are a digit's class and brightness, the background has stripes of any direction and
phase, and both models are asked for the attributes of the test examples, after the same steps on
the same data.

Faces, of people who are in one split alone, have no masks: these are of the CVAE without layers.
`tools.faces` makes their folders, which lie below `--folders_dir`.
"""

import functools

from tfgen import commands, run
from tfgen.metrics.measure import Measure
from tools.claims import _gallery
from tools.claims._base import FOLDERS, Claim, Outcome, Outcomes, Run
from tools.claims._common import SEEDS, each, seeds_of, text, values

DATA = ("digits", "mnist")
MODELS = {"layered": "true", "plain": "false"}
FACES = ("cmu_faces", "faces_keypoints")
SIDES = {"small": 32, "paper": 64}  # Of faces.
EVALUATION = ("--k=50",)  # 10,000 images take hours by many more.


def rows(budget: str) -> list[Run]:
    """Layered digits and MNIST with and without layers, and faces without."""
    faces = [
        Run(
            f"{data}_seed{s}",
            f"attribute_{data}.cfg",
            (f"--data=folder:{FOLDERS}/{data}", f"--image_size={SIDES[budget]}", f"--seed={s}"),
            EVALUATION,
            s,
        )
        for data in FACES
        for s in SEEDS
    ]
    layered = [
        Run(
            f"{model}_{data}_seed{s}",
            f"attribute_layered_{data}.cfg",
            (f"--layered={flag}", f"--seed={s}"),
            EVALUATION,
            s,
        )
        for data in DATA
        for model, flag in MODELS.items()
        for s in seeds_of(data)
    ]
    return [*layered, *faces]


def measure(outcome: Outcome) -> dict[str, Measure]:
    """The number of parameters."""
    model = commands.load_run(run.RunDir(outcome.path))[3]
    return {"parameters": Measure(model.count_params(), None, "weights", "")}


def read_off(outcomes: Outcomes, data: str) -> Claim:
    """The asked attributes are read off the layered model's images more often."""
    groups = outcomes.by_seed(*(f"{model}_{data}" for model in MODELS), seeds=seeds_of(data))
    ours, plain = (values(group, "attribute_accuracy") for group in groups)
    real = groups[0][0].value("attribute_accuracy_real")
    sizes = ["{:,.0f}".format(group[0].value("parameters")) for group in groups]
    return Claim(
        f"{data} upon stripes: a classifier reads the asked attributes off the images of the "
        f"layered CVAE ({sizes[0]} weights) more often than off those of the CVAE without layers "
        f"({sizes[1]}); off real images {real:.3f}, by chance 0.5",
        "section 5.1, other data",
        text(ours),
        text(plain),
        "share",
        min(ours) > max(plain),
    )


def nearer(outcomes: Outcomes, data: str) -> Claim:
    """What is read off the layered model's images is nearer to what was asked for."""
    groups = outcomes.by_seed(*(f"{model}_{data}" for model in MODELS), seeds=seeds_of(data))
    ours, plain = (values(group, "attribute_error") for group in groups)
    return Claim(
        f"{data} upon stripes: squared difference of the attributes read and asked for, layers "
        "below none",
        "section 5.1, other data",
        text(ours),
        text(plain),
        "squared",
        max(ours) < min(plain),
    )


def faces(outcomes: Outcomes, data: str) -> Claim:
    """The asked attributes are read off generated faces."""
    (group,) = outcomes.by_seed(data, seeds=SEEDS)
    ours = values(group, "attribute_accuracy")
    real = group[0].value("attribute_accuracy_real")
    return Claim(
        f"{data}: a classifier reads the asked attributes off generated images at least half as "
        f"far above chance (0.5) as off real ones of new people, {each(SEEDS)}",
        "section 5.1, other data",
        text(ours),
        f"real {real:.3g}",
        "share",
        min(ours) - 0.5 >= (real - 0.5) / 2,
    )


CLAIMS = (
    *(functools.partial(claim, data=data) for data in DATA for claim in (read_off, nearer)),
    *(functools.partial(faces, data=data) for data in FACES),
)

# Each attribute moved from its least to its largest value, a row each; layers below none.
PICTURES = _gallery.grids(
    {data: [f"{model}_{data}_seed0" for model in MODELS] for data in DATA}
    | {data: [f"{data}_seed0"] for data in FACES},
    "progressions",
)
