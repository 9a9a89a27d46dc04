"""Multilayer perceptrons."""

import math
from collections.abc import Callable, Sequence

import keras


def mlp(
    input_shape: Sequence[int],
    units: Sequence[int],
    output_shape: Sequence[int],
    *,
    activation: str = "tanh",
    output_activation: str | None = None,
    output_bias: bool = True,
    input_scale: float = 1.0,
    output_scale: float = 1.0,
    head: Sequence[keras.layers.Layer] = (),
    initializer: Callable[..., keras.initializers.Initializer] = keras.initializers.GlorotUniform,
    norm: Callable[[], keras.layers.Layer] | None = None,
    seed: int = 0,
    name: str = "mlp",
) -> keras.Sequential:
    """Dense layers between two shapes, "hidden_1", "hidden_2", ...; biases begin as 0.

    For example `mlp((28, 28, 1), (200, 200), (100,))` maps [B, 28, 28, 1] to [B, 100] and
    `mlp((50,), (200, 200), (28, 28, 1))` maps [B, 50] to [B, 28, 28, 1].

    Args:
        input_shape: shape of one input, without the batch; flattened.
        units: width of each hidden layer.
        output_shape: shape of one output, without the batch.
        activation: of the hidden layers.
        output_activation: of the output; None is linear.
        output_bias: whether the output has a bias.
        input_scale: factor of the inputs.
        output_scale: factor of the outputs.
        head: further layers between the last hidden layer and the output.
        initializer: makes the initialiser of a kernel from its `seed`.
        norm: makes a normalisation layer for each hidden layer, before its activation; None is off.
        seed: int, of the initial weights.
        name: name of the network.
    """
    init = [initializer(seed=seed * 1000 + layer) for layer in range(len(units) + 1)]
    layers = [keras.Input(tuple(input_shape))]
    if len(input_shape) > 1:
        layers.append(keras.layers.Flatten())
    if input_scale != 1.0:
        layers.append(keras.layers.Rescaling(input_scale))
    for index, width in enumerate(units):
        options = {"kernel_initializer": init[index]}
        hidden = f"hidden_{index + 1}"
        if norm is None:
            layers.append(keras.layers.Dense(width, activation, name=hidden, **options))
        else:
            layers += [keras.layers.Dense(width, use_bias=False, **options), norm()]
            layers.append(keras.layers.Activation(activation, name=hidden))
    layers += head
    layers.append(
        keras.layers.Dense(
            math.prod(output_shape),
            output_activation,
            use_bias=output_bias,
            kernel_initializer=init[-1],
        )
    )
    if output_scale != 1.0:
        layers.append(keras.layers.Rescaling(output_scale))
    if len(output_shape) > 1:
        layers.append(keras.layers.Reshape(tuple(output_shape)))
    return keras.Sequential(layers, name=name)
