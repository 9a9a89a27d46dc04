"""MADE: a masked MLP whose output for dimension i depends on the dimensions before i alone."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
    dtype: Any = None,
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
        dtype: of the layers, as for `keras.layers.Layer`; None is Keras' global policy.
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
            degrees, wanted, kernel_initializer=glorot(), dtype=dtype, name=f"hidden_{index + 1}"
        )(hidden)
        if given is not None and index == 0:
            linear += keras.layers.Dense(
                width,
                use_bias=False,
                kernel_initializer=glorot(),
                dtype=dtype,
                name="context_to_hidden",
            )(given)
        degrees = wanted
        hidden = keras.layers.Activation(activation, dtype=dtype, name=f"activation_{index + 1}")(
            linear
        )
    last = [rank + 1 for rank in ranks for _ in range(outputs)]
    numbers = MaskedDense(
        degrees, last, strict=True, kernel_initializer=small(), dtype=dtype, name="output"
    )(hidden)
    numbers = keras.layers.Reshape((dimensions, outputs), dtype=dtype)(numbers)
    return keras.Model(point if given is None else [point, given], numbers, name=name)


def autoregress(
    network: keras.Model,
    transform: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    inputs: tf.Tensor,
    context: tf.Tensor | None = None,
) -> tf.Tensor:
    """x_i = transform(inputs_i, numbers_i) for one dimension after the other.

    The numbers of dimension i are what the network makes of the x before it. A hidden unit of
    degree n is final once n dimensions are known, so each is computed once: all dimensions together
    cost as much as one call of the network, where calling it for each costs d of them. In float32.

    Args:
        network: from `made`.
        transform: ([B], [outputs, B]) -> [B].
        inputs: float32 [B, d].
        context: [B, c], where the network has one.

    Returns:
        float32 [B, d].
    """
    dimensions = inputs.shape[-1]
    names = {layer.name for layer in network.layers}
    count = sum(name.startswith("hidden_") for name in names)
    layers = [network.get_layer(f"hidden_{n + 1}") for n in range(count)]
    activations = [network.get_layer(f"activation_{n + 1}") for n in range(count)]
    # Examples are columns, so that a unit is a row. One row more takes what is written for nobody.
    units = [_units_by_degree(layer.out_degrees, dimensions) for layer in layers]
    kernels = [tf.gather(_rows(layer), u) for layer, u in zip(layers, units, strict=True)]
    biases = [
        tf.gather(tf.pad(_float(layer.bias), [[0, 1]]), u)[..., tf.newaxis]
        for layer, u in zip(layers, units, strict=True)
    ]
    if context is not None:
        given = tf.transpose(_float(network.get_layer("context_to_hidden")(context)))
        biases[0] += tf.gather(tf.pad(given, [[0, 1], [0, 0]]), units[0])
    output = network.get_layer("output")
    order = tf.constant(np.argsort(layers[0].in_degrees), tf.int32)
    last = tf.gather(tf.reshape(_rows(output)[:-1], [dimensions, -1, _width(layers[-1])]), order)
    shift = tf.gather(tf.reshape(_float(output.bias), [dimensions, -1, 1]), order)
    rows = tf.transpose(inputs)
    batch = tf.shape(inputs)[0]

    def reveal(degree: tf.Tensor | int, x: tf.Tensor, hidden: list[tf.Tensor]) -> list[tf.Tensor]:
        found: list[tf.Tensor] = []
        below = x
        for layer, state in enumerate(hidden):
            linear = tf.matmul(kernels[layer][degree], below) + biases[layer][degree]
            at = tf.constant(units[layer])[degree][:, tf.newaxis]
            below = tf.tensor_scatter_nd_update(state, at, _float(activations[layer](linear)))
            below = tf.ensure_shape(below, state.shape)
            found.append(below)
            below = below[:-1]
        return found

    def one(rank: tf.Tensor, x: tf.Tensor, *hidden: tf.Tensor) -> tuple:
        numbers = tf.matmul(last[rank], hidden[-1][:-1]) + shift[rank]
        at = order[rank]
        value = transform(rows[at], numbers)
        x = tf.ensure_shape(tf.tensor_scatter_nd_update(x, [[at]], [value]), rows.shape)
        # After the last dimension its units are computed once more, and nobody reads them.
        return rank + 1, x, *reveal(tf.minimum(rank + 1, dimensions - 1), x, list(hidden))

    x = tf.zeros_like(rows)
    hidden = [tf.zeros([_width(layer) + 1, batch]) for layer in layers]
    for state in hidden:
        state.set_shape([state.shape[0], rows.shape[1]])
    hidden = reveal(0, x, hidden)  # units that see the context alone
    found = tf.while_loop(lambda rank, *_: rank < dimensions, one, (tf.constant(0), x, *hidden))
    return tf.transpose(found[1])


def _units_by_degree(degrees: Sequence[int], dimensions: int) -> np.ndarray:
    """Indices of the units of degree 0..dimensions-1, a row each, filled up with their number."""
    groups = [np.flatnonzero(np.array(degrees) == degree) for degree in range(dimensions)]
    width = max(len(group) for group in groups)
    return np.array(
        [np.pad(g, (0, width - len(g)), constant_values=len(degrees)) for g in groups], np.int32
    )


def _rows(layer: MaskedDense) -> tf.Tensor:
    """Weights of each unit, [units + 1, inputs]; the last row is 0."""
    return tf.pad(tf.transpose(_float(layer.kernel) * layer.mask), [[0, 1], [0, 0]])


def _width(layer: MaskedDense) -> int:
    return len(layer.out_degrees)


def _float(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(value), tf.float32)
