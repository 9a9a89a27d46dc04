"""What Salimans et al. 2016 claim of each trick, and of classifying with 100 labels, measured.

The tricks are flags of `gan.gan`: minibatch discrimination and feature matching are tried on the
grid, the others on the paper's toy games and on networks at their start. The semi-supervised
classifier is tried on MNIST, beside the same network trained on the same labels alone.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.layers.historical_average import HistoricalAverage
from tfgen.losses import adversarial
from tfgen.metrics.measure import Measure
from tfgen.models.gan import gan
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run, Toy
from tools.claims._common import SEEDS, clearly_above, each, seeds_of, text, values

BATCH = "--batch_size=64"  # of all three: minibatch discrimination takes its square's time
ON_GRID = {
    "plain": (),
    "minibatch": ("--minibatch_kernels=16", "--minibatch_kernel_dim=4"),
    "features": ("--feature_matching_layer=hidden_2", "--adversarial_weight=0"),
}
ON_MNIST = {"semi_supervised": (), "supervised": ("--unsupervised_weight=0",)}
TURNS, RATE = 10_000, 0.1  # of the toy games
AVERAGING = {"averaged": 0.1, "plain": 0.0}  # weight of historical averaging in them


def rows(budget: str) -> list[Run | Toy]:
    """The games, the grid by three generators' losses, MNIST with and without unlabelled ones."""
    del budget  # there is one
    games = [
        Toy(f"game_{name}_{averaging}", play_game, {"name": name, "weight": weight})
        for name in GAMES
        for averaging, weight in AVERAGING.items()
    ]
    return games + [
        Run(f"{name}_{data}_seed{seed}", flagfile, (*flags, f"--seed={seed}"), (), seed)
        for data, flagfile, kinds in (
            ("grid25", "gan_grid25.cfg", {kind: (BATCH, *f) for kind, f in ON_GRID.items()}),
            ("mnist", "improved_mnist.cfg", ON_MNIST),
        )
        for seed in seeds_of(data)
        for name, flags in kinds.items()
    ]


def more_modes(outcomes: Outcomes) -> Claim:
    """grid25: minibatch discrimination covers more modes."""
    groups = outcomes.by_seed(*(f"{kind}_grid25" for kind in ON_GRID), seeds=SEEDS)
    of = dict(zip(ON_GRID, groups, strict=True))

    def told(kind: str) -> str:
        modes, quality, kl = (
            text(values(of[kind], m)) for m in ("modes_covered", "high_quality", "mode_reverse_kl")
        )
        return f"{modes} ({quality}; {kl})"

    ours, plain = (values(of[kind], "modes_covered") for kind in ("minibatch", "plain"))
    return Claim(
        "grid25: minibatch discrimination covers more modes, the means over seeds being over two "
        "standard errors apart (share of samples within 3 sigma; KL(modes || uniform) behind them)",
        "section 3.2 in words",
        told("minibatch"),
        f"{told('plain')} plain; {told('features')} feature matching",
        "modes of 25",
        clearly_above(ours, plain),
        "one of three seeds covers fewer, and few samples are near a mode: D tells a batch by how "
        "close its points are, which G meets by a smear of the right spread. In trials of one "
        "seed, which are no rows, smaller steps, smoothing, fewer kernels, a decay, a hinge loss, "
        "points of unit deviation and a D of a tenth of G's step gave 16 to 25 modes, but no more "
        "than 5 with a fifth of their share of the samples; the plain GAN had 8, and 12 with "
        "points of unit deviation.",
    )


def game_is_solved(outcomes: Outcomes, name: str) -> Claim:
    """With historical averaging a game's players end at its equilibrium, without they do not."""
    game = GAMES[name]
    (toys,) = outcomes.groups([f"game_{name}_{averaging}" for averaging in AVERAGING])
    ours, plain = ([toy.value(_from(x, y)) for x, y in game.starts] for toy in toys)
    at = ", ".join(f"({x:g}, {y:g})" for x, y in game.starts)
    return Claim(
        f"min_x max_y {game.value}: with historical averaging, {TURNS} turns from {at} end "
        f"within 1% of the start's distance to {game.best}, without it beyond 10%",
        "section 3.3 in words",
        text(ours, ".1e"),
        f"{text(plain)} without",
        "of the start",
        max(ours) < 0.01 and min(plain) > 0.1,
    )


def virtual_batch_norm(outcomes: Outcomes) -> Claim:
    """Virtual batch norm: a generated image does not depend on the others of its batch."""
    del outcomes  # seconds
    changes = {
        norm: [batch_dependence(norm, seed) for seed in SEEDS] for norm in ("virtual", "batch")
    }
    return Claim(
        "virtual batch norm: a generated image does not depend on the others of its batch; largest "
        "change of a pixel when they change",
        "section 3.5 in words",
        text(changes["virtual"], ".0e"),
        f"{text(changes['batch'])} batch norm",
        "of [-1, 1]",
        max(changes["virtual"]) < 1e-5 and min(changes["batch"]) > 1e-2,
    )


