"""The parts of the benchmark: who takes part, what is compared, and what is asked."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tools.bench import work
from tools.bench.work import UNROLLED_STEPS, Step

OURS = ("tfgen", "tfgen_jit")  # in float32
THEIRS = ("torch", "torch_compile")
OURS_ANY = (*OURS, "tfgen_bf16")
THEIRS_ANY = (*THEIRS, "torch_bf16", "torch_compile_bf16")
_BOTH = (*OURS_ANY, *THEIRS_ANY)
_GEMMS = ("gemm_tf", "gemm_torch")

NAMES = {  # In the order of the tables.
    "tfgen": "tfgen",
    "tfgen_jit": "tfgen `--jit`",
    "tfgen_bf16": "tfgen `--precision=mixed_bfloat16`",
    "torch": "PyTorch, eager",
    "torch_compile": "PyTorch, `torch.compile`",
    "torch_bf16": "PyTorch, eager, bfloat16 autocast",
    "torch_compile_bf16": "PyTorch, `torch.compile`, bfloat16 autocast",
    "keras": "plain Keras: custom `train_step`, `fit`, tf.data AUTOTUNE",
    "tfgen_2_replicas": "tfgen, two logical CPUs, same global batch",
    "tfgen_constant": "tfgen on one constant batch",
    "tfgen_pipeline": "tfgen's input pipeline alone (batches)",
    "label_smoothing": "with one-sided label smoothing",
    "feature_matching": "with feature matching (features before the logit)",
    "historical_averaging": "with historical averaging, both players",
    "minibatch_discrimination": "with minibatch discrimination (100 kernels of 5)",
    "zuko": "zuko",
    "nflows": "nflows",
    "unrolled": f"unrolled, K = {UNROLLED_STEPS}",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The rates of two contenders, each the fastest of some, in one of these forms.

    form:
      "ratio": first / second.
      "time": first / second, said of the time of a step: the second's over the first's.
      "share": 1 - first / second, the part of the first's step that the second does not have.
      "extra": first / second - 1, the time that the second adds as a part of the first's step.
      "memory": the first's peak memory over the second's.
    """

    measure: str
    first: Sequence[str]
    second: Sequence[str]
    text: str  # In the page; for the forms but "ratio" it takes the number, {}.
    form: str = "ratio"


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked of a measure."""

    measure: str
    sense: str  # ">=" or "<="
    bound: float
    text: str


@dataclasses.dataclass(frozen=True)
class Part:
    """Contenders that take turns at one piece of work."""

    name: str
    title: str
    about: str
    order: dict[str, Any]  # What each is told to do, see `worker`.
    batch_size: int
    contenders: Sequence[str]
    comparisons: Sequence[Comparison]
    targets: Sequence[Target]
    portion: int = 10  # Steps of a turn are a multiple of it.
    notes: Sequence[str] = ()

    @property
    def step(self) -> Step:
        """The matrix products of a step."""
        return work.step_of(self.order)


@dataclasses.dataclass(frozen=True)
class FirstStep:
    """Time from the command to its first step, for one flagfile."""

    name: str
    config: str
    targets: Sequence[Target]


_COMMON = (
    Comparison("over_torch", OURS, THEIRS, "fastest float32 against fastest float32"),
    Comparison(
        "best_over_best",
        OURS_ANY,
        THEIRS_ANY,
        "fastest of any precision against fastest of any precision",
    ),
    Comparison(
        "default_over_torch_eager", ("tfgen",), ("torch",), "defaults against eager PyTorch"
    ),
)


def _iwae(k: int, over_torch: float, more: Sequence[str], targets: Sequence[Target]) -> Part:
    replicas = f"k = {k}: step time of two replicas over one"
    return Part(
        name=f"k{k}",
        title=f"IWAE, k = {k}",
        about="784-200-200-50, tanh, batch 100, Adam; shuffling and dynamic binarisation included.",
        order={"work": "iwae", "k": k},
        batch_size=work.IWAE_BATCH,
        contenders=(*_BOTH, "keras", "tfgen_2_replicas", *_GEMMS, *more),
        comparisons=(
            *_COMMON,
            Comparison("over_keras", OURS, ("keras",), "against plain Keras"),
            Comparison(
                "replicas_cost", ("tfgen",), ("tfgen_2_replicas",),
                "a step of two replicas takes {} of one replica's time", "time",
            ),
            Comparison(
                "waiting_share", ("tfgen",), ("tfgen_constant",),
                "the input pipeline costs {} of the step", "share",
            ),
        ),
        targets=(
            Target(
                "over_torch", ">=", over_torch,
                f"k = {k}: steps/s over the faster PyTorch, float32",
            ),
            *targets,
            Target("replicas_cost", "<=", 1.2, replicas),
        ),
        portion=20,
    )  # fmt: skip


def _gan(system: str) -> Part:
    name = f"gan.{system}"
    return Part(
        name=system,
        title=name,
        about="InfoGAN's networks for MNIST (G: 74-1024-7x7x128-14x14x64-28x28x1, D: "
        f"14x14x64-7x7x128-1024-1), batch {work.GAN_BATCH}, Adam; a step is one update of D and "
        "one of G, shuffling included. PyTorch has the faster of two memory formats and of two "
        "Adams.",
        order={"work": "gan", "system": system},
        batch_size=work.GAN_BATCH,
        contenders=(*_BOTH, *_GEMMS),
        comparisons=(
            Comparison(
                "over_torch_eager", OURS, ("torch",), "fastest float32 against eager PyTorch"
            ),
            *_COMMON,
            Comparison("over_own_float32", OURS_ANY, OURS, "any precision against our own float32"),
        ),
        targets=(
            Target("over_torch_eager", ">=", 1.2, f"{name}: steps/s over PyTorch eager, float32"),
            Target("best_over_best", ">=", 1.3, f"{name}: best precision over PyTorch's best"),
            Target("over_own_float32", ">=", 1.5, f"{name}: best precision over our float32"),
        ),
    )


def _trick(name: str, most: float) -> tuple[Comparison, Target]:
    text = name.replace("_", " ")
    return (
        Comparison(f"{name}_share", ("tfgen",), (name,), f"{text} costs {{}} of a step", "extra"),
        Target(f"{name}_share", "<=", most, f"gan.gan: {text}, share of a step"),
    )


_TRICKS = {
    "label_smoothing": 0.1,
    "feature_matching": 0.1,
    "historical_averaging": 0.1,
    "minibatch_discrimination": 0.2,
}


def tricks() -> Part:
    """The tricks of a GAN, each on the plain GAN's step, and unrolling."""
    comparisons, targets = zip(*(_trick(*trick) for trick in _TRICKS.items()), strict=True)
    more = work.flops(work.unrolled_step(UNROLLED_STEPS)) / work.flops(work.gan_step())
    return Part(
        name="gan_tricks",
        title="gan.gan's tricks and gan.unrolled",
        about="The same networks and batch, float32; each trick alone on the plain GAN.",
        order={"work": "gan", "system": "gan"},
        batch_size=work.GAN_BATCH,
        contenders=("tfgen", *_TRICKS, "unrolled"),
        comparisons=(
            *comparisons,
            Comparison(
                "unrolled_cost", ("tfgen",), ("unrolled",),
                f"a step of K = {UNROLLED_STEPS} takes {{}} times a plain step", "time",
            ),
        ),
        targets=(
            *targets,
            Target(
                "unrolled_cost", "<=", 6.0,
                f"gan.unrolled: step time of K = {UNROLLED_STEPS} over a plain step",
            ),
        ),
        notes=(
            f"a step of K = {UNROLLED_STEPS} has {more:.1f} times the floating point operations of "
            "a plain step: each of the steps ahead is a pass forward and back through D for real "
            "and fake examples, and the gradient through it takes twice that again",
        ),
    )  # fmt: skip


