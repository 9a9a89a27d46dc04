"""What is timed: sizes that both sides share, and the matrix products of one training step.

A convolution counts as the product that it is of image patches: its rows are the positions of its
map, the smaller one where it is transposed. Each layer has three products: forward, and the
gradients with respect to its weights and to its inputs.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Run = Callable[[int], dict[str, Any]]  # steps -> {"seconds": ...} and what else was measured


@dataclasses.dataclass(frozen=True)
class Product:
    """One of the three matrix products of a layer."""

    kind: str  # "forward", "of_weights" or "of_inputs"
    rows: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Of one such product."""
        return 2 * self.rows * self.inputs * self.outputs


_KINDS = ("forward", "of_weights", "of_inputs")
Step = list[tuple[Product, int]]  # The products of a step, each with how often it is made.
Layers = Sequence[tuple[int, int, int]]  # (rows, inputs, outputs) of each


def flops(step: Step) -> int:
    """Of a whole step."""
    return sum(product.flops * times for product, times in step)


# The IWAE: 784-200-200-50, tanh.

IWAE_BATCH = 100
LATENTS = 50
WIDTH = 200
PIXELS = 784
LEARNING_RATE, EPSILON = 1e-3, 1e-4


def iwae_step(k: int) -> Step:
    """The products of one step in the order of the layers.

    The gradient with respect to the images is not needed, hence absent.
    """
    encoder = [(PIXELS, WIDTH), (WIDTH, WIDTH), (WIDTH, 2 * LATENTS)]
    decoder = [(LATENTS, WIDTH), (WIDTH, WIDTH), (WIDTH, PIXELS)]
    layers = [(IWAE_BATCH, *sizes) for sizes in encoder]
    layers += [(IWAE_BATCH * k, *sizes) for sizes in decoder]
    return [
        (Product(kind, *layer), 1)
        for index, layer in enumerate(layers)
        for kind in _KINDS
        if (kind, index) != ("of_inputs", 0)
    ]


# The VAE with an IAF posterior: the IWAE's networks, and MADEs of 50-320-320-100 with a context.

IAF_BLOCKS = 4
IAF_HIDDEN = (320, 320)
IAF_CONTEXT = 50


def iaf_step() -> Step:
    """The products of one step; of the images' gradient as for the IWAE."""
    rows = IWAE_BATCH
    numbers = 2 * LATENTS + IAF_CONTEXT
    encoder = [(rows, PIXELS, WIDTH), (rows, WIDTH, WIDTH), (rows, WIDTH, numbers)]
    decoder = [(rows, LATENTS, WIDTH), (rows, WIDTH, WIDTH), (rows, WIDTH, PIXELS)]
    sizes = (LATENTS, *IAF_HIDDEN, 2 * LATENTS)
    block = [(rows, *pair) for pair in itertools.pairwise(sizes)]
    block.append((rows, IAF_CONTEXT, IAF_HIDDEN[0]))
    step = _learn(encoder) + _products(decoder, *_KINDS)
    for _ in range(IAF_BLOCKS):
        step += _products(block, *_KINDS)
    return list(step.items())


# The gated PixelCNN over 28x28 of {0, 1}: a layer that sees 7x7, more of 3x3, two 1x1 at the end.

PIXELCNN_LAYERS = 7
PIXELCNN_FILTERS = 32


def pixelcnn_step() -> Step:
    """The products of one step, by the kernels' pixels that are not masked."""
    rows, width = IWAE_BATCH * PIXELS, PIXELCNN_FILTERS

    def layer(channels: int, above: int, left: int) -> list[tuple[int, int, int]]:
        stacks = [(rows, above * channels, 2 * width), (rows, left * channels, 2 * width)]
        return [*stacks, (rows, 2 * width, 2 * width), (rows, width, width)]

    layers = layer(1, 3 * 7, 3)
    for _ in range(PIXELCNN_LAYERS):
        layers += layer(width, 2 * 3, 2)
    layers += [(rows, width, width), (rows, width, 1)]
    of_pixels = 2  # Both stacks of the first layer see them, and need no gradient there.
    step = _products(layers, "forward", "of_weights") + _products(layers[of_pixels:], "of_inputs")
    return list(step.items())


# The VQ-VAE: 28x28 to 7x7 codes by 4x4 convolutions of stride 2, residual blocks, and back.

VQVAE_FILTERS = 64
VQVAE_BLOCKS = 2
VQVAE_CODES = 128
VQVAE_SIZE = 32
VQVAE_DECAY = 0.99
VQVAE_COMMITMENT = 0.25


