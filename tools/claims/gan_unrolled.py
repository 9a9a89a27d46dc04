"""What Metz et al. 2017 claim of unrolling, measured beside K = 0, the minimax GAN.

Paper, stacked MNIST, D a quarter of G (table 1): modes 30.6 +- 20.7 at K = 0, 236.4 +- 63.3 at
K = 5, of 1000. The step sizes are those of a co-author's public notebook, G's ten times D's. With
equal ones of 2e-4, a trial of one seed that is no row, D had won by step 900 with and without
unrolling (its loss below 0.01) and the minimax loss taught G nothing.

On the ring the networks are those of the paper's appendix A. Those of the notebook are measured
without unrolling alone: where K = 0 covers the modes, unrolling has nothing to mend.
"""

import keras
import numpy as np
import tensorflow as tf

from tfgen.losses import adversarial
from tfgen.models.gan import unrolled
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run
from tools.claims._common import SEEDS, clearly_above, text, values

STEPS = {"ring8": (10, 0), "stacked_mnist": (5, 0)}  # K, ours and the baseline.


def rows(budget: str) -> list[Run]:
    """Both data sets with and without unrolling, on three seeds."""
    del budget  # there is one
    notebook = [
        Run(
            f"ring8_notebook_K0_seed{seed}",
            "unrolled_ring8_notebook.cfg",
            ("--unrolled_steps=0", f"--seed={seed}"),
            seed=seed,
        )
        for seed in SEEDS
    ]
    return notebook + [
        Run(
            _name(data, steps, seed),
            f"unrolled_{data}.cfg",
            (f"--unrolled_steps={steps}", f"--seed={seed}"),
            ("--num_samples=25600",) if data == "stacked_mnist" else (),
            seed,
        )
        for data, pair in STEPS.items()
        for seed in SEEDS
        for steps in pair
    ]


def gradient_is_exact(outcomes: Outcomes) -> Claim:
    """G's gradient through K steps of D on a quadratic game equals the one by hand."""
    del outcomes  # by numbers
    errors = [gradient_error(steps) for steps in (1, 5, 10)]
    return Claim(
        "G's gradient through K = 1, 5, 10 steps of D on a quadratic game equals the one by "
        "hand: relative error",
        "eq. 12",
        text(errors, ".0e"),
        "1e-5",
        "1",
        max(errors) < 1e-5,
    )


def modes_of_the_ring(outcomes: Outcomes) -> Claim:
    """ring8: K = 10 covers at least 7 of 8 modes and at least 3 more than K = 0, on each seed."""
    groups = _pair(outcomes, "ring8")
    modes, plain = (values(group, "modes_covered") for group in groups)
    quality = [values(group, "high_quality") for group in groups]
    return Claim(
        "ring8, networks of appendix A: K = 10 covers at least 7 of 8 modes and at least 3 more "
        "than K = 0, on each seed (share of samples within 3 sigma behind it)",
        "figure 1",
        f"{text(modes)} ({text(quality[0])})",
        f"{text(plain)} ({text(quality[1])}) K = 0",
        "modes",
        min(modes) >= 7 and all(a >= b + 3 for a, b in zip(modes, plain, strict=True)),
    )


def notebook_loses_modes(outcomes: Outcomes) -> Claim:
    """ring8, the notebook's networks: K = 0 covers at most 4 modes, so that K = 10 can mend it."""
    (plain,) = outcomes.by_seed("ring8_notebook_K0", seeds=SEEDS)
    modes = values(plain, "modes_covered")
    return Claim(
        "ring8, networks and step sizes of a co-author's notebook (tanh, two layers of 128): K = 0 "
        "covers at most 4 of 8 modes, which leaves 3 for unrolling to find (share of samples "
        "within 3 sigma behind it)",
        "figure 1",
        f"{text(modes)} ({text(values(plain, 'high_quality'))})",
        "4",
        "modes",
        max(modes) <= 4,
        "by these networks the GAN that is not unrolled covers the ring as well.",
    )


def modes_of_stacked_digits(outcomes: Outcomes) -> Claim:
    """Stacked MNIST, D a quarter of G: more of the 1000 modes with K = 5 than with K = 0."""
    modes, plain = (values(o, "modes_covered") for o in _pair(outcomes, "stacked_mnist"))
    return Claim(
        "stacked MNIST, D a quarter of G: more of the 1000 modes with K = 5 than with "
        "K = 0, the means over seeds being over two standard errors apart",
        "236.4 ± 63.3 > 30.6 ± 20.7",
        f"{np.mean(modes):.1f} ({text(modes)})",
        f"{np.mean(plain):.1f} ({text(plain)}) K = 0",
        "modes",
        clearly_above(modes, plain),
    )


CLAIMS = (
    gradient_is_exact,
    modes_of_the_ring,
    notebook_loses_modes,
    modes_of_stacked_digits,
)


def gradient_error(steps: int, rate: float = 0.1) -> float:
    """Relative error of d f_K / d a on a game of one number each.

    D(x) = w x judges data at r and a fake at a. D minimises a w - r w + r^2 w^2 / 2 by gradient
    descent, so that w_K = q w - c (a - r) with q = (1 - rate r^2)^K and
    c = rate (1 + ... + (1 - rate r^2)^(K-1)); G minimises minus that loss at w_K.
    """
    w, r, a = 0.3, 0.8, -0.4

    def line() -> keras.Sequential:
        return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])

    model = unrolled.UnrolledGAN(line(), line(), unrolled_steps=steps)
    model.losses_of = adversarial.Objective(
        lambda real, fake: fake - real + 0.5 * real**2, lambda fake: -fake
    )
    model.discriminator.set_weights([np.array([[w]])])
    model.compile(generator=keras.optimizers.SGD(), discriminator=keras.optimizers.SGD(rate))
    real, fake = tf.constant([[r]]), tf.constant([[a]])
    with tf.GradientTape() as tape:
        tape.watch(fake)
        surrogate = -model.loss_at(model.look_ahead(real, fake), real, fake)
    got = float(tape.gradient(surrogate, fake)[0, 0])
    rho = 1 - rate * r**2
    q, c = rho**steps, rate * sum(rho**k for k in range(steps))
    w_k = q * w - c * (a - r)
    expected = -(w_k - (a - r + r**2 * w_k) * c)
    return abs(got - expected) / abs(expected)


def _name(data: str, steps: int, seed: int) -> str:
    return f"{data}_K{steps}_seed{seed}"


# Samples with and without unrolling.
PICTURES = _gallery.grids(
    {data: [_name(data, steps, 0) for steps in pair] for data, pair in STEPS.items()}
)


def _pair(outcomes: Outcomes, data: str) -> list[list[Outcome]]:
    return outcomes.by_seed(*(f"{data}_K{steps}" for steps in STEPS[data]), seeds=SEEDS)
