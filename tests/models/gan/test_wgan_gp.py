"""WGAN-GP: the penalty is in the critic's loss, and pulls the norm of its gradient to 1."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.models.gan import wgan_gp
from tfgen.networks.mlp import mlp


def small(**arguments) -> wgan_gp.WGANGP:
    model = wgan_gp.WGANGP(
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (16, 16), (1,), activation="relu", output_bias=False, seed=2, name="critic"),
        **arguments,
    )
    adam = keras.optimizers.Adam
    model.compile(generator=adam(1e-9), discriminator=adam(1e-2))
    return model


def stream(shift: float = 3.0):
    values = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32) + shift
    return iter(tf.data.Dataset.from_tensors({"point": values}).repeat())


def norms(model: wgan_gp.WGANGP, between: np.ndarray) -> np.ndarray:
    points = tf.constant(between)
    with tf.GradientTape() as tape:
        tape.watch(points)
        values = model.discriminator(points, training=False)
    return np.linalg.norm(tape.gradient(values, points), axis=1)


def test_the_paper_s_defaults() -> None:
    model = small()
    assert (model.objective, model.penalty, model.penalty_weight) == (
        "wasserstein", "gradient_penalty", 10.0,
    )  # fmt: skip
    assert model.discriminator_steps == 5
    hp = wgan_gp.HParams()
    assert (hp.learning_rate, hp.adam_beta1, hp.adam_beta2) == (1e-4, 0.0, 0.9)


def test_training_the_critic_brings_its_gradient_to_norm_one() -> None:
    # The loss -W n + lambda (n - 1)^2 is least at n = 1 + W / (2 lambda), W = 4.2 being the
    # distance of the two clouds: 1.02 here.
    model = small(penalty_weight=100.0)
    fakes = model.sample(32, 0).numpy()
    reals = next(stream())["point"].numpy()
    between = np.linspace(0.1, 0.9, 32)[:, None].astype(np.float32)
    between = between * reals + (1 - between) * fakes
    model.run_steps(stream(), 100)  # the generator all but stands still
    assert np.abs(norms(model, between) - 1.0).mean() < 0.1


def test_without_the_penalty_the_gradient_grows() -> None:
    model = small(penalty_weight=0.0)
    model.run_steps(stream(), 100)
    assert norms(model, next(stream())["point"].numpy()).mean() > 3.0


def test_a_critic_that_mixes_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="set --discriminator_norm to layer, spectral or none"):
        wgan_gp.HParams(discriminator_norm="batch")
    with pytest.raises(ValueError, match="set --minibatch_kernels=0"):
        wgan_gp.HParams(minibatch_kernels=2)