def _maf() -> Part:
    sizes = "-".join(map(str, (work.MAF_SIZE, *work.MAF_HIDDEN, 2 * work.MAF_SIZE)))
    return Part(
        name="maf",
        title="flow.maf",
        about=f"{work.MAF_BLOCKS} MADEs of {sizes}, batch {work.MAF_BATCH}, Adam, no batch norm; "
        "shuffling included. zuko and nflows run on PyTorch, eager, with its fused Adam.",
        order={"work": "maf"},
        batch_size=work.MAF_BATCH,
        contenders=(*OURS_ANY, "zuko", "nflows", *_GEMMS),
        comparisons=(
            Comparison(
                "over_flows", OURS, ("zuko", "nflows"),
                "fastest float32 against the faster of zuko and nflows",
            ),
            Comparison("over_own_float32", OURS_ANY, OURS, "any precision against our own float32"),
        ),
        targets=(
            Target("over_flows", ">=", 3.0, "flow.maf: steps/s over the faster of zuko and nflows"),
        ),
    )  # fmt: skip


def _iaf() -> Part:
    return Part(
        name="iaf",
        title="vae.iaf",
        about=f"The IWAE's networks at k = 1 and {work.IAF_BLOCKS} gated MADEs of "
        f"{work.LATENTS}-{'-'.join(map(str, work.IAF_HIDDEN))}-{2 * work.LATENTS} with a context "
        f"of {work.IAF_CONTEXT}, batch {work.IWAE_BATCH}, Adam; shuffling and dynamic binarisation "
        "included.",
        order={"work": "iaf"},
        batch_size=work.IWAE_BATCH,
        contenders=(*_BOTH, *_GEMMS),
        comparisons=_COMMON,
        targets=(
            Target("over_torch", ">=", 1.2, "vae.iaf: steps/s over the faster PyTorch, float32"),
        ),
        portion=20,
    )


