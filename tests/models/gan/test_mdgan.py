"""MDGAN: both forms against the losses written out, and who moves when."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import gan, mdgan
from tfgen.networks.mlp import mlp


def networks() -> list[keras.Model]:
    """Generator, discriminator, encoder, manifold discriminator."""
    return [
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8, 8), (1,), activation="relu", seed=2, name="discriminator"),
        mlp((2,), (8,), (4,), activation="relu", seed=3, name="encoder"),
        mlp((2,), (8, 8), (1,), activation="relu", seed=4, name="manifold_discriminator"),
    ]


def small(form: type[mdgan.RegGAN] = mdgan.RegGAN, **arguments) -> mdgan.RegGAN:
    model = form(*networks()[: 4 if form is mdgan.MDGAN else 3], **arguments)
    model.compile(**{player: keras.optimizers.SGD(0.1) for player in model.players()})
    return model


def points(count: int = 6) -> dict[str, tf.Tensor]:
    return {"point": tf.constant(np.random.default_rng(0).normal(size=(count, 2)), tf.float32)}


def softplus(x) -> np.ndarray:
    return np.log1p(np.exp(np.asarray(x)))


def moved(model: mdgan.RegGAN, players, loss_of) -> set[str]:
    """The players whose variables one move changes."""
    before = {p: [np.array(v) for v in vs] for p, vs in model.players().items()}
    model.move(players, loss_of, points())
    return {
        player
        for player, variables in model.players().items()
        if not all(np.array_equal(a, b) for a, b in zip(before[player], variables, strict=True))
    }


def test_regularised_losses_written_out() -> None:
    model, real = small(distance_weight=0.3, mode_weight=0.7), points()["point"]
    back = model.generator(model.encoder(real))
    fake = model.generate(6, gan.FOR_G)
    game = softplus(-model.discriminator(fake)).mean()  # -log D(G(z))
    distance = np.square(real - back).mean()
    fooled = softplus(-model.discriminator(back)).mean()  # -log D(G(E(x))), and not plus
    loss, logs = model.generator_loss(points())
    assert float(loss) == pytest.approx(game + 0.3 * distance + 0.7 * fooled, rel=1e-5)
    assert float(logs["distance"]) == pytest.approx(distance, rel=1e-5)


def test_the_encoders_gradient_is_that_of_the_regularisers_alone() -> None:
    model = small()
    with tf.GradientTape(persistent=True) as tape:
        whole, _ = model.generator_loss(points())
        alone, _ = model.regularizer(points()["point"])
    variables = model.encoder.trainable_variables
    for a, b in zip(tape.gradient(whole, variables), tape.gradient(alone, variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_both_players_move_from_the_same_point() -> None:
    """One move of two players is that of each alone, and not the one after the other."""
    both, one, other = small(), small(), small()
    both.move(("generator", "encoder"), both.generator_loss, points())
    one.move("generator", one.generator_loss, points())
    other.move("encoder", other.generator_loss, points())
    for a, b in zip(both.generator.get_weights(), one.generator.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(both.encoder.get_weights(), other.encoder.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_without_weights_it_is_the_gan() -> None:
    model = small(distance_weight=0.0, mode_weight=0.0)
    plain = gan.GAN(*networks()[:2])
    assert float(model.generator_loss(points())[0]) == float(plain.generator_loss(points())[0])
    loss = model.discriminator_loss(points())[0]
    assert float(loss) == float(plain.discriminator_loss(points())[0])


def test_manifold_diffusion_losses_written_out() -> None:
    model = small(mdgan.MDGAN, distance_weight=1.0, mode_weight=0.01)
    real, d1, d2 = points()["point"], model.manifold_discriminator, model.discriminator
    back = model.generator(model.encoder(real))
    loss, _ = model.manifold_discriminator_loss(points())
    assert float(loss) == pytest.approx((softplus(-d1(real)) + softplus(d1(back))).mean(), rel=1e-5)
    loss, _ = model.manifold_loss(points())
    expected = np.square(real - back).mean() + 0.01 * softplus(-d1(back)).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss, _ = model.discriminator_loss(points())
    fake = model.generate(6, gan._FOR_D)
    assert float(loss) == pytest.approx((softplus(-d2(back)) + softplus(d2(fake))).mean(), rel=1e-5)
    loss, _ = model.generator_loss(points())
    fake = model.generate(6, gan.FOR_G)
    assert float(loss) == pytest.approx(softplus(-d2(fake)).mean(), rel=1e-5)


def test_spread_is_a_part_of_the_datas_in_both_forms() -> None:
    real = points(50)["point"].numpy()
    for form in (mdgan.RegGAN, mdgan.MDGAN):
        model = small(form)
        fake = model.generate(50, gan._FOR_D).numpy()
        expected = np.sqrt(fake.var(0).mean() / real.var(0).mean())
        logs = model.discriminator_loss(points(50))[1]
        assert float(logs["spread"]) == pytest.approx(expected, rel=1e-4)


def test_either_discriminator_may_win() -> None:
    logs = {"discriminator_loss": 1.3, "manifold_discriminator_loss": 0.001}
    assert list(small(mdgan.MDGAN).diagnose(logs)) == ["the manifold discriminator has won"]


def test_each_player_has_its_step_size() -> None:
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", 10, 90, 9, 9)
    hp = mdgan.HParams(
        form="manifold_diffusion", filters=2, learning_rate=1e-3, discriminator_learning_rate=1e-4
    )
    rates = {n: float(o.learning_rate) for n, o in mdgan.build(hp, spec).optimizers.items()}
    assert rates == pytest.approx(
        {"generator": 1e-3, "encoder": 1e-3, "discriminator": 1e-4, "discriminator_manifold": 1e-4}
    )


def test_distances_are_in_the_lengths_of_the_networks() -> None:
    real = points()["point"]
    _, logs = small(event_scale=4.0).regularizer(real)
    _, plain = small().regularizer(real)
    assert float(logs["distance"]) == pytest.approx(float(plain["distance"]) / 16, rel=1e-5)


def test_who_moves() -> None:
    model = small()
    assert moved(model, "discriminator", model.discriminator_loss) == {"discriminator"}
    both = ("generator", "encoder")
    assert moved(model, both, model.generator_loss) == {"generator", "encoder"}
    model = small(mdgan.MDGAN)
    d1 = "discriminator_manifold"
    assert moved(model, d1, model.manifold_discriminator_loss) == {d1}
    assert moved(model, both, model.manifold_loss) == {"generator", "encoder"}
    assert moved(model, "discriminator", model.discriminator_loss) == {"discriminator"}
    assert moved(model, "generator", model.generator_loss) == {"generator"}


def test_updates_of_a_step() -> None:
    for form, expected in (
        (mdgan.RegGAN, {"generator": 1, "encoder": 1, "discriminator": 3}),
        (
            mdgan.MDGAN,
            {"generator": 2, "encoder": 1, "discriminator": 3, "discriminator_manifold": 3},
        ),
    ):
        model = small(form, discriminator_steps=3)
        for _ in range(model.extra_steps(0)):
            model.extra_step(points())
        model.train_step(points())
        assert {player: int(o.iterations) for player, o in model.optimizers.items()} == expected
        assert {player: model.updates(player, 1) for player in expected} == expected


def test_slots_of_the_family() -> None:
    plain = small(mdgan.MDGAN)
    penalised = small(mdgan.MDGAN, penalty="r1", penalty_weight=3.0, historical_average_weight=1.0)
    for name in ("manifold_discriminator_loss", "discriminator_loss"):
        loss_of = getattr(penalised, name)
        assert float(loss_of(points())[0]) > float(getattr(plain, name)(points())[0])
    logs = penalised.move(("generator", "encoder"), penalised.manifold_loss, points())
    assert "generator_past_distance" in logs


def test_side_by_side_is_red_then_green_then_blue() -> None:
    seen = mlp((2, 6, 1), (), (1,))
    made = keras.Sequential([keras.Input((12,)), keras.layers.Reshape((2, 6, 1))])
    generator, discriminator = mdgan.side_by_side(made, seen, (2, 2, 3))
    wide = np.arange(12.0).reshape(1, 2, 6, 1).astype(np.float32)
    image = generator(wide.reshape(1, 12)).numpy()
    for channel in range(3):
        expected = wide[:, :, 2 * channel : 2 * channel + 2, 0]
        np.testing.assert_array_equal(image[..., channel], expected)
    np.testing.assert_allclose(discriminator(image), seen(wide), rtol=1e-6)


@pytest.mark.parametrize("form", ["regularized", "manifold_diffusion"])
def test_side_by_side_trains(form: str) -> None:
    spec = DataSpec("x", {"image": (8, 8, 3)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    model = mdgan.build(mdgan.HParams(filters=2, side_by_side=True, form=form), spec)
    assert isinstance(model, mdgan.MDGAN) == (form == "manifold_diffusion")
    images = tf.random.stateless_uniform([4, 8, 8, 3], [1, 2], -1, 1)
    logs = model.train_step({"image": images})
    assert all(np.isfinite(value) for value in logs.values())
    assert model.sample(2, 0).shape == (2, 8, 8, 3)
    assert model.pictures({"image": images}, 0)["reconstructions"].shape == (2, 4, 8, 8, 3)


@pytest.mark.parametrize("form", ["regularized", "manifold_diffusion", "plain"])
def test_dense_networks_build(form: str) -> None:
    spec = DataSpec("ring8", {"point": (2,)}, {"point": "float32"}, "symmetric", 8, 9, 9, 9)
    flags = {"data": "ring8", "networks": "mlp", "hidden_units": (8,), "latent_dim": 3}
    model = mdgan.build(mdgan.HParams(form=form, **flags), spec)
    classes = {"regularized": mdgan.RegGAN, "manifold_diffusion": mdgan.MDGAN, "plain": gan.GAN}
    assert type(model) is classes[form]
    kernels = [v.numpy() for v in model.trainable_variables if v.shape == (2, 8)]
    assert len(kernels) == {"regularized": 2, "manifold_diffusion": 3, "plain": 1}[form]
    assert len({k.tobytes() for k in kernels}) == len(kernels)  # each has its own start


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mode_weight": -0.1}, "--mode_weight must be 0 or more"),
        ({"side_by_side": True, "networks": "mlp"}, "set --networks=dcgan. Received: .*=mlp"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mdgan.HParams(**flags)


def test_networks_that_do_not_fit_are_named() -> None:
    generator, discriminator, *_ = networks()
    with pytest.raises(ValueError, match=r"\(2,\) to \(4,\). Received: \(2,\) to \(5,\)"):
        mdgan.RegGAN(generator, discriminator, mlp((2,), (8,), (5,)))
    with pytest.raises(ValueError, match="must be 0 or more. Received: -1.0 and 0.4"):
        small(distance_weight=-1.0)
    with pytest.raises(ValueError, match=r"Received: \(2,\) and \(3,\)"):
        mdgan.MDGAN(*networks()[:3], mlp((3,), (8,), (1,)))


def test_manifold_diffusion_round_trip() -> None:
    model = small(mdgan.MDGAN, mode_weight=0.01)
    twin = mdgan.MDGAN.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert twin.get_config() == model.get_config()
    np.testing.assert_array_equal(twin.sample(4, 7), model.sample(4, 7))
    x = points()["point"]
    np.testing.assert_array_equal(twin.reconstruct(x), model.reconstruct(x))


def test_what_is_brought_back_leaves_the_averages_of_samples_alone() -> None:
    """E(x) is not distributed as z, by whose statistics G is sampled."""
    hp = mdgan.HParams(filters=4, latent_dim=8, batch_size=8)
    shapes, kinds = {"image": (8, 8, 1)}, {"image": "float32"}
    model = mdgan.build(hp, DataSpec("digits", shapes, kinds, "symmetric", None, 100, 20, 20))
    image = tf.constant(np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)), tf.float32)
    weights, averages = model.generator.trainable_variables, model.generator.non_trainable_variables
    before = [v.numpy() for v in averages]
    gradients = []

    def plain(x):
        return model.generator(model.encoder(x, training=True), training=True)

    for function in (model.bring_back, plain):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(function(image) - image))
        gradients.append(tape.gradient(loss, [v.value for v in weights]))
        if function == model.bring_back:
            assert averages
            for variable, value in zip(averages, before, strict=True):
                np.testing.assert_array_equal(variable.numpy(), value)
    for ours, expected in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(ours, expected, atol=1e-5)
