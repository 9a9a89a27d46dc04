"""VAE/GAN: each term against numpy, whom it reaches, and who waits for whom."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen import distributions
from tfgen.data import DataSpec
from tfgen.models.gan import gan
from tfgen.models.vae import vae, vae_gan
from tfgen.networks.mlp import mlp

RATE, GAMMA, WEIGHT = 0.1, 0.3, 0.7
IMAGES = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", None, 90, 9, 9)


def networks() -> list[keras.Model]:
    """Generator, discriminator, encoder of points in the plane, 3 latents."""
    return [
        mlp((3,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8, 6), (1,), activation="relu", seed=2, name="discriminator"),
        mlp((2,), (8,), (6,), activation="relu", seed=3, name="encoder"),
    ]


def small(cls=vae_gan.VAEGAN, optimizer=keras.optimizers.SGD, **arguments) -> vae_gan.VAEGAN:
    given = {"similarity_layer": "hidden_2", "similarity_weight": GAMMA, "margin": None}
    model = cls(*networks(), **{**given, "adversarial_weight": WEIGHT, **arguments})
    model.compile(**{player: optimizer(RATE) for player in model.players()})
    return model


def points(count: int = 6) -> dict[str, tf.Tensor]:
    return {"point": tf.constant(np.random.default_rng(0).normal(size=(count, 2)), tf.float32)}


def layers_of(network: keras.Model, x) -> list[np.ndarray]:
    """What each layer of an `mlp` with ReLUs gives, in float64."""
    weights, found = [w.astype(np.float64) for w in network.get_weights()], [np.float64(x)]
    for index in range(0, len(weights), 2):
        found.append(found[-1] @ weights[index] + weights[index + 1])
        if index + 2 < len(weights):
            found[-1] = np.maximum(found[-1], 0)
    return found[1:]


def softplus(x) -> np.ndarray:
    return np.log1p(np.exp(np.asarray(x)))


def latents_of(model: vae_gan.VAEGAN, x) -> tuple[tf.Tensor, tf.Tensor]:
    """The draws of a step: from q(z|x), and from the prior."""
    code = model.posterior(x).sample(seed=model.noise_seed(10))
    return code, model.draw_latents(len(x), model.noise_seed(gan.FOR_G))


def test_losses_against_numpy() -> None:
    model, x = small(), points()["point"]
    code, drawn = latents_of(model, x)
    mean, log_std = np.split(layers_of(model.encoder, x)[-1], 2, axis=1)
    assert np.abs((code - mean) / np.exp(log_std)).max() < 5  # by so many sigmas
    prior = (0.5 * (np.exp(2 * log_std) + mean**2 - 1) - log_std).sum(1).mean()

    back, fake = (layers_of(model.generator, z)[-1] for z in (code, drawn))
    (_, wanted, on_real), (_, found, on_back), (_, _, on_fake) = (
        layers_of(model.discriminator, points) for points in (x, back, fake)
    )
    llike = 0.5 * ((wanted - found) ** 2).sum(1).mean()
    game = softplus(-on_real).mean() + 0.5 * (softplus(on_back) + softplus(on_fake)).mean()
    fooling = -0.5 * (softplus(on_back) + softplus(on_fake)).mean()  # log(1 - D)

    losses, logs = model.losses(points())
    assert float(losses["encoder"]) == pytest.approx(prior + llike, rel=1e-5)
    assert float(losses["generator"]) == pytest.approx(GAMMA * llike + WEIGHT * fooling, rel=1e-5)
    assert float(losses["discriminator"]) == pytest.approx(game, rel=1e-5)
    assert float(logs["cost_real"] + logs["cost_fake"]) == pytest.approx(game, rel=1e-5)
    for name, value in {"prior": prior, "llike": llike, "logit_back": on_back.mean()}.items():
        assert float(logs[name]) == pytest.approx(value, rel=1e-5, abs=1e-6), name


def updates(cls=vae_gan.VAEGAN, **arguments) -> dict[str, list[np.ndarray]]:
    """How a train step by plain gradient descent changes each player's variables."""
    model = small(cls, **arguments)
    before = {p: [np.array(v) for v in vs] for p, vs in model.players().items()}
    model.train_step(points())
    return {
        player: [np.array(v) - old for v, old in zip(variables, before[player], strict=True)]
        for player, variables in model.players().items()
    }


