"""What Arjovsky et al. 2017 claim of the WGAN, measured.

A critic on the lecture's parallel lines, whose distances are in `metrics_distances`; how the
critic's estimate follows sample quality on the digits; and the modes of stacked MNIST that a dense
generator covers, both beside the GAN. By Glorot's weights, which are no rows any more, its images
hardly differed at first, and after 3,000 steps WGAN's were noise of 12 modes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage, stats

from tfgen import commands, hparams
from tfgen.metrics import comparison
from tfgen.metrics.measure import Measure, Settings
from tfgen.models.gan import gan, wgan
from tfgen.networks.mlp import mlp
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run, Toy
from tools.claims._common import SEEDS, text, values

THETAS = np.linspace(-1.0, 1.0, 11)
PAIR = ("wgan", "gan")
STEPS, EVERY = 3000, 30  # of G in the trajectories; points of each
DRAWS = 4  # of latents for each batch of test images


@dataclasses.dataclass(frozen=True)
class _NoOptions:
    """Only hyperparameters are read."""


def rows(budget: str) -> list[Run | Toy]:
    """The toys, and stacked MNIST by a dense generator, on three seeds."""
    del budget  # there is one
    lines = [Toy(f"lines_seed{seed}", critic_on_lines, {"steps": 1000}, seed) for seed in SEEDS]
    trajectories = [
        Toy(f"{name}_trajectory_seed{seed}", estimate_follows_quality,
            {"name": name, "steps": STEPS}, seed)
        for name in PAIR
        for seed in SEEDS
    ]  # fmt: skip
    runs = [
        Run(
            f"{name}_stacked_mnist_seed{seed}",
            f"{name}_stacked_mnist.cfg",
            (f"--seed={seed}",),
            ("--num_samples=25600",),
            seed,
        )
        for name in PAIR
        for seed in SEEDS
    ]
    return [*lines, *trajectories, *runs]


def critic_gives_the_distance(outcomes: Outcomes) -> Claim:
    """Parallel lines: a clipped critic gives |theta| up to a constant."""
    (toys,) = outcomes.by_seed("lines", seeds=SEEDS)
    correlations = values(toys, "correlation")
    return Claim(
        "parallel lines: a clipped critic trained to convergence gives |theta| up to a "
        "constant: correlation",
        "example 1, theorem 3",
        text(correlations, ".5f"),
        "0.99",
        "",
        min(correlations) > 0.99,
    )


def estimate_follows_fid(outcomes: Outcomes) -> Claim:
    """digits: the critic's estimate follows FID better than the GAN's estimate of JS does."""
    groups = outcomes.by_seed(*(f"{name}_trajectory" for name in PAIR), seeds=SEEDS)
    ours, theirs = (values(group, "rank_correlation") for group in groups)
    return Claim(
        f"digits: Spearman correlation of the critic's estimate with FID over {STEPS} steps of G, "
        "beside that of the GAN's estimate of the JS divergence",
        "figures 3 and 4",
        text(ours, ".2f"),
        text(theirs, ".2f"),
        "rank correlation",
        all(a > b for a, b in zip(ours, theirs, strict=True)),
    )


def more_modes(outcomes: Outcomes) -> Claim:
    """Stacked MNIST, dense generator: modes covered."""
    groups = outcomes.by_seed(*(f"{name}_stacked_mnist" for name in PAIR), seeds=SEEDS)
    ours, theirs = (values(group, "modes_covered") for group in groups)
    fid = [[outcome.value_starting("fid_") for outcome in group] for group in groups]
    return Claim(
        "stacked MNIST, dense generator of 4 x 512: more of the 1000 modes covered and a lower FID "
        "by the classifier's features, on each seed",
        "figure 7 in spirit",
        f"{text(ours)} ({text(fid[0], '.4g')})",
        f"{text(theirs)} ({text(fid[1], '.4g')})",
        "modes",
        all(a > b for a, b in zip(ours, theirs, strict=True))
        and all(a < b for a, b in zip(*fid, strict=True)),
    )


CLAIMS = (critic_gives_the_distance, estimate_follows_fid, more_modes)

# Stacked digits of both.
PICTURES = _gallery.grids({"stacked_mnist": [f"{name}_stacked_mnist_seed0" for name in PAIR]})


def critic_on_lines(seed: int, steps: int) -> dict[str, Measure]:
    """Correlation over theta of |theta| with a clipped critic's estimate on the two lines."""
    estimates = [_critic(float(theta), seed, steps) for theta in THETAS]
    correlation = float(np.corrcoef(np.abs(THETAS), estimates)[0, 1])
    note = f"of |theta| and the critic's estimate, {len(THETAS)} thetas"
    return {"correlation": Measure(correlation, None, "", note)}


