"""What Larsen et al. 2016 claim of a VAE whose errors a discriminator measures, by numbers.

The paper shows it by pictures (figure 3: VAE, VAE_Dis_l, VAE/GAN, GAN) and by attributes; here it
is FID, with the VAE of the same encoder and decoder beside it, trained by the ELBO with pixels.
"""

import functools
import pathlib

from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run
from tools.claims._common import SEEDS, text

DATA = ("digits", "mnist")
FORMS = {"vae": "VAE", "vae_dis": "VAE_Dis-l", "vae_gan": "VAE/GAN", "gan": "GAN"}


def rows(budget: str) -> list[Run]:
    """VAE/GAN and VAE on each seed, the other columns on the first."""
    del budget  # there is one
    return [
        Run(
            f"{form}_{data}_seed{seed}",
            f"vae_gan_{data}.cfg",
            (f"--form={form}", f"--seed={seed}"),
            (),
            seed,
        )
        for data in DATA
        for seed in SEEDS
        for form in FORMS
        if form in ("vae", "vae_gan") or seed == SEEDS[0]
    ]


def better(outcomes: Outcomes, data: str) -> Claim:
    """FID below that of the VAE of the same size, on each seed."""
    groups = outcomes.by_seed(f"vae_gan_{data}", f"vae_{data}", seeds=SEEDS)
    ours, plain = ([o.value_starting("fid_") for o in group] for group in groups)
    return Claim(
        f"{data}: FID of samples below that of the VAE of the same size",
        "figure 3, by pictures",
        text(ours),
        text(plain),
        "squared features",
        max(ours) < min(plain),
        "on one seed a fifth of the prior's samples have the same artefact. A linear decay and a "
        "moving average of the weights did not mend it."
        if data == "digits"
        else "",
    )


CLAIMS = tuple(functools.partial(better, data=data) for data in DATA)


def columns(outcomes: Outcomes, path: pathlib.Path, data: str) -> None:
    """The paper's four columns: samples above, reconstructions below where there is an encoder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    (found,) = outcomes.groups([f"{form}_{data}_seed0" for form in FORMS])
    figure, axes = plt.subplots(2, 4, figsize=(16, 5.2), height_ratios=(4, 1))
    for (form, title), outcome, (above, below) in zip(FORMS.items(), found, axes.T, strict=True):
        _gallery.show(above, _gallery.newest(outcome), title)
        below.axis("off")
        if form != "gan":
            _gallery.show(below, _gallery.newest(outcome, "reconstructions"), "images, rebuilt")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


PICTURES = {data: functools.partial(columns, data=data) for data in DATA}
