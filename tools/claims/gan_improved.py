"""What Salimans et al. 2016 claim of each trick, and of classifying with 100 labels, measured.

The tricks are flags of `gan.gan`: minibatch discrimination and feature matching are tried on the
grid, the others on the paper's toy games and on networks at their start. The semi-supervised
classifier is tried on MNIST, beside the same network trained on the same labels alone.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.layers.historical_average import HistoricalAverage
from tfgen.losses import adversarial
from tfgen.models.gan import gan
from tools.claims import _gallery
from tools.reproduce import Claim, Outcome, Run

SEEDS = (0, 1, 2)
ON_GRID = {
    "plain": (),
    "minibatch": ("--minibatch_kernels=16", "--minibatch_kernel_dim=4"),
    "features": ("--feature_matching_layer=hidden_2", "--adversarial_weight=0"),
}
ON_MNIST = {"semi_supervised": (), "supervised": ("--unsupervised_weight=0",)}
TURNS, RATE, WEIGHT = 10_000, 0.1, 0.1  # of the toy games; weight of historical averaging


def runs(budget: str) -> list[Run]:
    """The grid by three generators' losses, MNIST with and without examples without labels."""
    del budget  # there is one
    return [
        Run(f"{name}_{data}_seed{seed}", flagfile, (*flags, f"--seed={seed}"), (), seed)
        for data, flagfile, kinds in (
            ("grid25", "gan_grid25.cfg", ON_GRID),
            ("mnist", "improved_mnist.cfg", ON_MNIST),
        )
        for seed in SEEDS
        for name, flags in kinds.items()
    ]


def check(outcomes: dict[str, Outcome]) -> list[Claim]:
    """The claims, each from numbers."""
    found = [*_on_grid(outcomes), *_games(), _virtual_batch_norm(), _label_smoothing()]
    error, plain = (_values(outcomes, f"{kind}_mnist", "classification_error") for kind in ON_MNIST)
    if error and len(error) == len(plain):
        found.append(
            Claim(
                "MNIST with 100 labels: test error below 4%, on each seed",
                "0.93% after 300 epochs",
                _percent(error),
                _percent(plain) + " by the 100 labels alone",
                "%",
                max(error) < 0.04,
            )
        )
    return found


def picture(outcomes: dict[str, Outcome], path: pathlib.Path) -> None:
    """Samples of each."""
    names = [f"{kind}_grid25_seed0" for kind in ON_GRID] + ["semi_supervised_mnist_seed0"]
    _gallery.samples([outcomes[name] for name in names if name in outcomes], path)


def _on_grid(outcomes: dict[str, Outcome]) -> list[Claim]:
    measures = ("modes_covered", "high_quality", "mode_reverse_kl")
    of = {kind: [_values(outcomes, f"{kind}_grid25", m) for m in measures] for kind in ON_GRID}
    ours, plain, features = of["minibatch"][0], of["plain"][0], of["features"][0]
    if not ours or not len(ours) == len(plain) == len(features):
        return []

    def told(kind: str) -> str:
        modes, quality, kl = of[kind]
        return f"{_text(modes)} ({_text(quality)}; {_text(kl)})"

    return [
        Claim(
            "grid25: minibatch discrimination covers more modes, in the mean over seeds (share of "
            "samples within 3 sigma; KL(modes || uniform) behind them)",
            "section 3.2 in words",
            told("minibatch"),
            f"{told('plain')} plain; {told('features')} feature matching",
            "modes of 25",
            bool(np.mean(ours) > np.mean(plain)),
        )
    ]


# Historical averaging on games of two numbers, players in turn.


def game(gradient: Callable, x: float, y: float, best: tuple[float, float], weight: float) -> float:
    """Distance to the equilibrium after all turns, as a part of that at the start.

    Args:
        gradient: (x, y) -> (d v / d x, d v / d y); x minimises v and y maximises it.
        x: the start.
        y: the start.
        best: the equilibrium.
        weight: of both players' distance to their past mean.
    """
    players = [tf.Variable(x), tf.Variable(y)]
    past = [HistoricalAverage([player]) for player in players]

    @tf.function
    def play() -> None:
        for _ in tf.range(TURNS):
            for index, sign in ((0, 1.0), (1, -1.0)):
                with tf.GradientTape() as tape:
                    penalty = weight * past[index].penalty()
                pull = tape.gradient(penalty, players[index])
                slope = sign * gradient(*players)[index] + pull
                players[index].assign_sub(RATE * slope)
                past[index].update()

    play()
    end = np.hypot(*(float(p) - b for p, b in zip(players, best, strict=True)))
    return float(end / np.hypot(x - best[0], y - best[1]))


