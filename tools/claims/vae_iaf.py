"""What Kingma et al. 2016 claim of inverse autoregressive posteriors, measured.

Paper, MNIST, ResNets (table 1): VLB and log p(x): diagonal -84.08 and -81.08; IAF of depth 8 and
width 1920 -80.80 and -79.10. Figure 1: a toy of four points.
"""

import functools
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfgen.metrics.measure import Measure
from tfgen.models.vae import vae
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run, Toy
from tools.claims._common import parameters, seeds_of, sizes, text, values

measure = parameters
TOY_SEEDS = (0, 1, 2, 3, 4)  # the toy can stick, so the best of several
POSTERIORS = ("gaussian", "iaf")
PAPER = {"elbo": "-80.80 > -84.08", "nll": "79.10 < 81.08"}
POINTS = np.eye(4, dtype=np.float32).reshape(4, 2, 2, 1)


def rows(budget: str) -> list[Run | Toy]:
    """The toy, digits and MNIST, by both posteriors."""
    del budget  # there is one
    toys = [
        Toy(f"four_points_{posterior}_seed{s}", four_points, {"posterior": posterior}, s)
        for posterior in POSTERIORS
        for s in TOY_SEEDS
    ]
    runs = [
        Run(
            f"{posterior}_{data}_seed{s}",
            f"iaf_{data}.cfg",
            (f"--posterior={posterior}", f"--seed={s}"),
            ("--k=1000",),
            s,
        )
        for data in ("digits", "mnist")
        for posterior in POSTERIORS
        for s in seeds_of(data)
    ]
    return [*toys, *runs]


def toy(outcomes: Outcomes) -> Claim:
    """Four points: the bound of an IAF posterior is above a diagonal Gaussian's."""
    groups = outcomes.by_seed(*(f"four_points_{p}" for p in POSTERIORS), seeds=TOY_SEEDS)
    plain, ours = (values(group, "elbo") for group in groups)
    return Claim(
        "four points, ELBO by an IAF posterior above that of a diagonal Gaussian, best of "
        f"{len(TOY_SEEDS)} seeds; log p(x) is {-np.log(4):.3f} at most",
        "figure 1",
        f"{max(ours):.4f} ({text(ours, '.3f')})",
        f"{max(plain):.4f} ({text(plain, '.3f')})",
        "nats",
        max(ours) > max(plain),
    )


def better(outcomes: Outcomes, data: str, bound: str) -> Claim:
    """An IAF posterior is better than a diagonal one by the same networks."""
    groups = outcomes.by_seed(*(f"{p}_{data}" for p in POSTERIORS), seeds=seeds_of(data))
    plain, ours = (values(group, bound) for group in groups)
    sign = 1 if bound == "elbo" else -1
    diagonal, flow = sizes(*groups)
    return Claim(
        f"{data}: {bound.upper()} by an IAF posterior ({flow}) {'above' if sign > 0 else 'below'} "
        f"that of a diagonal one ({diagonal}), the same encoder and decoder",
        PAPER[bound] if data == "mnist" else "",
        text(ours, ".4g"),
        text(plain, ".4g"),
        "nats",
        min(sign * v for v in ours) > max(sign * v for v in plain),
    )


CLAIMS = (
    toy,
    *(
        functools.partial(better, data=data, bound=bound)
        for data in ("digits", "mnist")
        for bound in ("elbo", "nll")
    ),
)


def picture(outcomes: Outcomes, path: pathlib.Path) -> None:
    """The figure's three panels, draws of prior and both posteriors; and samples of digits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    runs = outcomes.groups([f"{posterior}_digits_seed0" for posterior in POSTERIORS])[0]
    images = [_gallery.newest(run) for run in runs]
    figure, axes = plt.subplots(1, 5, figsize=(17, 3.6))
    models = {}
    for posterior in POSTERIORS:
        (group,) = outcomes.by_seed(f"four_points_{posterior}", seeds=TOY_SEEDS)
        models[posterior] = trained(posterior, int(np.argmax(values(group, "elbo"))))
    draws = models["iaf"].prior.distribution().sample(4000, seed=[0, 0]).numpy()
    axes[0].scatter(*draws.T, s=1, color="0.4")
    axes[0].set_title("prior")
    for axis, posterior in zip(axes[1:3], POSTERIORS, strict=True):
        draws = models[posterior].posterior(0, tf.constant(POINTS)).sample(1000, seed=[0, 1])
        for point in range(4):
            axis.scatter(*draws[:, point].numpy().T, s=1)
        axis.set_title(f"posteriors of four points, {posterior}")
    for axis in axes[:3]:
        axis.set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
    for axis, image, posterior in zip(axes[3:], images, POSTERIORS, strict=True):
        _gallery.show(axis, image, f"samples, {posterior} posterior")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


PICTURES = {"": picture}


def four_points(posterior: str, seed: int) -> dict[str, Measure]:
    """The ELBO of a VAE with two latents on four one-hot images, by 4000 draws each."""
    model = trained(posterior, seed)
    terms = model.importance_terms(tf.constant(POINTS), 4000, tf.constant([seed, 1]))
    return {"elbo": Measure.mean(terms["log_weight"].numpy().ravel(), "nats", "16,000 draws")}


def trained(posterior: str, seed: int, epochs: int = 60) -> vae.VAE:
    """A VAE of the toy: 6000 steps of Adam on 128 draws."""
    hp = vae.HParams(
        latent_dims=(2,), hidden_units=(64,), posterior=posterior, flow_blocks=4,
        flow_hidden_units=(64,), flow_context=16, analytic_kl=False, seed=seed,
    )  # fmt: skip
    model = vae.VAE(**vae.slots(hp, (2, 2, 1)), analytic_kl=False)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, 100 * epochs)
    model.compile(keras.optimizers.Adam(rate), seed=seed, steps_per_execution=50)
    model.fit(np.tile(POINTS, (32 * 100, 1, 1, 1)), batch_size=128, epochs=epochs, verbose=0)
    return model
