"""What Papamakarios et al. 2017 claim of masked autoregressive flows, measured.

Paper, table 2, MNIST, mean test log likelihood of logits in nats: Gaussian -1366.9 (1.4), MADE
-1380.8 (4.8), MAF (5) -1300.5 (1.7): there a MADE with Gaussian conditionals does not beat the
Gaussian.
"""

import functools
import time

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfgen import commands, run
from tfgen.bijectors.autoregressive import MaskedAutoregressive
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.metrics import density
from tfgen.metrics.measure import Measure
from tfgen.models.flow import maf
from tools.claims import _gallery
from tools.claims._base import Claim, Outcome, Outcomes, Run, Toy
from tools.claims._common import SEEDS, seeds_of, text, values

DATA = ("ring8", "digits", "mnist")
MADE = ("--blocks=1", "--batch_norm=false", "--learning_rate=1e-3")
DRAWN = 16
PAPER = {"maf": "1300.5", "made": "1380.8", "gaussian": "1366.9"}


def rows(budget: str) -> list[Run | Toy]:
    """MAF(5) and MADE on each data set, and MADE on a table."""
    del budget  # there is one
    found: list[Run | Toy] = [
        Run(f"{name}_{data}_seed{s}", f"maf_{data}.cfg", (*flags, f"--seed={s}"), (), s)
        for data in DATA
        for name, flags in (("maf", ()), ("made", MADE))
        for s in seeds_of(data)
    ]
    tables = [Toy(f"table_seed{s}", on_a_table, {}, s) for s in SEEDS]
    return [*found, *tables, *(Toy(f"draws_seed{s}", draws, {}, s) for s in SEEDS)]


def measure(outcome: Outcome) -> dict[str, Measure]:
    """The integral of a density in the plane."""
    if "ring8" not in outcome.name:
        return {}
    model = commands.load_run(run.RunDir(outcome.path))[3]
    axis = np.arange(-8.0, 8.0, 0.005, dtype=np.float32)  # 5 sigma of the widest, MADE's Gaussians
    judge = tf.function(model.log_prob)
    columns = (np.stack(np.broadcast_arrays(x, axis), axis=1) for x in axis)
    total = sum(float(tf.reduce_sum(tf.exp(judge(c)))) for c in columns) * 0.005**2
    return {"integral": Measure(total, None, "1", "over [-8, 8]^2, cells of 0.005")}


def integrates(outcomes: Outcomes) -> Claim:
    """ring8: trained densities integrate to 1."""
    groups = outcomes.by_seed("maf_ring8", "made_ring8", seeds=SEEDS)
    found = [values(group, "integral") for group in groups]
    return Claim(
        "ring8: trained densities integrate to 1, MAF(5) and MADE, within 0.01",
        "",
        " and ".join(text(v, ".4f") for v in found),
        "1",
        "",
        all(abs(total - 1) < 0.01 for v in found for total in v),
    )


def better(outcomes: Outcomes, data: str) -> Claim:
    """MAF(5) is above a Gaussian and above MADE."""
    groups = outcomes.by_seed(f"maf_{data}", f"made_{data}", seeds=seeds_of(data))
    ours, made = (values(group, "nll") for group in groups)
    gaussian = values(groups[0], "gaussian_nll")
    return Claim(
        f"{data}: MAF(5) is above a full Gaussian and above MADE, negative log density",
        f"{PAPER['maf']} < {PAPER['gaussian']}, {PAPER['made']}" if data == "mnist" else "",
        text(ours, ".5g"),
        f"{text(gaussian, '.5g')} Gaussian, {text(made, '.5g')} MADE",
        "nats",
        max(ours) < min(gaussian + made),
    )