def label_smoothing(outcomes: Outcomes) -> Claim:
    """Label smoothing: the best D on 20 points is 0.9 p_r / (p_r + p_g)."""
    del outcomes  # seconds
    errors = [smoothed_optimum_error(seed) for seed in SEEDS]
    return Claim(
        "label smoothing: the best D on 20 points is 0.9 p_r / (p_r + p_g): largest error",
        "section 3.4 (D's optimum)",
        text(errors, ".0e"),
        "1e-3",
        "probability",
        max(errors) < 1e-3,
    )


def few_labels(outcomes: Outcomes) -> Claim:
    """MNIST with 100 labels: test error below 4%."""
    groups = outcomes.by_seed(*(f"{kind}_mnist" for kind in ON_MNIST), seeds=seeds_of("mnist"))
    error, plain = (values(group, "classification_error") for group in groups)
    return Claim(
        f"MNIST with 100 labels: test error below 4%, {each(seeds_of('mnist'))}",
        "0.93% after 300 epochs",
        _percent(error),
        _percent(plain) + " by the 100 labels alone",
        "%",
        max(error) < 0.04,
    )


# Samples of each.
PICTURES = _gallery.grids(
    {
        "grid25": [f"{kind}_grid25_seed0" for kind in ON_GRID],
        "mnist": ["semi_supervised_mnist_seed0"],
    }
)


# Historical averaging on games of two numbers, players in turn.


@dataclasses.dataclass(frozen=True)
class Game:
    """A game of two numbers; x minimises its value and y maximises it.

    Attributes:
        value: v(x, y) in words.
        gradient: (x, y) -> (d v / d x, d v / d y).
        starts: pairs (x, y).
        best: the equilibrium.
    """

    value: str
    gradient: Callable
    starts: tuple[tuple[float, float], ...]
    best: tuple[float, float]


def play_game(name: str, weight: float, seed: int) -> dict[str, Measure]:
    """Distances to a game's equilibrium after all turns from each of its starts."""
    del seed  # nothing is drawn
    game = GAMES[name]
    note = f"distance to the equilibrium after {TURNS} turns"
    return {
        _from(x, y): Measure(_played(game, x, y, weight), None, "of the start", note)
        for x, y in game.starts
    }


def _played(game: Game, x: float, y: float, weight: float) -> float:
    """Distance to the equilibrium after all turns, as a part of that at the start.

    Args:
        game: the game.
        x: the start.
        y: the start.
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
                slope = sign * game.gradient(*players)[index] + pull
                players[index].assign_sub(RATE * slope)
                past[index].update()

    play()
    end = np.hypot(*(float(p) - b for p, b in zip(players, game.best, strict=True)))
    return float(end / np.hypot(x - game.best[0], y - game.best[1]))


def bilinear(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of v = x y."""
    return y, x


def bent(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of v = (f(x) - 1) (y - 1), f(x) = x for x < 0, else x^2."""
    f, slope = tf.where(x < 0, x, x**2), tf.where(x < 0, 1.0, 2 * x)
    return slope * (y - 1), f - 1


GAMES = {
    "bilinear": Game("x y", bilinear, ((1.0, 1.0), (-2.0, 0.5), (0.0, 3.0)), (0.0, 0.0)),
    "bent": Game(
        "(f(x) - 1) (y - 1)", bent, ((2.0, 2.0), (-1.0, 0.0), (0.5, 2.0)), (1.0, 1.0)
    ),
}  # fmt: skip


def _from(x: float, y: float) -> str:
    return f"from_{x:g}_{y:g}"


def batch_dependence(norm: str, seed: int) -> float:
    """Largest change of 4 images when the 12 others of their batch are others."""
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", None, 64, 9, 9)
    model = gan.build(gan.HParams(norm=norm, filters=16, seed=seed), spec)
    kept, *others = (model.draw_latents(n, tf.constant([seed, n])) for n in (4, 12, 13))
    first, second = (
        model.generator(tf.concat([kept, other], axis=0), training=True)[:4] for other in others
    )
    return float(tf.reduce_max(tf.abs(first - second)))


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


def _percent(values: list[float]) -> str:
    return "/".join(f"{100 * v:.2f}" for v in values)


CLAIMS = (
    more_modes,
    *(functools.partial(game_is_solved, name=name) for name in GAMES),
    virtual_batch_norm,
    label_smoothing,
    few_labels,
)
