"""What Mao et al. 2017 prove of the LSGAN, checked by numbers; and its samples of the digits."""

import functools

import numpy as np
import tensorflow as tf

from tfgen.losses import adversarial
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import SEEDS, text

LABELS = {"(-1, 1, 0)": (-1.0, 1.0, 0.0), "(0, 1, 1)": (0.0, 1.0, 1.0)}
FAR = 30.0  # a logit at which the discriminator is sure that a fake is real


def rows(budget: str) -> list[Run]:
    """Digits, beside the same networks with the cross-entropy."""
    return [
        Run(f"{name}_digits_seed{seed}", f"{name}_digits.cfg", (f"--seed={seed}",), (), seed)
        for name in ("lsgan", "gan")
        for seed in SEEDS
    ]


def distance_is_pearson(outcomes: Outcomes, labels: str) -> Claim:
    """The best D's distance to c is Pearson's chi^2, on random discrete distributions."""
    del outcomes  # by numbers
    errors = [_identity_errors(*LABELS[labels], seed)[0] for seed in SEEDS]
    return Claim(
        f"{labels}: E_d (D* - c)^2 + E_g (D* - c)^2 = sum (p_d - p_g)^2 / (p_d + p_g)",
        "eq. 7-10",
        f"error {text(errors, '.1e')}",
        "1e-6",
        "",
        all(error < 1e-6 for error in errors),
    )


def least_value(outcomes: Outcomes, labels: str) -> Claim:
    """The least V is (b - a)^2 / 4 (1 - Pearson's chi^2 / 2)."""
    del outcomes  # by numbers
    errors = [_identity_errors(*LABELS[labels], seed)[1] for seed in SEEDS]
    return Claim(
        f"{labels}: min_D V = (b - a)^2 / 4 (1 - that / 2)",
        "",
        f"error {text(errors, '.1e')}",
        "1e-6",
        "",
        all(error < 1e-6 for error in errors),
    )


def gradient_far_out(outcomes: Outcomes) -> Claim:
    """G's gradient at a fake that D is sure of."""
    del outcomes  # by numbers
    ours, theirs = (
        abs(_slope(adversarial.objective(name))) for name in ("least_squares", "non_saturating")
    )
    return Claim(
        f"G's gradient at a fake with logit {FAR:g}, |dL/dD|",
        "non-zero against saturated (figure 1, section 3.1)",
        f"{ours:.3g}",
        f"{theirs:.1e} by cross-entropy",
        "",
        ours > 1.0 and theirs < 1e-6,
    )


CLAIMS = (
    functools.partial(distance_is_pearson, labels="(-1, 1, 0)"),  # the one where c = (a + b) / 2
    *(functools.partial(least_value, labels=labels) for labels in LABELS),
    gradient_far_out,
)

# Digits by both objectives.
PICTURES = _gallery.grids({"": ["lsgan_digits_seed0", "gan_digits_seed0"]})


def _identity_errors(a: float, b: float, c: float, seed: int) -> tuple[float, float]:
    """Errors of both identities for two random distributions over 20 points."""
    p_data, p_model = np.random.default_rng(seed).dirichlet(np.ones(20), 2)
    loss = adversarial.least_squares_discriminator_loss

    def value(logits: tf.Tensor) -> tf.Tensor:
        pairs = loss(logits[:, None], logits[None, :], a=a, b=b)  # x and G(z) independent
        return tf.reduce_sum(p_data[:, None] * p_model[None, :] * pairs)

    logits = tf.Variable(np.zeros(20))
    for _ in range(2):  # Newton's method; the loss is quadratic with curvature p_d + p_g
        with tf.GradientTape() as tape:
            loss_now = value(logits)
        logits.assign_sub(tape.gradient(loss_now, logits) / (p_data + p_model))
    best = logits.numpy()
    pearson = np.sum((p_data - p_model) ** 2 / (p_data + p_model))
    both = np.sum((p_data + p_model) * (best - c) ** 2)
    least = float(value(logits))
    return abs(both - pearson), abs(least - (b - a) ** 2 / 4 * (1 - pearson / 2))


def _slope(pair: adversarial.Objective) -> float:
    logit = tf.constant([[FAR]])
    with tf.GradientTape() as tape:
        tape.watch(logit)
        loss = pair.generator(logit)
    return float(tape.gradient(loss, logit)[0, 0])
