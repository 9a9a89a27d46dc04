"""GAN: who moves when, on whose losses, from which noise; and its slots."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import gan
from tfgen.networks.mlp import mlp


def small(**arguments) -> gan.GAN:
    model = gan.GAN(
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8, 8), (1,), activation="relu", seed=2, name="discriminator"),
        **arguments,
    )
    model.compile(generator=keras.optimizers.SGD(0.1), discriminator=keras.optimizers.SGD(0.1))
    return model


def points(count: int = 6, seed: int = 0) -> dict[str, tf.Tensor]:
    values = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return {"point": tf.constant(values)}


def weights(network: keras.Model) -> list[np.ndarray]:
    return [np.array(w) for w in network.get_weights()]


def same(before: list[np.ndarray], network: keras.Model) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_only_the_intended_player_moves() -> None:
    model = small()
    before = weights(model.generator), weights(model.discriminator)
    model.move("discriminator", model.discriminator_loss, points())
    assert same(before[0], model.generator)
    assert not same(before[1], model.discriminator)
    before = weights(model.generator), weights(model.discriminator)
    model.move("generator", model.generator_loss, points())
    assert not same(before[0], model.generator)
    assert same(before[1], model.discriminator)


@pytest.mark.parametrize("steps", [1, 3])
def test_updates_of_the_discriminator_per_update_of_the_generator(steps: int) -> None:
    model = small(discriminator_steps=steps)
    data = tf.data.Dataset.from_tensors(points()).repeat()
    model.run_steps(iter(data), 4)
    assert int(model.optimizers["generator"].iterations) == 4
    assert int(model.optimizers["discriminator"].iterations) == 4 * steps


def test_the_losses_are_the_objectives() -> None:
    model, batch = small(), points()
    loss, logs = model.discriminator_loss(batch)
    fake = model.generate(6, 2)
    on_real, on_fake = (model.discriminator(x).numpy() for x in (batch["point"], fake))
    expected = np.mean(np.log1p(np.exp(-on_real)) + np.log1p(np.exp(on_fake)))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(logs["logit_fake"]) == pytest.approx(on_fake.mean(), rel=1e-5)
    loss, _ = model.generator_loss(batch)
    on_fake = model.discriminator(model.generate(6, 3)).numpy()
    assert float(loss) == pytest.approx(np.mean(np.log1p(np.exp(-on_fake))), rel=1e-5)


def test_the_two_players_see_other_fakes() -> None:
    model = small()
    assert not np.array_equal(model.generate(6, 2), model.generate(6, 3))


def test_penalty_is_added_for_the_discriminator_alone() -> None:
    plain, penalised = small(), small(penalty="gradient_penalty", penalty_weight=3.0)
    loss, logs = penalised.discriminator_loss(points())
    bare, _ = plain.discriminator_loss(points())
    assert float(loss) == pytest.approx(float(bare) + 3.0 * float(logs["penalty"]), rel=1e-5)
    assert float(logs["penalty"]) > 0
    assert float(penalised.generator_loss(points())[0]) == float(plain.generator_loss(points())[0])


def test_feature_matching_by_hand() -> None:
    model = small(feature_matching_layer="hidden_2", adversarial_weight=0.0)
    batch = points()
    loss, _ = model.generator_loss(batch)
    body = keras.Model(model.discriminator.inputs, model.discriminator.get_layer("hidden_2").output)
    real, fake = (body(x).numpy().mean(0) for x in (batch["point"], model.generate(6, 3)))
    assert float(loss) == pytest.approx(np.sum((real - fake) ** 2), rel=1e-5)
    assert len(model.trainable_variables) == len(small().trainable_variables)  # none twice
    with pytest.raises(ValueError, match=r"one of .*'hidden_2'.* Received: 'hidden_3'"):
        small(feature_matching_layer="hidden_3")


def test_historical_average_pulls_towards_the_past() -> None:
    model = small(historical_average_weight=2.0)
    logs = model.move("generator", model.generator_loss, points())
    assert float(logs["generator_past_distance"]) == 0.0  # the start is its own mean
    start = weights(small().generator)
    logs = model.move("generator", model.generator_loss, points(seed=1))
    assert float(logs["generator_past_distance"]) > 0
    assert not same(start, model.generator)


def test_samples_come_from_the_latents_asked_for() -> None:
    assert np.abs(small(latents="uniform").draw_latents(1000, [0, 1])).max() <= 1.0
    assert np.abs(small(latents="normal").draw_latents(1000, [0, 1])).max() > 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": "gp"}, r"penalty must be one of .* Received: 'gp'"),
        ({"latents": "cauchy"}, r"latents must be one of .* Received: 'cauchy'"),
        ({"objective": "wgan"}, r"objective must be one of .* Received: 'wgan'"),
        ({"discriminator_steps": 0}, "must be more than 0. Received: 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_networks_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"generator output \(3,\), discriminator input \(2,\)"):
        gan.GAN(mlp((4,), (8,), (3,)), mlp((2,), (8,), (1,)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"discriminator_steps": 0}, "--discriminator_steps must be more than 0"),
        ({"penalty_weight": -1.0}, "--penalty_weight must be 0 or more"),
        ({"positive_label": 0.0}, "--positive_label must be above 0.5 and at most 1"),
        ({"minibatch_kernels": 3, "batch_size": 1}, "--batch_size must be at least 2"),
        ({"data": "ring8"}, "set --networks=mlp. Received: --networks=dcgan"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gan.HParams(**flags)


def spec(side: int) -> DataSpec:
    return DataSpec("x", {"image": (side, side, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)


def test_image_sides_that_the_networks_cannot_make_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"8, 10, 12, 14, 16, .* Received: 30x30. Set --image_size"
    ):
        gan.build(gan.HParams(), spec(30))


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_convolutional_networks_fit(side: int) -> None:
    model = gan.build(gan.HParams(filters=2), spec(side))
    assert model.generator.output_shape == (None, side, side, 1)
    smallest = model.discriminator.get_layer("features").input.shape
    assert 4 <= smallest[1] <= 7


def test_with_virtual_batch_norm_a_sample_does_not_depend_on_its_batch() -> None:
    hp = gan.HParams(filters=2, norm="virtual", reference_size=5, latents="uniform", seed=3)
    model = gan.build(hp, spec(8))
    first, second = tf.split(model.draw_latents(8, [0, 1]), 2)
    for training in (True, False):
        alone = model.generator(first, training=training)
        together = model.generator(tf.concat([first, second], 0), training=training)[:4]
        np.testing.assert_allclose(alone, together, atol=1e-6)
    (reference,) = (w for w in model.generator.weights if w.name == "reference")
    assert reference.shape == (5, 100)
    assert np.abs(reference.numpy()).max() <= 1.0  # as the latents
    other = gan.build(dataclasses.replace(hp, seed=4), spec(8)).generator
    assert not np.array_equal(reference, next(w for w in other.weights if w.name == "reference"))
    with pytest.raises(ValueError, match="--reference_size must be more than 0"):
        gan.HParams(reference_size=0)


def test_a_won_game_and_a_collapse_are_named_with_their_numbers() -> None:
    model = small()
    healthy = {"discriminator_loss": 1.2, "logit_real": 0.1, "logit_fake": 0.0, "spread": 0.9}
    assert model.diagnose(healthy) == {}
    found = model.diagnose({**healthy, "discriminator_loss": 0.004, "spread": 0.02})
    assert "discriminator_loss 0.004 is below 0.01" in found["the discriminator has won"]
    assert "0.02 of the data's, below 0.1" in found["mode collapse"]
    assert not small(objective="wasserstein").diagnose({**healthy, "discriminator_loss": -5.0})


def test_spread_is_the_ratio_of_standard_deviations() -> None:
    model, batch = small(), points(400)
    _, logs = model.discriminator_loss(batch)
    fake = model.generate(400, 2).numpy()
    real = batch["point"].numpy()
    expected = np.sqrt(fake.var(0).mean() / real.var(0).mean())
    assert float(logs["spread"]) == pytest.approx(expected, rel=1e-4)
