"""WGAN: clipped critic, boosted steps, and the claim of the parallel lines in miniature."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.models.gan import wgan
from tfgen.networks.mlp import mlp


def small(**arguments) -> wgan.WGAN:
    model = wgan.WGAN(
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8, 8), (1,), activation="relu", output_bias=False, seed=2, name="critic"),
        **arguments,
    )
    model.compile(
        generator=keras.optimizers.RMSprop(1e-3), discriminator=keras.optimizers.RMSprop(1e-3)
    )
    return model


def stream():
    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    return iter(tf.data.Dataset.from_tensors({"point": values}).repeat())


def test_every_parameter_of_the_critic_is_clipped_and_none_of_the_generator() -> None:
    model = small(clip=0.02, boost_first=0, boost_every=0)
    model.run_steps(stream(), 2)
    for weight in model.discriminator.get_weights():
        assert np.abs(weight).max() <= np.float32(0.02)
    assert max(np.abs(w).max() for w in model.generator.get_weights()) > 0.1


def test_steps_of_the_critic() -> None:
    model = small(boosted_steps=7, boost_first=2, boost_every=4)
    # Steps 0 and 1 are the first ones, 4 and 8 divide by 4.
    expected = [7, 7, 5, 5, 7, 5, 5, 5, 7]
    assert (model.extra_steps(np.arange(9)).numpy() + 1).tolist() == expected
    model.run_steps(stream(), 5)
    assert int(model.optimizers["discriminator"].iterations) == sum(expected[:5])
    assert int(model.optimizers["generator"].iterations) == 5
    assert model.batches_before(5) == sum(expected[:5])


def test_never_boosted() -> None:
    assert small(boost_first=0, boost_every=0).extra_steps(tf.constant(0)) == 4


def test_losses_are_differences_of_means() -> None:
    model = small()
    batch = next(stream())
    loss, logs = model.discriminator_loss(batch)
    assert float(loss) == pytest.approx(
        float(logs["logit_fake"]) - float(logs["logit_real"]), rel=1e-4
    )


def test_wrong_clip_is_named() -> None:
    with pytest.raises(ValueError, match="clip must be more than 0. Received: clip=0"):
        small(clip=0)
    with pytest.raises(ValueError, match="--clip must be more than 0"):
        wgan.HParams(clip=-1.0)


def test_a_schedule_ends_with_the_run_for_both_players() -> None:
    """The critic's counts the boosted updates too."""
    model, steps = small(discriminator_steps=5, boosted_steps=20, boost_first=2, boost_every=4), 10
    assert model.updates("generator", steps) == steps
    boosted = {0, 1, 4, 8}
    expected = sum(20 if step in boosted else 5 for step in range(steps))
    assert model.updates("discriminator", steps) == expected