def vqvae_step() -> Step:
    """The products of one step; distances to the codes have no gradient."""
    half, whole = VQVAE_FILTERS // 2, VQVAE_FILTERS
    small, large = IWAE_BATCH * 7 * 7, IWAE_BATCH * 14 * 14
    blocks = [(small, 9 * whole, whole), (small, whole, whole)] * VQVAE_BLOCKS
    encoder = [(large, 16, half), (small, 16 * half, whole), *blocks, (small, whole, VQVAE_SIZE)]
    decoder = [(small, 9 * VQVAE_SIZE, whole), *blocks]
    decoder += [(small, whole, 16 * half), (large, half, 16)]
    distances = [(small, VQVAE_SIZE, VQVAE_CODES)]
    step = _learn(encoder) + _products(decoder, *_KINDS) + _products(distances, "forward")
    return list(step.items())


# The GANs: InfoGAN's networks for MNIST, 4x4 convolutions of stride 2.

GAN_BATCH = 64
GAN_LATENTS = 74
UNITS = 1024
FILTERS = 64
LEAK = 0.1
PENALTY_WEIGHT = 10.0
ADAM = {"gan": (2e-4, 0.5, 0.999), "wgan_gp": (1e-4, 0.0, 0.9)}  # Step size, beta1, beta2.
UNROLLED_STEPS = 5
_TAPS = 4 * 4
_MAP, _LARGE_MAP = GAN_BATCH * 7 * 7, GAN_BATCH * 14 * 14
_GENERATOR = (
    (GAN_BATCH, GAN_LATENTS, UNITS),
    (GAN_BATCH, UNITS, 7 * 7 * 2 * FILTERS),
    (_MAP, 2 * FILTERS, _TAPS * FILTERS),
    (_LARGE_MAP, FILTERS, _TAPS),
)
_DISCRIMINATOR = (
    (_LARGE_MAP, _TAPS, FILTERS),
    (_MAP, _TAPS * FILTERS, 2 * FILTERS),
    (GAN_BATCH, 7 * 7 * 2 * FILTERS, UNITS),
    (GAN_BATCH, UNITS, 1),
)


def _products(layers: Layers, *kinds: str) -> Counter[Product]:
    return Counter(Product(kind, *layer) for layer in layers for kind in kinds)


def _learn(layers: Layers) -> Counter[Product]:
    """A pass forward and back to the weights; nobody asks for the gradient of the inputs."""
    both = _products(layers, "forward", "of_weights")
    return both + _products(layers[1:], "of_inputs")


def _discriminator_update() -> Counter[Product]:
    learn = _learn(_DISCRIMINATOR)
    return _products(_GENERATOR, "forward") + learn + learn  # fakes; real, fake


def _generator_update() -> Counter[Product]:
    return _learn(_GENERATOR) + _products(_DISCRIMINATOR, "forward", "of_inputs")


def gan_step() -> Step:
    """One update of the discriminator and one of the generator, each on fakes of its own."""
    return list((_discriminator_update() + _generator_update()).items())


def wgan_gp_step() -> Step:
    """A GAN's step and the penalty: the critic's slope, and back through it to the weights."""
    slope = _products(_DISCRIMINATOR, "forward", "of_inputs")
    back = _products(_DISCRIMINATOR, "forward", "of_weights")  # leaky ReLU has no curvature
    return list((_discriminator_update() + slope + back + _generator_update()).items())


def unrolled_step(ahead: int) -> Step:
    """A GAN's step whose generator sees D `ahead` steps ahead, 1 or more.

    Back through a step ahead each of its products has two. Through the first one only what the
    fakes did to the weights counts: the weights that it began with are given.
    """
    first, rest = _DISCRIMINATOR[:1], _DISCRIMINATOR[1:]
    learn = _learn(_DISCRIMINATOR)
    of_pixels = _products(first, "of_inputs", "of_inputs")
    back = _products(first, "forward", "of_weights") + _products(rest, *2 * _KINDS)
    step = _discriminator_update() + _learn(_GENERATOR)
    for _ in range(ahead):
        step += learn + learn  # real, fake
    for _ in range(ahead - 1):
        step += back + back + of_pixels
    step += _products(_DISCRIMINATOR, "forward", "of_inputs", "of_inputs")
    step += _products(rest, "forward")
    step += learn + _products(_DISCRIMINATOR, *_KINDS)  # the surrogate
    return list(step.items())


# The flow: five MADEs of 63-512-512-126, ReLU.

MAF_BATCH = 100
MAF_SIZE = 63
MAF_BLOCKS = 5
MAF_HIDDEN = (512, 512)
MAF_RATE = 1e-4