def wanted_updates() -> dict[str, list[np.ndarray]]:
    """The same from each term by itself: its networks' gradient of it, and no other's."""
    model, x = small(), points()["point"]
    layers = [model.discriminator.get_layer("hidden_2").output, *model.discriminator.outputs]
    judge = keras.Model(model.discriminator.inputs, layers)
    with tf.GradientTape(persistent=True) as tape:
        mean, log_std = tf.split(model.encoder(x), 2, axis=1)
        code, drawn = latents_of(model, x)
        kl = 0.5 * (tf.exp(2 * log_std) + mean**2 - 1) - log_std
        prior = tf.reduce_mean(tf.reduce_sum(kl, 1))
        back, fake = model.generator(code), model.generator(drawn)
        (wanted, on_real), (found, on_back), (_, on_fake) = map(judge, (x, back, fake))
        llike = 0.5 * tf.reduce_mean(tf.reduce_sum((wanted - found) ** 2, 1))
        on_fakes = 0.5 * tf.reduce_mean(tf.nn.softplus(on_back) + tf.nn.softplus(on_fake))
        game = tf.reduce_mean(tf.nn.softplus(-on_real)) + on_fakes
    terms = {
        "encoder": [(1.0, prior), (1.0, llike)],
        "generator": [(GAMMA, llike), (-WEIGHT, game)],  # D's cost, made large
        "discriminator": [(1.0, game)],
    }
    found = {}
    for player, variables in model.players().items():
        parts = [
            [w * g for g in tape.gradient(t, variables, unconnected_gradients="zero")]
            for w, t in terms[player]
        ]
        found[player] = [-RATE * np.sum(g, axis=0) for g in zip(*parts, strict=True)]
    return found


def wrong_players(found: dict, wanted: dict) -> set[str]:
    return {
        player
        for player in wanted
        if not all(
            np.allclose(a, b, rtol=1e-4, atol=1e-6)
            for a, b in zip(found[player], wanted[player], strict=True)
        )
    }


def test_each_term_reaches_exactly_its_networks() -> None:
    wanted = wanted_updates()
    assert all(any(np.abs(v).max() > 1e-4 for v in values) for values in wanted.values())
    assert wrong_players(updates(), wanted) == set()


def mutant(player: str, other: str, weight: float) -> type[vae_gan.VAEGAN]:
    class Mutant(vae_gan.VAEGAN):
        def losses(self, batch, training=True):
            losses, logs = super().losses(batch, training)
            losses[player] += weight * losses.get(other, logs.get(other))
            return losses, logs

    return Mutant


@pytest.mark.parametrize(
    ("player", "other"),
    [
        ("encoder", "generator_loss"),  # GAN reaches the encoder
        ("encoder", "discriminator"),
        ("generator", "llike"),  # gamma forgotten
        ("generator", "discriminator_loss"),  # GAN with the other sign
        ("discriminator", "llike"),  # llike reaches D
        ("discriminator", "generator"),
    ],
)
def test_a_term_that_reaches_another_network_is_seen(player: str, other: str) -> None:
    found = updates(mutant(player, other, 0.2))
    assert wrong_players(found, wanted_updates()) == {player}


@pytest.mark.parametrize("name", ["similarity_weight", "adversarial_weight"])
def test_the_decoders_weights_are_the_decoders_alone(name: str) -> None:
    assert wrong_players(updates(**{name: 2.0}), updates()) == {"generator"}


