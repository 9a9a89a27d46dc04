"""MADE: a masked MLP whose output for dimension i depends on the dimensions before i alone."""

from collections.abc import Sequence

import keras
import numpy as np

from tfgen.layers.masked_dense import MaskedDense


def made(
    dimensions: int,
    hidden_units: Sequence[int],
    *,
    outputs: int = 2,
    order: Sequence[int] | None = None,
    context: int = 0,
    activation: str = "relu",
    output_stddev: float = 0.01,
    seed: int = 0,
    name: str = "made",
) -> keras.Model:
    """An autoregressive network (Germain et al. 2015), as a functional Keras model.

    For example `made(3, (16,))` maps [B, 3] to [B, 3, 2]; numbers [:, 1] depend on x[:, 0] alone,
    and numbers [:, 0] on nothing. With `context=4` it takes [[B, 3], [B, 4]], and every number may
    depend on all of the context. Hidden units take the degrees from the lowest to
    `dimensions - 1` in turn.

    Args:
        dimensions: of one example, at least 2 unless there is a context.
        hidden_units: width of each hidden layer, each at least `dimensions - 1`.
        outputs: numbers for each dimension, e.g. a shift and a log scale.
        order: rank of each dimension, a permutation of 0..dimensions-1; None is as they come.
        context: dimensions of the context; 0 is none.
        activation: of the hidden layers.
        output_stddev: of the output's initial weights; small ones begin near the biases, 0.
        seed: int, of the initial weights.
        name: of the network.

    Raises:
        ValueError: if there is nothing to condition on, a hidden layer is too narrow, or the order
            is no permutation.
    """
    ranks = list(range(dimensions)) if order is None else [int(rank) for rank in order]
    if sorted(ranks) != list(range(dimensions)):
        raise ValueError(
            f"order must be a permutation of 0..{dimensions - 1}. Received: {list(ranks)}"
        )
    if dimensions < 2 and not context:
        raise ValueError(
            "an autoregressive network needs 2 dimensions or more, or a context: the only one has "
            f"nothing before it. Received: dimensions={dimensions}"
        )
    if not hidden_units:
        raise ValueError("hidden_units needs at least 1 width. Received: none")
    lowest = 0 if context else 1
    needed = dimensions - lowest
    if min(hidden_units) < needed:
        raise ValueError(
            f"hidden_units must be at least {needed} for {dimensions} dimensions: with fewer no "
            f"unit has the highest degrees, and the last dimensions do not see those just before "
            f"them. Received: {tuple(hidden_units)}"
        )
    seeds = iter(range(seed * 1000, (seed + 1) * 1000))
    glorot = lambda: keras.initializers.GlorotUniform(next(seeds))  # noqa: E731
    small = lambda: keras.initializers.RandomNormal(stddev=output_stddev, seed=next(seeds))  # noqa: E731
    point = keras.Input((dimensions,), name="point")
    given = keras.Input((context,), name="context") if context else None
    degrees, hidden = [rank + 1 for rank in ranks], point
    for index, width in enumerate(hidden_units):
        wanted = [int(d) for d in lowest + np.arange(width) % needed]
        linear = MaskedDense(
            degrees, wanted, kernel_initializer=glorot(), name=f"hidden_{index + 1}"
        )(hidden)
        if given is not None and index == 0:
            linear += keras.layers.Dense(
                width, use_bias=False, kernel_initializer=glorot(), name="context_to_hidden"
            )(given)
        degrees, hidden = wanted, keras.layers.Activation(activation)(linear)
    last = [rank + 1 for rank in ranks for _ in range(outputs)]
    numbers = MaskedDense(degrees, last, strict=True, kernel_initializer=small(), name="output")(
        hidden
    )
    numbers = keras.layers.Reshape((dimensions, outputs))(numbers)
    return keras.Model(point if given is None else [point, given], numbers, name=name)
