"""GAN: who moves when, on whose losses, from which noise; and its slots."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan, wgan
from tfgen.networks import patchgan
from tfgen.networks.mlp import mlp
from tfgen.training import strategies


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


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_historical_average_pulls_towards_the_past(player: str) -> None:
    model, plain = small(historical_average_weight=2.0), small()
    network, without = getattr(model, player), getattr(plain, player)
    first = weights(network)
    logs = model.move(player, getattr(model, f"{player}_loss"), points())
    assert float(logs[f"{player}_past_distance"]) == 0.0  # the start is its own mean
    second = weights(network)
    without.set_weights(second)
    logs = model.move(player, getattr(model, f"{player}_loss"), points(seed=1))
    plain.move(player, getattr(plain, f"{player}_loss"), points(seed=1))
    away = [b - (a + b) / 2 for a, b in zip(first, second, strict=True)]
    distance = sum(float(np.sum(np.square(d))) for d in away)
    assert float(logs[f"{player}_past_distance"]) == pytest.approx(distance, rel=1e-4)
    # SGD's step of 0.1 down the objective and 2 |theta - mean|^2.
    for new, bare, d in zip(weights(network), weights(without), away, strict=True):
        np.testing.assert_allclose(new, bare - 0.1 * 2.0 * 2.0 * d, atol=1e-7)


def test_the_past_begins_where_adapt_ends() -> None:
    class Adapting(gan.GAN):
        def adapt_to(self, batches):
            self.discriminator.layers[-1].bias.assign([5.0])

    model = small(historical_average_weight=2.0)
    model.__class__ = Adapting
    model.move("discriminator", model.discriminator_loss, points())
    model.adapt(tf.data.Dataset.from_tensors(points()))
    assert float(model.past["discriminator"].penalty()) == 0.0
    assert int(model.past["discriminator"].count.numpy()) == 1


def test_a_discriminator_of_any_size_fits() -> None:
    generator = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(256), keras.layers.Reshape((16, 16, 1))
    ])  # fmt: skip
    judge = patchgan.discriminator(1, patch=16, filters=2)  # of images [None, None, 1]
    model = gan.GAN(generator, judge)
    model.compile(generator="sgd", discriminator="sgd")
    logs = model.train_step({"image": tf.zeros([2, 16, 16, 1])})
    assert all(np.isfinite(value) for value in logs.values())


def test_warmup_is_in_train_steps_for_both_players() -> None:
    hparams = wgan.HParams(
        data="ring8", networks="mlp", norm="none", discriminator_norm="none", warmup_steps=10,
        steps=100, boost_first=0, boost_every=0,
    )  # fmt: skip
    spec = DataSpec("ring8", {"point": (2,)}, {"point": "float32"}, None, None, 100, 10, 10)
    model = wgan.build(hparams, spec)
    data = tf.data.Dataset.from_tensors(points()).repeat(5)
    model.fit(data, verbose=0)
    assert int(model.optimizers["discriminator"].iterations) == 25
    risen = {k: float(o.learning_rate) / 5e-5 for k, o in model.optimizers.items()}
    assert risen == pytest.approx({"generator": 6 / 10, "discriminator": 26 / 50})


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
        ({"positive_label": 0.9, "objective": "hinge"}, "needs an objective with labels"),
        ({"norm": "layer", "networks": "mlp"}, "set --norm to virtual or none"),
        ({"norm": "layer", "networks": "mlp_generator"}, "set --norm to virtual or none"),
        (
            {"discriminator_norm": "layer", "networks": "mlp"},
            "set --discriminator_norm to spectral",
        ),
        ({"penalty": "r1"}, "Received: --penalty=r1 --discriminator_norm=batch"),
        (
            {"penalty": "gradient_penalty", "networks": "mlp", "minibatch_kernels": 3},
            "set --minibatch_kernels=0. Received: --penalty=gradient_penalty --minibatch_kernels=3",
        ),
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


def test_images_of_a_dense_generator_differ_from_the_start() -> None:
    hparams = gan.HParams(networks="mlp_generator", hidden_units=(512,) * 4, filters=4)
    model = gan.build(hparams, spec(28))
    assert np.std(model.sample(64, seed=3), axis=0).mean() > 0.3  # 0.07 by Glorot's weights


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


def test_virtual_batch_norm_in_dense_networks() -> None:
    hp = gan.HParams(networks="mlp", hidden_units=(8, 8), norm="virtual", reference_size=9)
    model = gan.build(hp, spec(8))
    (carrier,) = model.generator.layers
    kinds = [type(layer).__name__ for layer in carrier.layer.layers]
    assert kinds.count("VirtualBatchNormalization") == 2
    latents = model.draw_latents(4, [0, 1])
    alone = model.generator(latents[:1], training=True)
    np.testing.assert_allclose(alone, model.generator(latents, training=True)[:1], atol=1e-6)
    plain = gan.build(dataclasses.replace(hp, norm="none"), spec(8)).generator
    assert [type(layer).__name__ for layer in plain.layers].count("Dense") == 3


def test_a_won_game_and_a_collapse_are_named_with_their_numbers() -> None:
    model = small()
    healthy = {"discriminator_loss": 1.2, "logit_real": 0.1, "logit_fake": 0.0, "spread": 0.9}
    assert model.diagnose(healthy) == {}
    found = model.diagnose({**healthy, "discriminator_loss": 0.004, "spread": 0.02})
    won = found["the discriminator has won"]
    assert "discriminator_loss 0.004 is next to 0, and 1.39 if D cannot tell" in won
    assert "logit_real 0.1, logit_fake 0" in won
    assert "0.02 of the data's, below 0.1" in found["mode collapse"]
    assert not small(objective="wasserstein").diagnose({**healthy, "discriminator_loss": -5.0})


@pytest.mark.parametrize(
    ("arguments", "least", "cannot_tell"),
    [
        ({"objective": "hinge"}, 0.0, 2.0),
        ({"objective": "least_squares"}, 0.0, 1.0),
        ({"objective": "least_squares_01"}, 0.0, 0.25),
        ({"positive_label": 0.9}, 0.325, 1.376),  # which never comes near to 0
    ],
)
def test_who_has_won_is_by_the_scale_of_the_objective(arguments, least, cannot_tell) -> None:
    model = small(**arguments)
    for share, won in ((0.009, True), (0.012, False), (1.0, False)):
        loss = least + share * (cannot_tell - least)
        assert ("the discriminator has won" in model.diagnose({"discriminator_loss": loss})) == won


def test_rmsprop_adds_its_epsilon_to_the_root_as_pytorch_does() -> None:
    optimizer = _players.optimizer(gan.HParams(optimizer="rmsprop"), 1e-3)
    variable = keras.Variable([1.0, 1.0, 1.0])
    optimizer.build([variable])
    gradient = np.array([1e-5, 1.0, 0.0])
    expected, mean_square = np.ones(3), np.zeros(3)
    for _ in range(3):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        mean_square = 0.99 * mean_square + 0.01 * gradient**2
        expected -= 1e-3 * gradient / (np.sqrt(mean_square) + 1e-8)
    # Keras adds under the root, where 1e-16 comes to at most 1% of a root of 1e-6.
    np.testing.assert_allclose(1 - variable.numpy(), 1 - expected, rtol=0.011)


def test_a_penalty_is_in_the_lengths_of_the_networks() -> None:
    layers = [keras.Input((2,)), keras.layers.Rescaling(1 / 4.0), keras.layers.Dense(1)]
    for penalty, value in (("gradient_penalty", (5.0 - 1) ** 2), ("r1", 5.0**2 / 2)):
        model = gan.GAN(
            mlp((4,), (8,), (2,)), keras.Sequential(layers), penalty=penalty, event_scale=4.0
        )
        model.discriminator.layers[-1].kernel.assign([[3.0], [4.0]])
        assert float(model.discriminator_loss(points())[1]["penalty"]) == pytest.approx(value)
    flags = {"data": "ring8", "networks": "mlp", "standardize": True, "hidden_units": (4,)}
    model = gan.build(gan.HParams(**flags), PLANE)
    assert model.event_scale == pytest.approx(np.sqrt(2.0), rel=1e-3)  # of a ring of radius 2
    assert gan.GAN.from_config(model.get_config()).event_scale == model.event_scale


PLANE = DataSpec("ring8", {"point": (2,)}, {"point": "float32"}, "symmetric", 8, 9, 9, 9)


def test_the_plane_with_minibatch_discrimination_is_drawn_without_level_sets() -> None:
    flags = {"data": "ring8", "networks": "mlp", "hidden_units": (8, 8)}
    drawn = [
        gan.build(gan.HParams(minibatch_kernels=kernels, **flags), PLANE)
        .pictures(points(64), 0)["samples"][0, 0]
        .reshape(-1, 3)
        for kernels in (0, 2)
    ]
    assert np.any((drawn[0] < 1).all(-1) & (np.ptp(drawn[0], axis=-1) == 0))  # grey bands
    assert not np.any((drawn[1] < 1).all(-1) & (np.ptp(drawn[1], axis=-1) == 0))


def test_a_batch_that_leaves_a_replica_one_example_is_named() -> None:
    strategy = strategies.make("mirrored", devices=2)
    hp = gan.HParams(filters=2, minibatch_kernels=2, batch_size=2)
    gan.build(hp, spec(8))
    with (
        strategy.scope(),
        pytest.raises(ValueError, match=r"at least 4 for 2 replicas. Received: --batch_size=2"),
    ):
        gan.build(hp, spec(8))


def test_spread_is_the_ratio_of_standard_deviations() -> None:
    model, batch = small(), points(400)
    _, logs = model.discriminator_loss(batch)
    fake = model.generate(400, 2).numpy()
    real = batch["point"].numpy()
    expected = np.sqrt(fake.var(0).mean() / real.var(0).mean())
    assert float(logs["spread"]) == pytest.approx(expected, rel=1e-4)
