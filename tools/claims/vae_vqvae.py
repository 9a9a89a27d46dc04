"""What van den Oord et al. 2017 claim of the VQ-VAE, measured on digits and MNIST.

The paper has no numbers on these; on CIFAR10 its codes and their prior take 4.67 bits a dimension,
beside 4.51 by a VAE with continuous latents. Here: the codebook is in use, the PixelCNN over the
codes makes better images than codes drawn alike, and its bits are fewer.
"""

import functools
import math

from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import SEEDS, text, values

CODES = {"digits": (64, 4 * 4), "mnist": (128, 7 * 7)}  # K, and places of a map.


def rows(budget: str) -> list[Run]:
    """Digits and MNIST on three seeds."""
    del budget  # there is one
    return [
        Run(f"{data}_seed{seed}", f"vqvae_{data}.cfg", (f"--seed={seed}",), (), seed)
        for data in CODES
        for seed in SEEDS
    ]


def prior_draws_better(outcomes: Outcomes, data: str) -> Claim:
    """FID of samples through the PixelCNN prior below that through a uniform prior."""
    (runs,) = outcomes.by_seed(data, seeds=SEEDS)
    ours = [run.value_starting("fid_") for run in runs]
    uniform = [run.value_starting("uniform_fid_") for run in runs]
    return Claim(
        f"{data}: FID of samples through the PixelCNN prior below that through a uniform prior",
        "section 4.1, by pictures",
        text(ours),
        text(uniform),
        "squared features",
        max(ours) < min(uniform),
    )


def prior_codes_shorter(outcomes: Outcomes, data: str) -> Claim:
    """An image's codes take fewer bits by the prior than uniformly."""
    (runs,) = outcomes.by_seed(data, seeds=SEEDS)
    ours, (codes, places) = values(runs, "code_bits"), CODES[data]
    uniform, total = places * math.log2(codes), values(runs, "bits_per_dimension")
    return Claim(
        f"{data}: bits of a test image's codes by the prior fewer than uniformly; all in all the "
        f"images take {text(total)} bits a dimension",
        "4.67 bits a dimension, CIFAR10",
        text(ours, ".4g"),
        f"{uniform:.4g}",
        "bits",
        max(ours) < uniform,
    )


def in_use(outcomes: Outcomes, data: str) -> Claim:
    """The codebook has not collapsed."""
    (runs,) = outcomes.by_seed(data, seeds=SEEDS)
    perplexity, (codes, _) = values(runs, "perplexity"), CODES[data]
    used = values(runs, "codes_used")
    return Claim(
        f"{data}: perplexity of the codes of all test images at least a quarter of {codes}; "
        f"{text(used)} are in use",
        "",
        text(perplexity),
        f"{codes / 4:g}",
        "codes",
        min(perplexity) >= codes / 4,
    )


CLAIMS = tuple(
    functools.partial(claim, data=data)
    for data in CODES
    for claim in (prior_draws_better, prior_codes_shorter, in_use)
)

# Samples through the prior.
PICTURES = _gallery.grids({data: [f"{data}_seed0"] for data in CODES})
