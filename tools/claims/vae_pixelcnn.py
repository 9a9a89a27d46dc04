"""What van den Oord et al. 2016 claim of PixelCNNs, measured.

Paper, MNIST, binarised: PixelCNN, not gated, 81.30 nats (2016a, table 4). Gated layers are above
those of a PixelCNN on CIFAR-10, 3.03 against 3.14 bits per dimension (2016b, table 1).
"""

import functools
import time

import numpy as np
import tensorflow as tf

from tfgen.metrics.measure import Measure
from tfgen.networks.pixelcnn import PixelCNNNetwork
from tools.claims import _gallery
from tools.claims._base import Claim, Outcomes, Run, Toy
from tools.claims._common import parameters, seeds_of, sizes, text, values

measure = parameters
DATA = ("digits", "mnist")
FORMS = ("gated", "ungated")
WIDTHS = {"digits": 48, "mnist": 98}  # Filters by which residual blocks have as many weights.
DRAWN = 64  # Images at once.


def rows(budget: str) -> list[Run | Toy]:
    """Digits and MNIST by both forms, and the time of a draw."""
    del budget  # there is one
    found: list[Run | Toy] = [
        Run(
            f"{form}_{data}_seed{s}",
            f"pixelcnn_{data}.cfg",
            (*_flags(form, data), f"--seed={s}"),
            (),
            s,
        )
        for data in DATA
        for form in FORMS
        for s in seeds_of(data)
    ]
    return [*found, *(Toy(f"{form}_draws", draws, {"gated": form == "gated"}) for form in FORMS)]


def _flags(form: str, data: str) -> tuple[str, ...]:
    return () if form == "gated" else ("--gated=false", f"--filters={WIDTHS[data]}")


def better(outcomes: Outcomes, data: str) -> Claim:
    """The gated form is above the ungated one, which has a blind spot."""
    groups = outcomes.by_seed(*(f"{form}_{data}" for form in FORMS), seeds=seeds_of(data))
    ours, plain = (values(group, "nll") for group in groups)
    gated, ungated = sizes(*groups)
    return Claim(
        f"{data}: NLL of the gated form ({gated}) below that of masked residual blocks ({ungated})",
        "81.30 ungated" if data == "mnist" else "",
        text(ours, ".4g"),
        text(plain, ".4g"),
        "nats",
        max(ours) < min(plain),
        "its lead over blocks of as many channels, which have fewer weights and are no rows any "
        "more, is gone where they have as many; what blind spot they leave in so small images does "
        "not show"
        if data == "digits"
        else "",
    )


def fast(outcomes: Outcomes, form: str) -> Claim:
    """Draws that keep activations are 5 times faster than a pass for each pixel."""
    found = outcomes[f"{form}_draws"]
    kept, plain = found.value("kept"), found.value("plain")
    return Claim(
        f"28x28 pixels, {form}, {DRAWN} at once: draws that keep activations, 5 times the plain "
        "loop's rate at least",
        "",
        f"{kept:.3g}",
        f"{plain:.3g}",
        "images/s",
        kept >= 5 * plain,
    )


CLAIMS = (
    *(functools.partial(better, data=data) for data in DATA),
    *(functools.partial(fast, form=form) for form in FORMS),
)

# Samples of both forms.
PICTURES = _gallery.grids({data: [f"{form}_{data}_seed0" for form in FORMS] for data in DATA})


def draws(seed: int, gated: bool, repeats: int = 5) -> dict[str, Measure]:
    """Images a second of both ways to draw, the graphs being made.

    The plain loop takes minutes, all of it passes of the network, so one pass is timed: its rate is
    reckoned from 784 of them, without what the loop itself costs.
    """
    network = PixelCNNNetwork((28, 28, 1), gated=gated, seed=seed)
    key = tf.constant([seed, 0])
    images = tf.zeros([DRAWN, 28, 28, 1], tf.int32)
    one_pass = tf.function(lambda x: network(network.embed(x)), autograph=False)

    works = {"kept": lambda: network.draw(DRAWN, key), "plain": lambda: one_pass(images)}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            np.asarray(work())
            if turn:  # the first makes the graph
                times[name].append(time.perf_counter() - begun)
    kept, plain = (DRAWN / min(times[name]) for name in works)
    note = f"{DRAWN} at once, fastest of {repeats} in turns"
    return {
        "kept": Measure(kept, None, "images/s", note),
        "plain": Measure(plain / (28 * 28), None, "images/s", f"784 times a pass, {note}"),
    }