def bilinear(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of v = x y."""
    return y, x


def bent(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of v = (f(x) - 1) (y - 1), f(x) = x for x < 0, else x^2."""
    f, slope = tf.where(x < 0, x, x**2), tf.where(x < 0, 1.0, 2 * x)
    return slope * (y - 1), f - 1


def _games() -> list[Claim]:
    found = []
    for name, gradient, starts, best in (
        ("x y", bilinear, ((1.0, 1.0), (-2.0, 0.5), (0.0, 3.0)), (0.0, 0.0)),
        ("(f(x) - 1) (y - 1)", bent, ((2.0, 2.0), (-1.0, 0.0), (0.5, 2.0)), (1.0, 1.0)),
    ):
        ours, plain = (
            [game(gradient, x, y, best, weight) for x, y in starts] for weight in (WEIGHT, 0.0)
        )
        at = ", ".join(f"({x:g}, {y:g})" for x, y in starts)
        found.append(
            Claim(
                f"min_x max_y {name}: with historical averaging, {TURNS} turns from {at} end "
                f"within 1% of the start's distance to {best}",
                "section 3.3 in words",
                "/".join(f"{v:.1e}" for v in ours),
                f"{_text(plain)} without",
                "of the start",
                max(ours) < 0.01,
            )
        )
    return found


def _virtual_batch_norm() -> Claim:
    changes = {
        norm: [batch_dependence(norm, seed) for seed in SEEDS] for norm in ("virtual", "batch")
    }
    return Claim(
        "virtual batch norm: a generated image does not depend on the others of its batch; largest "
        "change of a pixel when they change",
        "section 3.4 in words",
        "/".join(f"{v:.0e}" for v in changes["virtual"]),
        f"{_text(changes['batch'])} batch norm",
        "of [-1, 1]",
        max(changes["virtual"]) < 1e-5 and min(changes["batch"]) > 1e-2,
    )


def batch_dependence(norm: str, seed: int) -> float:
    """Largest change of 4 images when the 12 others of their batch are others."""
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", None, 64, 9, 9)
    model = gan.build(gan.HParams(norm=norm, filters=16, seed=seed), spec)
    kept, *others = (model.draw_latents(n, tf.constant([seed, n])) for n in (4, 12, 13))
    first, second = (
        model.generator(tf.concat([kept, other], axis=0), training=True)[:4] for other in others
    )
    return float(tf.reduce_max(tf.abs(first - second)))


def _label_smoothing() -> Claim:
    errors = [smoothed_optimum_error(seed) for seed in SEEDS]
    return Claim(
        "label smoothing: the best D on 20 points is 0.9 p_r / (p_r + p_g): largest error",
        "section 3.4 (D's optimum)",
        "/".join(f"{e:.0e}" for e in errors),
        "1e-3",
        "probability",
        max(errors) < 1e-3,
    )


def smoothed_optimum_error(seed: int) -> float:
    """Largest |D - 0.9 p_r / (p_r + p_g)| of a D with one logit a point, trained to its optimum."""
    random = np.random.RandomState(seed)
    real, fake = (tf.constant(random.dirichlet(np.ones(20)), tf.float32) for _ in range(2))
    loss_of = adversarial.objective("non_saturating", positive_label=0.9).discriminator
    logits = tf.Variable(tf.zeros(20))

    @tf.function
    def train() -> None:
        for _ in tf.range(2000):
            with tf.GradientTape() as tape:
                # The loss is separate in its arguments: E_r and E_g are sums over the points.
                zero = tf.zeros_like(logits)
                on_real = loss_of(logits, zero) - loss_of(zero, zero)
                on_fake = loss_of(zero, logits) - loss_of(zero, zero)
                loss = tf.reduce_sum(real * on_real + fake * on_fake)
            # A Newton step by the diagonal of the Hessian, (p_r + p_g) D (1 - D), damped.
            d = tf.sigmoid(logits)
            bend = (real + fake) * d * (1 - d)
            logits.assign_sub(0.1 * tape.gradient(loss, logits) / (bend + 1e-6))

    train()
    wanted = 0.9 * real / (real + fake)
    return float(tf.reduce_max(tf.abs(tf.sigmoid(logits) - wanted)))


def _values(outcomes: dict[str, Outcome], start: str, measure: str) -> list[float]:
    names = [f"{start}_seed{seed}" for seed in SEEDS]
    return [outcomes[name].value(measure) for name in names if name in outcomes]


def _text(values: list[float]) -> str:
    return "/".join(f"{v:.3g}" for v in values)


def _percent(values: list[float]) -> str:
    return "/".join(f"{100 * v:.2f}" for v in values)
