"""Multilayer perceptrons."""

import math
from collections.abc import Sequence

import keras


def mlp(
    input_shape: Sequence[int],
    units: Sequence[int],
    output_shape: Sequence[int],
    *,
    activation: str = "tanh",
    seed: int = 0,
    name: str = "mlp",
) -> keras.Sequential:
    """Dense layers between two shapes; Glorot uniform weights, linear output.

    For example `mlp((28, 28, 1), (200, 200), (100,))` maps [B, 28, 28, 1] to [B, 100] and
    `mlp((50,), (200, 200), (28, 28, 1))` maps [B, 50] to [B, 28, 28, 1].

    Args:
        input_shape: shape of one input, without the batch; flattened.
        units: width of each hidden layer.
        output_shape: shape of one output, without the batch.
        activation: of the hidden layers.
        seed: int, of the initial weights.
        name: name of the network.
    """
    init = [
        keras.initializers.GlorotUniform(seed=seed * 1000 + layer)
        for layer in range(len(units) + 1)
    ]
    layers = [keras.Input(tuple(input_shape))]
    if len(input_shape) > 1:
        layers.append(keras.layers.Flatten())
    for width, kernel in zip(units, init, strict=False):
        layers.append(keras.layers.Dense(width, activation, kernel_initializer=kernel))
    layers.append(keras.layers.Dense(math.prod(output_shape), kernel_initializer=init[-1]))
    if len(output_shape) > 1:
        layers.append(keras.layers.Reshape(tuple(output_shape)))
    return keras.Sequential(layers, name=name)
