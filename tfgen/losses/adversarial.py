"""Adversarial objectives: pairs of pure functions of logits, one value an example.

The law of names: `<objective>_discriminator_loss(real, fake)` and
`<objective>_generator_loss(fake)`, each minimised by its player. `real` and `fake` are what D says,
unbounded and of any equal shape: [B, 1] of an image discriminator or [B, H, W, 1] of a patch
discriminator; so is the result. Nothing is reduced here. `OBJECTIVES` has the pairs by name.

Cross-entropies are written by softplus(l) = log(1 + e^l), with -log sigmoid(l) = softplus(-l) and
-log(1 - sigmoid(l)) = softplus(l), finite at any logit.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import tensorflow as tf


def minimax_discriminator_loss(
    real: tf.Tensor, fake: tf.Tensor, positive_label: float = 1.0
) -> tf.Tensor:
    """-log D(x) - log(1 - D(G(z))), D = sigmoid(logit) (Goodfellow et al. 2014, eq. 1).

    With a positive label p below 1 (one-sided label smoothing, Salimans et al. 2016, section 3.4)
    the first term is -p log D(x) - (1 - p) log(1 - D(x)); the label of the fakes stays 0.
    """
    on_real = positive_label * tf.nn.softplus(-real) + (1.0 - positive_label) * tf.nn.softplus(real)
    return on_real + tf.nn.softplus(fake)


def minimax_generator_loss(fake: tf.Tensor) -> tf.Tensor:
    """log(1 - D(G(z))): vanishes where D is sure (Goodfellow et al. 2014, eq. 1)."""
    return -tf.nn.softplus(fake)


def non_saturating_generator_loss(fake: tf.Tensor) -> tf.Tensor:
    """-log D(G(z)): strong where D is sure (Goodfellow et al. 2014, section 3)."""
    return tf.nn.softplus(-fake)


def wasserstein_discriminator_loss(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """f(G(z)) - f(x); minus its mean estimates W1 times the Lipschitz constant of the critic f.

    Reference: Arjovsky et al. 2017, eq. 2 and algorithm 1.
    """
    return fake - real


def wasserstein_generator_loss(fake: tf.Tensor) -> tf.Tensor:
    """-f(G(z)) (Arjovsky et al. 2017, algorithm 1)."""
    return -fake


def least_squares_discriminator_loss(
    real: tf.Tensor, fake: tf.Tensor, a: float = -1.0, b: float = 1.0
) -> tf.Tensor:
    """1/2 (D(x) - b)^2 + 1/2 (D(G(z)) - a)^2 (Mao et al. 2017, eq. 2)."""
    return 0.5 * tf.square(real - b) + 0.5 * tf.square(fake - a)


def least_squares_generator_loss(fake: tf.Tensor, c: float = 0.0) -> tf.Tensor:
    """1/2 (D(G(z)) - c)^2 (Mao et al. 2017, eq. 2)."""
    return 0.5 * tf.square(fake - c)


def hinge_discriminator_loss(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Lim and Ye 2017; Miyato et al. 2018, eq. 16)."""
    return tf.nn.relu(1.0 - real) + tf.nn.relu(1.0 + fake)


def hinge_generator_loss(fake: tf.Tensor) -> tf.Tensor:
    """-D(G(z)) (Lim and Ye 2017; Miyato et al. 2018, eq. 17)."""
    return -fake


@dataclasses.dataclass(frozen=True)
class Objective:
    """The two losses of a game.

    Attributes:
        discriminator: (real, fake) -> loss, in the shape of its arguments.
        generator: fake -> loss, in the shape of its argument.
        smoothed: label of real examples -> the objective with it; None where there are no labels.
        scale: the discriminator's loss where it is right and sure, the least there is, and the
            least of one that cannot tell, whose logits are equal; None where the loss has no
            bound, as that of a critic, which is minus a distance.
    """

    discriminator: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    generator: Callable[[tf.Tensor], tf.Tensor]
    smoothed: Callable[[float], "Objective"] | None = None
    scale: tuple[float, float] | None = None


def cross_entropy(
    generator: Callable[[tf.Tensor], tf.Tensor], positive_label: float = 1.0
) -> Objective:
    """The cross-entropies of Goodfellow et al. with one of their generator's losses."""
    p = positive_label
    sure = 0.0 if p == 1.0 else -p * math.log(p) - (1 - p) * math.log(1 - p)
    cannot_tell = -p * math.log(p / 2) - (2 - p) * math.log(1 - p / 2)  # D = p / 2 everywhere
    return Objective(
        functools.partial(minimax_discriminator_loss, positive_label=p),
        generator,
        functools.partial(cross_entropy, generator),
        (sure, cannot_tell),
    )


def least_squares(a: float, b: float, c: float) -> Objective:
    """The least squares of Mao et al. with these labels."""
    return Objective(
        functools.partial(least_squares_discriminator_loss, a=a, b=b),
        functools.partial(least_squares_generator_loss, c=c),
        lambda label: least_squares(a, b * label, c),
        (0.0, (b - a) ** 2 / 4),  # D = (a + b) / 2 everywhere
    )


OBJECTIVES: dict[str, Objective] = {
    "minimax": cross_entropy(minimax_generator_loss),
    "non_saturating": cross_entropy(non_saturating_generator_loss),
    "wasserstein": Objective(wasserstein_discriminator_loss, wasserstein_generator_loss),
    "least_squares": least_squares(a=-1.0, b=1.0, c=0.0),
    "least_squares_01": least_squares(a=0.0, b=1.0, c=1.0),
    "hinge": Objective(hinge_discriminator_loss, hinge_generator_loss, scale=(0.0, 2.0)),
}


def objective(name: str, positive_label: float = 1.0) -> Objective:
    """A pair by name, its label of real examples smoothed.

    Args:
        name: a key of `OBJECTIVES`.
        positive_label: label of real examples, 0.9 for one-sided label smoothing; 1 is off.

    Raises:
        ValueError: if the name is none of them, the objective has no labels to smooth, or the
            label is out of range.
    """
    if name not in OBJECTIVES:
        raise ValueError(f"objective must be one of {list(OBJECTIVES)}. Received: {name!r}")
    if not 0 < positive_label <= 1:
        raise ValueError(
            f"positive_label must be above 0 and at most 1. Received: {positive_label}"
        )
    pair = OBJECTIVES[name]
    if positive_label == 1.0:
        return pair
    if pair.smoothed is None:
        having = [n for n, p in OBJECTIVES.items() if p.smoothed]
        raise ValueError(
            f"label smoothing needs an objective with labels, one of {having}. "
            f"Received: positive_label={positive_label} with objective={name!r}"
        )
    return pair.smoothed(positive_label)