def _pixelcnn() -> Part:
    return Part(
        name="pixelcnn",
        title="vae.pixelcnn",
        about=f"Gated, 1 layer of 7x7 and {work.PIXELCNN_LAYERS} of 3x3, {work.PIXELCNN_FILTERS} "
        f"filters, binary 28x28, batch {work.IWAE_BATCH}, Adam; shuffling and dynamic binarisation "
        "included. PyTorch's kernels are cut to what is not masked; it has the faster of two "
        "memory formats and of two Adams.",
        order={"work": "pixelcnn"},
        batch_size=work.IWAE_BATCH,
        contenders=(*_BOTH, *_GEMMS),
        comparisons=_COMMON,
        targets=(
            Target(
                "over_torch", ">=", 1.2, "vae.pixelcnn: steps/s over the faster PyTorch, float32"
            ),
        ),
        portion=2,
    )


def _vqvae() -> Part:
    return Part(
        name="vqvae",
        title="vae.vqvae",
        about=f"28x28 to 7x7 of {work.VQVAE_CODES} codes of {work.VQVAE_SIZE} by two 4x4 "
        f"convolutions of stride 2 and {work.VQVAE_BLOCKS} residual blocks of {work.VQVAE_FILTERS} "
        f"filters, and back; Bernoulli, moving averages, batch {work.IWAE_BATCH}, Adam; shuffling "
        "and dynamic binarisation included. PyTorch has the faster of two memory formats and of "
        "two Adams.",
        order={"work": "vqvae"},
        batch_size=work.IWAE_BATCH,
        contenders=(*_BOTH, *_GEMMS),
        comparisons=_COMMON,
        targets=(
            Target("over_torch", ">=", 1.2, "vae.vqvae: steps/s over the faster PyTorch, float32"),
        ),
    )


_NETWORKS = {
    "cyclegan": f"128x128, two residual generators of {work.RESNET_BLOCKS} blocks and two 70x70 "
    "PatchGANs with instance norm, least squares, cycle and identity losses, pools of 50",
    "pix2pix": "256x256, U-Net of depth 8 and a conditional 70x70 PatchGAN with batch norm, "
    "cross-entropy and 100 L1",
}


def _translation(system: str) -> Part:
    name = f"translation.{system}"
    return Part(
        name=system,
        title=name,
        about=f"{_NETWORKS[system]}; batch 1, Adam; a step moves every network once. PyTorch has "
        "its fused Adam and the faster of two memory formats.",
        order={"work": "translation", "system": system},
        batch_size=1,
        contenders=(*_BOTH, *_GEMMS),
        comparisons=(
            Comparison(
                "over_torch_eager", OURS, ("torch",), "fastest float32 against eager PyTorch"
            ),
            *_COMMON,
            Comparison("over_own_float32", OURS_ANY, OURS, "any precision against our own float32"),
            Comparison(
                "memory", ("tfgen",), ("torch",), "peak memory {} times eager PyTorch's", "memory"
            ),
        ),
        targets=(
            Target("over_torch_eager", ">=", 1.1, f"{name}: steps/s over PyTorch eager, float32"),
            Target("best_over_best", ">=", 1.3, f"{name}: best precision over PyTorch's best"),
            Target("over_own_float32", ">=", 2.5, f"{name}: best precision over our float32"),
            Target("memory", "<=", 1.0, f"{name}: peak memory over eager PyTorch's, float32"),
        ),
        portion=1,
    )


def _first_step(name: str, config: str, seconds: float) -> FirstStep:
    text = f"{config}: seconds from command to first step"
    return FirstStep(name, config, (Target("seconds", "<=", seconds, text),))


ALL: dict[str, Part | FirstStep] = {
    part.name: part
    for part in (
        _iwae(
            1, 1.5, ("tfgen_constant", "tfgen_pipeline"),
            (Target(
                "waiting_share", "<=", 0.05,
                "k = 1: share of the step spent on the input pipeline",
            ),),
        ),
        _iwae(
            50, 3.5, (),
            (Target("share_of_floor", ">=", 0.6, "k = 50: share of the matrix products' floor"),),
        ),
        _gan("gan"),
        _gan("wgan_gp"),
        tricks(),
        _maf(),
        _iaf(),
        _pixelcnn(),
        _vqvae(),
        _translation("cyclegan"),
        _translation("pix2pix"),
        _first_step("first_step", "iwae_digits", 10.0),
        _first_step("first_step_gan", "gan_digits", 15.0),
        _first_step("first_step_wgan_gp", "wgan_gp_digits", 15.0),
        _first_step("first_step_infogan", "infogan_digits", 15.0),
        _first_step("first_step_unrolled", "unrolled_digits", 15.0),
        _first_step("first_step_cyclegan", "cyclegan_digits", 40.0),
        _first_step("first_step_pix2pix", "pix2pix_mosaic", 40.0),
    )
}  # fmt: skip
