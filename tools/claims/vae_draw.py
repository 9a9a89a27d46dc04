"""What Gregor et al. 2015 claim of DRAW, measured.

Paper, MNIST, 64 glimpses, bound in nats: 80.97, without attention 87.40. A public re-run with few
glimpses: 134.5 by 1, 105.0 by 5. Attention is for images much larger than
what is on them: digits placed anywhere on a canvas; on centred ones it is a restraint.
"""

import functools
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfgen.layers.gaussian_attention import gaussian_filters
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run
from tools.claims._common import parameters, sizes, text, values

measure = parameters
SEEDS = (0, 1, 2)
MODES = {"attention": "true", "none": "false"}
GLIMPSES = (1, 5, 10)  # On MNIST, without attention; the last of them with it as well.


def rows(budget: str) -> list[Run]:
    """Centred and placed digits with and without attention; MNIST by some numbers of glimpses."""
    del budget  # there is one
    small = [
        Run(
            f"{mode}_{data}_seed{s}",
            f"draw_{data}.cfg",
            (f"--attention={flag}", f"--seed={s}"),
            ("--k=100",),
            s,
        )
        for data in ("digits", "placed_digits")
        for mode, flag in MODES.items()
        for s in SEEDS
    ]
    mnist = [
        Run(
            f"{mode}_mnist_glimpses{glimpses}",
            "draw_mnist.cfg",
            (f"--attention={MODES[mode]}", f"--glimpses={glimpses}"),
            ("--k=50", "--limit=2000"),
        )
        for mode, glimpses in [*(("none", g) for g in GLIMPSES), ("attention", GLIMPSES[-1])]
    ]
    return [*small, *mnist]


def filters(outcomes: Outcomes) -> Claim:
    """The filters are the paper's formula."""
    del outcomes  # by numbers
    error, (window, size) = 0.0, (5, 28)
    for centre, stride, variance in ((14.5, 6.75, 1.0), (3.2, 0.4, 0.3), (40.0, 2.0, 9.0)):
        numbers = (tf.constant([number]) for number in (centre, stride, variance))
        found = gaussian_filters(*numbers, window, size)[0].numpy()
        for i in range(1, window + 1):
            mu = centre + (i - window / 2 - 0.5) * stride
            row = [np.exp(-((a - mu) ** 2) / (2 * variance)) for a in range(1, size + 1)]
            error = max(error, float(abs(found[i - 1] - row / np.sum(row)).max()))
    return Claim(
        "filters against mu_i = g + (i - N/2 - 0.5) delta and normalised rows: largest difference",
        "eq. 19, 25",
        f"{error:.1e}",
        "1e-5",
        "",
        error < 1e-5,
    )


def falls(outcomes: Outcomes) -> Claim:
    """MNIST: the bound falls with the number of glimpses."""
    (group,) = outcomes.groups([f"none_mnist_glimpses{g}" for g in GLIMPSES])
    found = _bounds(group)
    return Claim(
        f"mnist, no attention: bound on -log p(x) by {text(GLIMPSES, 'd')} glimpses, falling",
        "134.5/105.0 by 1/5 (a public re-run); 87.40 by 64",
        text(found, ".4g"),
        "",
        "nats",
        found == sorted(set(found), reverse=True),
    )


def mnist(outcomes: Outcomes) -> Claim:
    """MNIST: the bound with attention is below that without."""
    names = (f"{mode}_mnist_glimpses{GLIMPSES[-1]}" for mode in MODES)
    return _ahead(f"mnist, {GLIMPSES[-1]} glimpses", "80.97 < 87.40", *outcomes.groups(
        *([name] for name in names)
    ))  # fmt: skip


def placed(outcomes: Outcomes) -> Claim:
    """Small digits anywhere on a large canvas: attention is ahead."""
    groups = outcomes.by_seed(*(f"{mode}_placed_digits" for mode in MODES), seeds=SEEDS)
    return _ahead("digits of 8x8 anywhere on 32x32", "", *groups)


def centred(outcomes: Outcomes) -> Claim:
    """Centred digits, which fill their images: attention is behind."""
    groups = outcomes.by_seed(*(f"{mode}_digits" for mode in MODES), seeds=SEEDS)
    ours, plain = (_bounds(group) for group in groups)
    return Claim(
        f"digits that fill their images: {_compared(*groups)}, attention behind",
        "",
        text(ours, ".4g"),
        text(plain, ".4g"),
        "nats",
        min(ours) > max(plain),
    )


CLAIMS = (filters, falls, mnist, placed, centred)


def drawn(outcomes: Outcomes, path: pathlib.Path, names: Sequence[str]) -> None:
    """Canvases over the glimpses, a sample a row; those of the first row move in a GIF beside."""
    runs, *_ = outcomes.groups(names)
    gif = sorted((runs[0].path / "samples").glob("drawing-*.gif"))[-1]
    _gallery.samples(runs, path, "canvases")
    shutil.copyfile(gif, path.with_suffix(".gif"))


_DRAWN = {
    "digits": [f"{mode}_digits_seed0" for mode in MODES],
    "placed_digits": [f"{mode}_placed_digits_seed0" for mode in MODES],
    "mnist": [f"attention_mnist_glimpses{GLIMPSES[-1]}"],
}
PICTURES = {part: functools.partial(drawn, names=names) for part, names in _DRAWN.items()}


def _ahead(data: str, paper: str, attention: Sequence[Outcome], none: Sequence[Outcome]) -> Claim:
    ours, plain = _bounds(attention), _bounds(none)
    return Claim(
        f"{data}: {_compared(attention, none)}, attention ahead",
        paper,
        text(ours, ".4g"),
        text(plain, ".4g"),
        "nats",
        max(ours) < min(plain),
        f"where the KL of attention is near 0 (nats a seed: {text(values(attention, 'kl'))}) its "
        "window has not found the digits in the whole training",
    )


def _compared(attention: Sequence[Outcome], none: Sequence[Outcome]) -> str:
    ours, plain = sizes(attention, none)
    return f"bound on -log p(x) by attention ({ours}) and without ({plain})"


def _bounds(outcomes: Sequence[Outcome]) -> list[float]:
    return [-value for value in values(outcomes, "elbo")]