def maf_step() -> Step:
    """The products of one step, masked weights included: all three libraries multiply by them."""
    sizes = (MAF_SIZE, *MAF_HIDDEN, 2 * MAF_SIZE)
    layers = [(MAF_BATCH, *pair) for pair in itertools.pairwise(sizes)]
    blocks = _learn(layers) + Counter(
        {p: n * (MAF_BLOCKS - 1) for p, n in _products(layers, *_KINDS).items()}
    )
    return list(blocks.items())


def vectors() -> np.ndarray:
    """What the flows are trained on: float32 [50000, 63], correlated Gaussians."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(MAF_SIZE, MAF_SIZE)) / MAF_SIZE**0.5
    return (rng.normal(size=(50_000, MAF_SIZE)) @ mixing).astype(np.float32)


# Image translation at batch size 1: the CycleGAN's residual generator and the pix2pix U-Net.

TRANSLATION_SIDES = {"cyclegan": 128, "pix2pix": 256}
TRANSLATION_IMAGES = 64
TRANSLATION_FILTERS = 64
RESNET_BLOCKS = 6
UNET_WIDTHS = (64, 128, 256, 512, 512, 512, 512, 512)


def pictures(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of pictures of noise, uint8 [64, side, side, 3]."""
    rng = np.random.default_rng(0)
    shape = (TRANSLATION_IMAGES, side, side, 3)
    first, second = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))
    return first, second


def _resnet(side: int) -> list[tuple[int, int, int]]:
    f = TRANSLATION_FILTERS
    full, half, quarter = side**2, (side // 2) ** 2, (side // 4) ** 2
    down = [(full, 49 * 3, f), (half, 9 * f, 2 * f), (quarter, 18 * f, 4 * f)]
    blocks = [(quarter, 36 * f, 4 * f)] * (2 * RESNET_BLOCKS)
    up = [(quarter, 4 * f, 18 * f), (half, 2 * f, 9 * f), (full, 49 * f, 3)]
    return [*down, *blocks, *up]


def _patchgan(side: int, channels: int) -> list[tuple[int, int, int]]:
    f, eighth = TRANSLATION_FILTERS, side // 8
    return [
        ((side // 2) ** 2, 16 * channels, f),
        ((side // 4) ** 2, 16 * f, 2 * f),
        (eighth**2, 32 * f, 4 * f),
        ((eighth - 1) ** 2, 64 * f, 8 * f),
        ((eighth - 2) ** 2, 128 * f, 1),
    ]


def _unet() -> list[tuple[int, int, int]]:
    channels = (3, *UNET_WIDTHS)
    last = len(UNET_WIDTHS) - 1
    maps = [(TRANSLATION_SIDES["pix2pix"] >> (level + 1)) ** 2 for level in range(last + 1)]
    down = [(maps[n], 16 * channels[n], channels[n + 1]) for n in range(last + 1)]
    up = [
        (maps[n], UNET_WIDTHS[n] * (1 if n == last else 2), 16 * (UNET_WIDTHS[n - 1] if n else 3))
        for n in reversed(range(last + 1))
    ]
    return [*down, *up]


def cyclegan_step() -> Step:
    """Six passes of the generators, two of them upon fakes; the discriminators see all."""
    side = TRANSLATION_SIDES["cyclegan"]
    generator, judge = _resnet(side), _patchgan(side, 3)
    step: Counter[Product] = Counter()
    for _ in range(4):
        step += _learn(generator) + _learn(judge)
    for _ in range(2):
        step += _products(generator, *_KINDS) + _products(judge, "forward", "of_inputs")
    return list(step.items())


def pix2pix_step() -> Step:
    """One pass of the U-Net; the discriminator sees the real pair, the fake one, and that again."""
    judge = _patchgan(TRANSLATION_SIDES["pix2pix"], 6)
    step = _learn(_unet()) + _learn(judge) + _learn(judge)
    return list((step + _products(judge, "forward", "of_inputs")).items())


def step_of(order: dict[str, Any]) -> Step:
    """The products of what a contender is told to do."""
    if order["work"] == "iwae":
        return iwae_step(order["k"])
    if order["work"] == "gan":
        return {"gan": gan_step, "wgan_gp": wgan_gp_step}[order["system"]]()
    if order["work"] == "translation":
        return {"cyclegan": cyclegan_step, "pix2pix": pix2pix_step}[order["system"]]()
    steps = {"iaf": iaf_step, "maf": maf_step, "pixelcnn": pixelcnn_step, "vqvae": vqvae_step}
    return steps[order["work"]]()
