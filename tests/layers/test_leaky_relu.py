"""The layer is Keras' own, but that its second derivative is absent."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.leaky_relu import LeakyReLU
from tfgen.losses import penalties

X = tf.constant([[-2.0, -0.5, 0.0, 0.5, 3.0]])


def critic(layer: type[keras.layers.Layer]) -> keras.Sequential:
    init = [keras.initializers.RandomNormal(stddev=0.5, seed=seed) for seed in range(3)]
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 4, strides=2, padding="same", kernel_initializer=init[0]),
            layer(0.2),
            keras.layers.Flatten(),
            keras.layers.Dense(6, kernel_initializer=init[1]),
            layer(0.2),
            keras.layers.Dense(1, kernel_initializer=init[2]),
        ]
    )


def test_values_and_slopes() -> None:
    with tf.GradientTape() as tape:
        tape.watch(X)
        y = LeakyReLU(0.2)(X)
    np.testing.assert_allclose(y, [[-0.4, -0.1, 0.0, 0.5, 3.0]])
    np.testing.assert_allclose(tape.gradient(y, X), [[0.2, 0.2, 0.2, 1.0, 1.0]])


@pytest.mark.parametrize("function", [False, True])
def test_no_second_derivative_is_computed(function: bool) -> None:
    def second(x: tf.Tensor) -> list:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = LeakyReLU(0.2)(x)
            slope = inner.gradient(y, x)
        return [g for g in [outer.gradient(slope, x)] if g is not None]

    assert (tf.function(second) if function else second)(X) == []


def test_penalties_have_the_gradients_that_they_have_with_keras_layer() -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 3, 8, 8, 1)).astype(np.float32)
    found = []
    for layer in (keras.layers.LeakyReLU, LeakyReLU):
        network = critic(layer)
        with tf.GradientTape() as tape:
            penalty = penalties.gradient_penalty(network, real, fake, np.full(3, 0.3, np.float32))
            loss = tf.reduce_mean(penalty + penalties.r1_penalty(network, real))
        kernels = [v for v in network.trainable_variables if v.name == "kernel"]
        found.append([loss, *tape.gradient(loss, kernels)])
    for expected, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_in_half_precision_and_from_its_configuration() -> None:
    layer = LeakyReLU.from_config(LeakyReLU(0.3, dtype="mixed_bfloat16").get_config())
    assert layer.negative_slope == pytest.approx(0.3)
    assert layer(X).dtype == tf.bfloat16
