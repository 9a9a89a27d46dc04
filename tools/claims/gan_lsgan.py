"""What Mao et al. 2017 prove of the LSGAN, checked by numbers; and its samples of the digits."""

import pathlib

import numpy as np
import tensorflow as tf

from tfgen.losses import adversarial
from tools.claims import _gallery
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
LABELS = {"(-1, 1, 0)": (-1.0, 1.0, 0.0), "(0, 1, 1)": (0.0, 1.0, 1.0)}
FAR = 30.0  # a logit at which the discriminator is sure that a fake is real


def runs(budget: str) -> list[Run]:
    """Digits, beside the same networks with the cross-entropy."""
    return [
        Run(f"{name}_digits_seed{seed}", f"{name}_digits.cfg", (f"--seed={seed}",), (), seed)
        for name in ("lsgan", "gan")
        for seed in SEEDS
    ]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The two identities on random discrete distributions, and the gradient far out."""
    found = []
    for text, (a, b, c) in LABELS.items():
        errors = [_identity_errors(a, b, c, seed) for seed in SEEDS]
        if c == (a + b) / 2:
            found.append(
                Claim(
                    f"{text}: E_d (D* - c)^2 + E_g (D* - c)^2 = sum (p_d - p_g)^2 / (p_d + p_g)",
                    "eq. 7-10",
                    "error " + "/".join(f"{pearson:.1e}" for pearson, _ in errors),
                    "1e-6",
                    "",
                    all(pearson < 1e-6 for pearson, _ in errors),
                )
            )
        found.append(
            Claim(
                f"{text}: min_D V = (b - a)^2 / 4 (1 - that / 2)",
                "",
                "error " + "/".join(f"{value:.1e}" for _, value in errors),
                "1e-6",
                "",
                all(value < 1e-6 for _, value in errors),
            )
        )
    ours, theirs = (
        abs(_slope(adversarial.objective(name))) for name in ("least_squares", "non_saturating")
    )
    found.append(
        Claim(
            f"G's gradient at a fake with logit {FAR:g}, |dL/dD|",
            "non-zero against saturated (figure 1, section 3.1)",
            f"{ours:.3g}",
            f"{theirs:.1e} by cross-entropy",
            "",
            ours > 1.0 and theirs < 1e-6,
        )
    )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """Digits by both objectives."""
    names = ["lsgan_digits_seed0", "gan_digits_seed0"]
    _gallery.samples([outcomes[name] for name in names], path)


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
