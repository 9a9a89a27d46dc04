"""InfoGAN: L_I against hand calculations, who gets its gradient, latents and their traversal."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfgen.data import DataSpec
from tfgen.models.gan import infogan
from tfgen.networks.mlp import mlp

SIZES, CONTINUOUS, NOISE = (3, 2), 2, 4
CODE = sum(SIZES) + CONTINUOUS


def small(learn_sigma: bool = False, **arguments) -> infogan.InfoGAN:
    beliefs = CODE + CONTINUOUS * learn_sigma
    judged = mlp((2,), (8, 8), (1,), activation="relu", seed=2, name="discriminator")
    model = infogan.InfoGAN(
        mlp((NOISE + CODE,), (8,), (2,), activation="relu", seed=1, name="generator"),
        judged,
        mlp((8,), (6,), (beliefs,), activation="relu", seed=3, name="recognition"),
        features_layer="hidden_2",
        categorical_codes=SIZES,
        continuous_codes=CONTINUOUS,
        learn_sigma=learn_sigma,
        **arguments,
    )
    model.compile(generator=keras.optimizers.SGD(0.1), discriminator=keras.optimizers.SGD(0.1))
    return model


def points(count: int = 6) -> dict[str, tf.Tensor]:
    return {"point": tf.constant(np.random.default_rng(0).normal(size=(count, 2)), tf.float32)}


def gradient_norms(model: infogan.InfoGAN, loss_of) -> dict[str, float]:
    """Norm of the gradient of a loss with respect to each network."""
    networks = {
        "generator": model.generator,
        "discriminator": model.discriminator,
        "recognition": model.recognition,
    }
    with tf.GradientTape(persistent=True) as tape:
        loss, _ = loss_of(points())
    return {
        name: float(tf.linalg.global_norm(tape.gradient(loss, network.trainable_variables)))
        for name, network in networks.items()
    }


SPEC = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", 10, 90, 9, 9)


def test_each_player_has_its_step_size() -> None:
    model = infogan.build(infogan.HParams(filters=8, dense_units=8), SPEC)
    rates = {name: float(o.learning_rate) for name, o in model.optimizers.items()}
    assert rates == pytest.approx({"generator": 1e-3, "discriminator": 2e-4})
    hp = infogan.HParams(filters=8, dense_units=8, discriminator_learning_rate=None)
    for optimizer in infogan.build(hp, SPEC).optimizers.values():
        assert float(optimizer.learning_rate) == pytest.approx(1e-3)


def test_normalisation_of_the_papers_networks_is_by_the_flags() -> None:
    flags = {"filters": 8, "dense_units": 8, "minibatch_kernels": 2}
    flags |= {"norm": "virtual", "reference_size": 50, "discriminator_norm": "none"}
    model = infogan.build(infogan.HParams(**flags), SPEC)
    kinds = {type(x).__name__ for x in (*model.discriminator.layers, *model.generator.layers)}
    assert "BatchNormalization" not in kinds
    (carrier,) = model.generator.layers
    reference = carrier.reference[0].numpy()
    assert reference.shape == (50, 62 + 12)
    np.testing.assert_array_equal(reference[:, 62:72].sum(1), 1)  # with codes that there are
    # Q reads the features before the examples are compared.
    assert model.features_layer == "features"
    assert model.classify(tf.zeros([1, 8, 8, 1])).shape == (1, 10)


def test_spread_is_in_the_logs() -> None:
    model = small()
    _, logs = model.discriminator_loss(points(50))
    fake = model.generator(model.draw_latents(50, model.noise_seed(10))).numpy()
    expected = np.sqrt(fake.var(0).mean() / points(50)["point"].numpy().var(0).mean())
    assert float(logs["spread"]) == pytest.approx(expected, rel=1e-4)


def test_latents_are_noise_then_one_hot_codes_then_uniform_ones() -> None:
    latents = small().draw_latents(20000, tf.constant([1, 2])).numpy()
    noise, first, second, continuous = np.split(latents, [NOISE, NOISE + 3, NOISE + 5], axis=1)
    for one_hot, size in ((first, 3), (second, 2)):
        np.testing.assert_array_equal(np.sort(one_hot, axis=1), np.eye(size)[[-1] * len(latents)])
        np.testing.assert_allclose(one_hot.mean(0), 1 / size, atol=0.02)  # 6 standard errors
    np.testing.assert_allclose(np.square(continuous).mean(0), 1 / 3, atol=0.015)
    everything = np.concatenate([noise, first[:, :2], second[:, :1], continuous], axis=1)
    off_diagonal = np.corrcoef(everything.T) - np.eye(everything.shape[1])
    off_diagonal[NOISE, NOISE + 1] = off_diagonal[NOISE + 1, NOISE] = 0  # of one one-hot code
    assert np.abs(off_diagonal).max() < 0.04  # all drawn independently
    assert np.abs(latents).max() <= 1.0


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_information_is_log_q_plus_entropy(learn_sigma: bool) -> None:
    model = small(learn_sigma)
    latents = model.draw_latents(5, tf.constant([1, 2]))
    beliefs = np.random.default_rng(0).normal(size=(5, CODE + 2 * learn_sigma)).astype(np.float32)
    found = model.code_information(tf.constant(beliefs), latents).numpy()
    code = latents.numpy()[:, NOISE:]
    first = tfd.Categorical(beliefs[:, :3]).log_prob(code[:, :3].argmax(1)) + math.log(3)
    second = tfd.Categorical(beliefs[:, 3:5]).log_prob(code[:, 3:5].argmax(1)) + math.log(2)
    sigma = np.exp(beliefs[:, 7:]) if learn_sigma else 1.0
    rest = tfd.Normal(beliefs[:, 5:7], sigma).log_prob(code[:, 5:]) + math.log(2)  # H(U[-1, 1])
    expected = np.concatenate([np.stack([first, second], axis=1), rest], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_sure_and_right_belief_has_all_the_entropy() -> None:
    model = small()
    latents = model.draw_latents(5, tf.constant([1, 2]))
    code = latents[:, NOISE:]
    sure = tf.concat([100.0 * code[:, :5], code[:, 5:]], axis=1)
    found = model.code_information(sure, latents).numpy()
    peak = math.log(2) - 0.5 * math.log(2 * math.pi)  # of a Gaussian whose sigma is 1
    np.testing.assert_allclose(found, np.tile([math.log(3), math.log(2), peak, peak], (5, 1)), 1e-5)
    nothing = model.code_information(tf.zeros_like(sure), latents).numpy()
    np.testing.assert_allclose(nothing[:, :2], 0.0, atol=1e-6)


def test_the_term_is_subtracted_from_both_losses() -> None:
    weights = {"categorical_weight": 0.5, "continuous_weight": 2.0}
    model, without = small(**weights), small(categorical_weight=0.0, continuous_weight=0.0)
    for loss_of, bare, salt in (
        (model.discriminator_loss, without.discriminator_loss, infogan._FOR_D),
        (model.generator_loss, without.generator_loss, infogan._FOR_G),
    ):
        latents = model.draw_latents(6, model.noise_seed(salt))
        beliefs = model.recognize(model.generator(latents))
        information = model.code_information(beliefs, latents).numpy().mean(0)
        expected = 0.5 * information[:2].sum() + 2.0 * information[2:].sum()
        difference = float(bare(points())[0]) - float(loss_of(points())[0])
        assert difference == pytest.approx(expected, rel=1e-4)  # of a difference of float32


def test_who_feels_the_information() -> None:
    model, control = small(adversarial_weight=0.0), small(info_to_generator=False)
    assert all(norm > 0 for norm in gradient_norms(model, model.generator_loss).values())
    norms = gradient_norms(model, model.discriminator_loss)
    assert norms["generator"] == 0.0
    assert norms["recognition"] > 0.0
    norms = gradient_norms(control, control.generator_loss)
    assert norms["generator"] > 0.0  # of the game alone
    assert norms["recognition"] == 0.0
    assert gradient_norms(control, control.discriminator_loss)["recognition"] > 0.0


def test_q_moves_with_the_discriminator_alone() -> None:
    model = small()
    before = model.recognition.get_weights()
    model.move("generator", model.generator_loss, points())
    for old, new in zip(before, model.recognition.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.move("discriminator", model.discriminator_loss, points())
    assert not np.array_equal(before[0], model.recognition.get_weights()[0])


def test_penalty_and_feature_matching_keep_their_slots() -> None:
    plain, penalised = small(), small(penalty="r1", penalty_weight=3.0)
    loss, logs = penalised.discriminator_loss(points())
    bare = float(plain.discriminator_loss(points())[0])
    assert float(loss) == pytest.approx(bare + 3.0 * float(logs["penalty"]), rel=1e-5)
    matching = small(feature_matching_layer="hidden_1", feature_matching_weight=2.0)
    loss, logs = matching.generator_loss(points())
    bare = float(plain.generator_loss(points())[0])
    assert float(loss) == pytest.approx(bare + 2.0 * float(logs["feature_distance"]), rel=1e-5)


def images(**flags) -> infogan.InfoGAN:
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    return infogan.build(infogan.HParams(filters=8, dense_units=16, **flags), spec)


def test_the_papers_networks() -> None:
    spec = DataSpec("x", {"image": (28, 28, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    model = infogan.build(infogan.HParams(), spec)
    shapes = [tuple(v.shape) for v in model.trainable_variables if v.name == "kernel"]
    assert shapes == [
        (74, 1024), (1024, 7 * 7 * 128), (4, 4, 64, 128), (4, 4, 1, 64),  # upwards: out before in
        (4, 4, 1, 64), (4, 4, 64, 128), (7 * 7 * 128, 1024), (1024, 1),
        (1024, 128), (128, 12),
    ]  # fmt: skip
    leaky = [x for x in model.discriminator.layers if isinstance(x, keras.layers.LeakyReLU)]
    assert [x.negative_slope for x in leaky] == pytest.approx([0.1] * 3)


def test_batch_statistics_are_of_the_batch_and_change_nothing() -> None:
    model = images()
    image = tf.random.stateless_uniform([6, 8, 8, 1], [1, 2])
    before = [np.array(v) for v in model.variables]
    beliefs = model.recognize(image, batch_statistics=True).numpy()
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    _, expected = model.judge_and_recognize(image)  # in training mode, which moves averages
    np.testing.assert_allclose(beliefs, expected, atol=1e-6)
    alone = model.recognize(image[:3], batch_statistics=True).numpy()
    assert np.abs(alone - beliefs[:3]).max() > 1e-4


def test_traversals_change_one_code_and_nothing_else() -> None:
    model = images()
    seen: list[np.ndarray] = []
    model.decode = lambda latent: seen.append(latent.numpy()) or tf.zeros([len(latent), 8, 8, 1])
    assert model.traverse(0, 3, 5, seed=1).shape == (3, 10, 8, 8, 1)
    assert model.traverse(2, 3, 5, seed=1).shape == (3, 5, 8, 8, 1)
    categorical, continuous = seen[0].reshape(3, 10, -1), seen[1].reshape(3, 5, -1)
    np.testing.assert_array_equal(categorical[1, :, 62:72], np.eye(10))
    np.testing.assert_array_equal(np.ptp(np.delete(categorical, np.s_[62:72], 2), axis=1), 0)
    np.testing.assert_allclose(continuous[0, :, 73], [-2, -1, 0, 1, 2])
    np.testing.assert_array_equal(np.ptp(continuous[:, :, :73], axis=1), 0)
    np.testing.assert_array_equal(continuous[:, 0, 62:72].argmax(1), [0, 1, 2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"categorical_codes": (1,)}, r"at least 2 values. Received: categorical_codes=\[1\]"),
        ({"categorical_codes": (), "continuous_codes": 0}, "there must be a code"),
        ({"categorical_weight": -1.0}, "--categorical_weight must be 0 or more"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        infogan.HParams(**flags)


def test_networks_that_do_not_fit_are_named() -> None:
    judged = mlp((2,), (8,), (1,))
    with pytest.raises(ValueError, match=r"at least the 12 dimensions .* input \(5,\)"):
        infogan.InfoGAN(mlp((5,), (8,), (2,)), judged, mlp((8,), (), (12,)))
    with pytest.raises(ValueError, match=r"must end in 12 numbers.* Received: \(11,\)"):
        infogan.InfoGAN(mlp((50,), (8,), (2,)), judged, mlp((8,), (), (11,)))