def _critic(theta: float, seed: int, steps: int) -> float:
    """E f(x) - E f(G(z)) after training f with clipped weights on the two lines."""
    # A clipped ReLU that is dead stays so, and the critic below its optimum: 0.98.
    critic = mlp((2,), (64, 64), (1,), activation="leaky_relu", output_bias=False, seed=seed)
    for variable in critic.trainable_variables:
        variable.constraint = wgan.Clip(0.1)
        variable.assign(variable.constraint(variable))
    optimizer = keras.optimizers.RMSprop(1e-3)
    optimizer.build(critic.trainable_variables)

    def lines(number: tf.Tensor, rows: int) -> tuple[tf.Tensor, tf.Tensor]:
        y = tf.random.stateless_uniform([2, rows, 1], tf.stack([seed, number]))
        first = tf.concat([tf.zeros([rows, 1]), y[0]], 1)
        return first, tf.concat([theta * tf.ones([rows, 1]), y[1]], 1)

    @tf.function
    def train() -> None:
        for number in tf.range(steps):
            first, second = lines(number, 256)
            with tf.GradientTape() as tape:
                gap = tf.reduce_mean(critic(second, training=True)) - tf.reduce_mean(
                    critic(first, training=True)
                )
            variables = critic.trainable_variables
            optimizer.apply(tape.gradient(gap, variables), variables)

    train()
    first, second = lines(tf.constant(-1), 4096)
    return float(tf.reduce_mean(critic(first)) - tf.reduce_mean(critic(second)))


def estimate_follows_quality(name: str, steps: int, seed: int) -> dict[str, Measure]:
    """Spearman correlation over a training on digits of minus D's loss with FID.

    The loss is of images that are not trained on, median-filtered; minus it estimates W_1 up to a
    constant for the critic, and is 2 JS - 2 log 2 for the discriminator of a GAN, both at the
    best D.
    """
    flags = [f"--flagfile=configs/{name}_digits.cfg", f"--seed={seed}", f"--steps={steps}"]
    system, hp, _ = hparams.parse(["", *flags], _NoOptions)
    digits = commands.load_data(hp, None, "fail")
    model = hparams.load_system(system).build(hp, digits.spec)
    stream = iter(digits.train(hp.batch_size, seed=hp.seed))
    held_out = [
        batch["image"]
        for batch in digits.batches("test", hp.batch_size)
        if len(batch["image"]) == hp.batch_size  # D judges a batch by its own statistics
    ] * DRAWS
    loss_on = tf.function(functools.partial(held_out_loss, model))
    settings = Settings(num_samples=1000, seed=seed)
    estimates, fids = [], []
    for point in range(EVERY):
        model.run_steps(stream, steps // EVERY)
        with unmoved(model):
            first = len(held_out) * point
            losses = [
                loss_on(real, tf.constant([seed, first + i])) for i, real in enumerate(held_out)
            ]
        estimates.append(-float(np.mean(losses)))
        fids.append(next(iter(comparison.compare(model, digits, settings).fid().values())).value)
    rho = float(stats.spearmanr(smoothed(estimates), fids).statistic)
    note = f"Spearman's, of minus D's loss and FID at {EVERY} points of {steps} steps of G"
    return {"rank_correlation": Measure(rho, None, "rank correlation", note)}


def held_out_loss(model: gan.GAN, real: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """D's loss on images and as many fakes of a seed, both networks as they are in training."""
    latents = model.draw_latents(tf.shape(real)[0], seed)
    fake = tf.cast(model.generator(latents, training=True), tf.float32)
    return tf.reduce_mean(model.losses_of.discriminator(model.judge(real), model.judge(fake)))


@contextlib.contextmanager
def unmoved(model: keras.Model) -> Iterator[None]:
    """Within it the model may run as in training; the means of its batch norms are put back."""
    variables = model.non_trainable_variables
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def smoothed(estimates: Sequence[float]) -> np.ndarray:
    """Medians of five; at the ends the first and the last are repeated."""
    return ndimage.median_filter(np.asarray(estimates), 5, mode="nearest")