# The weight of the KL.


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 0.2), (10, 0.4), (30, 0.4)])
def test_the_kl_weight_rises_from_0(step: int, weight: float) -> None:
    model = small(kl_weight=0.4, kl_warmup_steps=10)
    model.step.assign(step)
    losses, logs = model.losses(points())
    expected = weight * float(logs["prior"]) + float(logs["llike"])
    assert float(losses["encoder"]) == pytest.approx(expected, rel=1e-6)
    model.compile(**{player: keras.optimizers.SGD(RATE) for player in model.players()})
    before = model.encoder.get_weights()
    model.train_step(points())
    moved = [new - old for new, old in zip(model.encoder.get_weights(), before, strict=True)]
    plain = small(kl_weight=weight)
    plain.step.assign(step)  # the same noise
    plain.train_step(points())
    wanted = [new - old for new, old in zip(plain.encoder.get_weights(), before, strict=True)]
    for one, other in zip(moved, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_free_bits_stop_the_gradient_of_the_kl_alone() -> None:
    prior = float(small().losses(points())[1]["prior"])
    whole, without = updates(), updates(kl_weight=0.0)
    assert wrong_players(whole, without) == {"encoder"}
    assert wrong_players(updates(free_bits=1.1 * prior), without) == set()
    assert wrong_players(updates(free_bits=0.9 * prior), whole) == set()
    losses, _ = small(free_bits=1.1 * prior).losses(points())
    assert float(losses["encoder"]) == float(small().losses(points())[0]["encoder"])


def test_the_settings_are_those_of_each_form() -> None:
    given = {"free_bits": 0.2, "kl_weight": 0.5, "kl_warmup_steps": 7}
    flags = {"filters": 2, "latent_dim": 3, **given}
    for form in ("vae_gan", "vae_dis", "vae"):
        model = vae_gan.build(vae_gan.HParams(form=form, **flags), IMAGES)
        assert {name: getattr(model, name) for name in given} == given
    config = small(**given).get_config()
    assert {name: config[name] for name in given} == given
    old = vae_gan.VAEGAN.from_config({k: v for k, v in config.items() if k not in given})
    assert (old.free_bits, old.kl_weight, old.kl_warmup_steps) == (0.0, 1.0, 0)


# The balance of the players.


@pytest.mark.parametrize(
    ("real", "fake", "discriminator", "generator"),
    [
        (0.7, 0.7, True, True),
        (0.32, 0.7, False, True),
        (0.7, 0.32, False, True),
        (1.04, 0.7, True, False),
        (0.7, 1.04, True, False),
        (0.32, 1.04, True, True),
        (1.04, 0.32, True, True),
        (0.34, 1.02, True, True),
    ],
)
def test_who_waits(real: float, fake: float, discriminator: bool, generator: bool) -> None:
    model = small(equilibrium=0.68, margin=0.35)
    moves = model.moves({"cost_real": tf.constant(real), "cost_fake": tf.constant(fake)})
    assert {player: bool(move) for player, move in moves.items()} == {
        "discriminator": discriminator, "generator": generator
    }  # fmt: skip


@pytest.mark.parametrize(
    ("equilibrium", "waiting"), [(0.0, "generator"), (50.0, "discriminator"), (0.68, None)]
)
@pytest.mark.parametrize("optimizer", [keras.optimizers.RMSprop, keras.optimizers.Adam])
def test_who_waits_stays_and_so_does_its_optimiser(equilibrium, waiting, optimizer) -> None:
    model, free = (small(optimizer=optimizer, equilibrium=equilibrium) for _ in range(2))
    for both in (model, free):  # so that the optimisers have a state to keep
        both.train_step(points())
    state = {
        player: [*variables, *model.optimizers[player].variables]
        for player, variables in model.players().items()
    }
    before = {player: [np.array(v) for v in variables] for player, variables in state.items()}
    model.margin = 0.65
    logs = model.train_step(points())
    free.train_step(points())
    for player, variables in free.players().items():
        moved = [np.array(v) for v in (*variables, *free.optimizers[player].variables)]
        expected = before[player] if player == waiting else moved
        for a, b in zip(state[player], expected, strict=True):
            np.testing.assert_array_equal(np.array(a), b, err_msg=player)
    assert not np.array_equal(before["encoder"][0], state["encoder"][0])
    for player in ("generator", "discriminator"):
        assert bool(logs[f"{player}_moves"]) == (player != waiting)


# Forms, slots, use.


def test_forms_have_the_same_networks() -> None:
    flags = {"filters": 4, "latent_dim": 5, "objective": "non_saturating"}
    models = {
        form: vae_gan.build(vae_gan.HParams(form=form, **flags), IMAGES)
        for form in ("vae_gan", "vae_dis", "vae", "gan")
    }
    classes = [vae_gan.VAEGAN, vae_gan.VAEDis, vae_gan.PixelVAE, gan.GAN]
    assert [type(model) for model in models.values()] == classes
    whole, pixels = models["vae_gan"], models["vae"]
    assert isinstance(pixels, vae.VAE)
    for mine, its in (
        (whole.encoder, pixels.encoders[0]),
        (whole.generator, pixels.decoders[0]),
        (whole.generator, models["gan"].generator),
        (whole.discriminator, models["gan"].discriminator),
        (whole.generator, models["vae_dis"].generator),
        (whole.generator, models["vae_dis"].rival),
        (whole.discriminator, models["vae_dis"].discriminator),
    ):
        for a, b in zip(mine.get_weights(), its.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    z = tf.random.stateless_normal([3, 5], [1, 2])
    logits = pixels.decoders[0](z, training=False)
    np.testing.assert_allclose(np.tanh(logits), whole.decode(z), atol=1e-6)
    assert (whole.adversarial_weight, whole.similarity_weight) == (1.0, 1e-6)
    assert vae_gan.HParams(form="vae").image_range == "unit"
    assert vae_gan.HParams().image_range == "symmetric"


@pytest.mark.parametrize("form", ["vae_dis", "vae", "gan"])
def test_forms_train(form: str) -> None:
    model = vae_gan.build(vae_gan.HParams(form=form, filters=2, latent_dim=3), IMAGES)
    image = tf.random.stateless_uniform([4, 8, 8, 1], [1, 2])
    logs = model.train_step({"image": image})
    assert all(np.isfinite(value) for value in logs.values())
    assert model.sample(2, 0).shape == (2, 8, 8, 1)
    assert "samples" in model.pictures({"image": image}, 0)


# VAE_Dis-l: first a GAN, then a VAE by its discriminator.


def small_dis(optimizer=keras.optimizers.SGD, **arguments) -> vae_gan.VAEDis:
    rival = mlp((3,), (8,), (2,), activation="relu", seed=4, name="rival")
    given = {"similarity_layer": "hidden_2", "margin": None, "gan_steps": 4, "rival": rival}
    model = vae_gan.VAEDis(*networks(), **{**given, **arguments})
    model.compile(**{player: optimizer(RATE) for player in model.players()})
    return model


def test_losses_of_both_stages_of_vae_dis_against_numpy() -> None:
    model, x = small_dis(kl_weight=0.4, objective="minimax"), points()["point"]
    code, drawn = latents_of(model, x)
    fake, back = layers_of(model.rival, drawn)[-1], layers_of(model.generator, code)[-1]
    (_, wanted, on_real), (_, found, _), (_, _, on_fake) = (
        layers_of(model.discriminator, at) for at in (x, back, fake)
    )
    losses, _ = model.game_losses(points())
    game = softplus(-on_real).mean() + softplus(on_fake).mean()
    assert float(losses["discriminator"]) == pytest.approx(game, rel=1e-5)
    assert float(losses["rival"]) == pytest.approx(-softplus(on_fake).mean(), rel=1e-5)
    mean, log_std = np.split(layers_of(model.encoder, x)[-1], 2, axis=1)
    prior = (0.5 * (np.exp(2 * log_std) + mean**2 - 1) - log_std).sum(1).mean()
    llike = 0.5 * ((wanted - found) ** 2).sum(1).mean()
    losses, logs = model.losses(points())
    assert float(losses["encoder"]) == pytest.approx(0.4 * prior + llike, rel=1e-5)
    assert float(losses["generator"]) == pytest.approx(llike, rel=1e-5)
    assert float(logs["prior"]) == pytest.approx(prior, rel=1e-5)


def test_vae_dis_trains_a_gan_and_then_a_vae_by_its_discriminator() -> None:
    spec = dataclasses.replace(IMAGES, shapes={"image": (16, 16, 1)})
    flags = {"form": "vae_dis", "filters": 2, "latent_dim": 3, "steps": 8, "gan_part": 0.5}
    model = vae_gan.build(vae_gan.HParams(**flags, discriminator_steps=2), spec)
    assert model.stage_starts() == (4,)
    image = tf.random.stateless_uniform([4, 16, 16, 1], [1, 2], -1, 1)
    stream = iter(tf.data.Dataset.from_tensors({"image": image}).repeat())
    of = {name: getattr(model, name) for name in ("rival", "discriminator", "encoder", "generator")}
    for moving, logged in (
        ({"rival", "discriminator"}, {"discriminator_loss", "generator_loss"}),
        ({"encoder", "generator"}, {"prior", "llike"}),
    ):
        # Batch statistics too: a discriminator that stands still judges by those it was left with.
        before = {name: [v.numpy() for v in network.variables] for name, network in of.items()}
        rows = model.run_steps(stream, 4)
        assert logged <= rows[-1].keys()
        assert ("discriminator_loss" in rows[-1]) == ("discriminator" in moving)
        for name, network in of.items():
            for variable, old in zip(network.variables, before[name], strict=True):
                same = np.array_equal(variable.numpy(), old)
                assert same == (name not in moving), variable.path
    moved = {player: int(o.iterations) for player, o in model.optimizers.items()}
    assert moved == {"generator": 4, "encoder": 4, "rival": 4, "discriminator": 8}
    assert moved == {player: model.updates(player, 8) for player in moved}
    assert model.diagnose(rows[-1]) == {}


def test_the_kl_weight_of_vae_dis_rises_from_its_second_stage() -> None:
    model = small_dis(kl_warmup_steps=10)
    for step, weight in ((4, 0.0), (9, 0.5), (14, 1.0)):
        model.step.assign(step)
        losses, logs = model.losses(points())
        expected = weight * float(logs["prior"]) + float(logs["llike"])
        assert float(losses["encoder"]) == pytest.approx(expected, rel=1e-6)


def test_round_trip_of_vae_dis() -> None:
    model = small_dis(historical_average_weight=0.1)
    twin = vae_gan.VAEDis.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert twin.get_config() == model.get_config()
    x = points()["point"]
    np.testing.assert_array_equal(twin.reconstruct(x, 1), model.reconstruct(x, 1))
    logs = model.train_step(points())
    assert {"rival_past_distance", "discriminator_past_distance"} <= logs.keys()


def test_batch_statistics_are_of_real_and_fake_together() -> None:
    """D and Dec see their images and latents as one batch each, as in the published code."""
    spec = dataclasses.replace(IMAGES, shapes={"image": (16, 16, 1)})
    model = vae_gan.build(vae_gan.HParams(filters=2), spec)
    image = tf.random.stateless_uniform([4, 16, 16, 1], [1, 2], -1, 1)
    code = model.encoder(image, training=True)  # its batch norm as in a step
    code = distributions.diagonal_gaussian(code).sample(seed=model.noise_seed(10))
    drawn = model.draw_latents(4, model.noise_seed(gan.FOR_G))
    made = model.generator(tf.concat([code, drawn], 0), training=True)
    logits = model.discriminator(tf.concat([image, made], 0), training=True)
    logs = model.losses({"image": image})[1]
    assert float(logs["logit_real"]) == pytest.approx(np.mean(logits[:4]), rel=1e-4, abs=1e-6)
    apart = model.discriminator(image, training=True)
    assert float(logs["logit_real"]) != pytest.approx(np.mean(apart), rel=1e-2)


def test_slots_of_the_family() -> None:
    plain, penalised = small(), small(penalty="r1", penalty_weight=3.0)
    a, b = plain.losses(points())[0], penalised.losses(points())[0]
    assert float(b["discriminator"]) > float(a["discriminator"])
    assert float(b["encoder"]) == float(a["encoder"])
    assert float(b["generator"]) == float(a["generator"])
    smoothed = small(positive_label=0.9).losses(points())[0]
    assert float(smoothed["discriminator"]) != float(a["discriminator"])
    logs = small(historical_average_weight=1.0).train_step(points())
    assert {f"{p}_past_distance" for p in ("generator", "discriminator", "encoder")} <= set(logs)


def test_updates_of_a_step() -> None:
    model = small(discriminator_steps=3)
    for _ in range(model.extra_steps(0)):
        model.extra_step(points())
    model.train_step(points())
    expected = {"generator": 1, "discriminator": 3, "encoder": 1}
    assert {player: int(o.iterations) for player, o in model.optimizers.items()} == expected
    assert {player: model.updates(player, 1) for player in expected} == expected


def test_codes_and_reconstructions() -> None:
    model, x = small(), points()["point"]
    mean, log_std = np.split(layers_of(model.encoder, x)[-1], 2, axis=1)
    np.testing.assert_allclose(model.encode(x), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.reconstruct(x, 3), model.reconstruct(x, 3))
    assert not np.array_equal(model.reconstruct(x, 3), model.reconstruct(x, 4))
    code = model.posterior(x).sample(seed=[3, 0])
    np.testing.assert_allclose(
        model.reconstruct(x, 3), layers_of(model.generator, code)[-1], rtol=1e-4, atol=1e-5
    )
    codes = np.stack([model.posterior(x).sample(seed=[s, 0]) for s in range(2000)])
    # Standard errors of a sample's mean and deviation: 1/sqrt(N) and 1/sqrt(2 N) sigmas.
    np.testing.assert_array_less(np.abs(codes.mean(0) - mean) / np.exp(log_std), 5 / 2000**0.5)
    np.testing.assert_allclose(codes.std(0), np.exp(log_std), rtol=5 / 4000**0.5)


def test_round_trip() -> None:
    model = small(equilibrium=0.5, margin=0.1)
    twin = vae_gan.VAEGAN.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert twin.get_config() == model.get_config()
    x = points()["point"]
    np.testing.assert_array_equal(twin.reconstruct(x, 1), model.reconstruct(x, 1))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"margin": -0.1}, "--margin must be 0 or more"),
        ({"similarity_weight": -1.0}, "--similarity_weight must be 0 or more"),
        ({"free_bits": -1.0}, "^--free_bits must be 0 or more. Received: --free_bits=-1.0$"),
        ({"kl_weight": -1.0}, "^--kl_weight must be 0 or more. Received: --kl_weight=-1.0$"),
        ({"gan_part": 1.0}, "^--gan_part must be between 0 and 1. Received: --gan_part=1.0$"),
        ({"latents": "uniform"}, "--latents must be normal for a VAE. Received: uniform"),
        ({"feature_matching_layer": "features"}, "by --similarity_layer. Received: .*=features"),
        ({"objective": "hinge"}, "set --margin=none.* Received: --objective=hinge"),
        ({"form": "vae", "norm": "virtual"}, "Received: --networks=dcgan --norm=virtual"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae_gan.HParams(**flags)


def test_wrong_arguments_are_named() -> None:
    generator, discriminator, _ = networks()
    with pytest.raises(ValueError, match=r"\(2,\) to \(6,\). Received: \(2,\) to \(3,\)"):
        vae_gan.VAEGAN(generator, discriminator, mlp((2,), (8,), (3,)))
    with pytest.raises(ValueError, match=r"similarity_layer must be one of.*Received: 'hiden'"):
        small(similarity_layer="hiden")
    with pytest.raises(ValueError, match="Received: latents='uniform'"):
        small(latents="uniform")
    with pytest.raises(ValueError, match="Received: margin=0.35 with objective='hinge'"):
        small(objective="hinge", margin=0.35)
    with pytest.raises(ValueError, match="^gan_steps must be more than 0. Received: gan_steps=0$"):
        small_dis(gan_steps=0)
    with pytest.raises(ValueError, match=r"rival must map \(3,\) to .*: \(4,\) to \(2,\)$"):
        small_dis(rival=mlp((4,), (8,), (2,)))
    with pytest.raises(ValueError, match="^free_bits must be 0 or more. Received: free_bits=-1.0$"):
        small(free_bits=-1.0)