def made_beats_the_gaussian(outcomes: Outcomes) -> Claim:
    """MADE is above a Gaussian in the plane and on a table."""
    (plane,) = outcomes.by_seed("made_ring8", seeds=SEEDS)
    (table,) = outcomes.by_seed("table", seeds=SEEDS)
    pairs = [(values(g, "nll"), values(g, "gaussian_nll")) for g in (plane, table)]
    return Claim(
        "MADE is above a full Gaussian on ring8 and on Friedman's table, negative log density",
        "table 1, on tables",
        "; ".join(text(made) for made, _ in pairs),
        "; ".join(text(gaussian) for _, gaussian in pairs),
        "nats",
        all(m < g for made, gaussian in pairs for m, g in zip(made, gaussian, strict=True)),
    )


def draws_fast(outcomes: Outcomes) -> Claim:
    """Drawing with kept activations is at least 5 times as fast as calling the networks anew."""
    (toys,) = outcomes.by_seed("draws", seeds=SEEDS)
    kept, plain = (values(toys, name) for name in ("kept", "plain"))
    return Claim(
        f"draws of 784 numbers by MAF(5), {DRAWN} at once: each unit computed once, at least 5 "
        "times as fast as calling the networks for each dimension",
        "",
        text(kept),
        text(plain),
        "examples/s",
        all(a >= 5 * b for a, b in zip(kept, plain, strict=True)),
    )


CLAIMS = (
    draws_fast,
    integrates,
    made_beats_the_gaussian,
    *(functools.partial(better, data=data) for data in DATA),
)

# Samples of MAF(5) and MADE.
PICTURES = _gallery.grids(
    {data: [f"{name}_{data}_seed0" for name in ("maf", "made")] for data in DATA}
)


def draws(seed: int, repeats: int = 3) -> dict[str, Measure]:
    """Examples a second by both ways to draw from a flow of the paper's size for MNIST."""
    flow = AutoregressiveFlow(784, blocks=5, hidden_units=(1024,), seed=seed)
    u = tf.random.stateless_normal([DRAWN, 784], [seed, 0])
    # A function has no `autoregress`, so that each dimension is a call of the whole network.
    plain = tfb.Chain([MaskedAutoregressive(lambda x, n=n: n(x)) for n in flow.networks])
    works = {
        "kept": tf.function(lambda: flow.bijector().forward(u), autograph=False),
        "plain": tf.function(lambda: plain.forward(u), autograph=False),
    }
    found: dict[str, np.ndarray] = {}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begun = time.perf_counter()
            found[name] = work().numpy()
            if turn:  # the first makes the graph
                times[name].append(time.perf_counter() - begun)
    np.testing.assert_allclose(found["kept"], found["plain"], atol=1e-3)
    note = f"{DRAWN} at once, fastest of {repeats} in turns"
    return {n: Measure(DRAWN / min(t), None, "examples/s", note) for n, t in times.items()}


def on_a_table(seed: int, examples: int = 20_000, epochs: int = 20) -> dict[str, Measure]:
    """MADE and a Gaussian on ten standardised features and what Friedman's function makes of them.

    J. H. Friedman. Multivariate adaptive regression splines. Annals of Statistics 1991.
    """
    from sklearn.datasets import make_friedman1

    features, target = make_friedman1(2 * examples, n_features=10, noise=1.0, random_state=seed)
    table = np.column_stack([features, target])
    table = ((table - table[:examples].mean(0)) / table[:examples].std(0)).astype(np.float32)
    train, test = table[:examples], table[examples:]
    flow = AutoregressiveFlow(11, blocks=1, hidden_units=(128, 128), seed=seed)
    model = maf.MAF(flow, (11,))
    steps = epochs * examples // 200
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps))
    model.compile(adam, seed=seed, steps_per_execution=50)
    model.fit(train, batch_size=200, epochs=epochs, verbose=0)
    note = f"{examples} rows of 11 numbers"
    gaussian = density.gaussian_log_prob(train, test)
    return {
        "nll": Measure.mean(-model.log_prob(test).numpy(), "nats", note),
        "gaussian_nll": Measure.mean(-gaussian, "nats", note),
    }
