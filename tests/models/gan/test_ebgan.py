"""EBGAN: the energy and its margin, the repelling regulariser in the generator's loss alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import ebgan
from tfgen.networks.mlp import mlp

SHAPE = (8, 8, 1)


def small(rate: float = 0.1, **arguments) -> ebgan.EBGAN:
    model = ebgan.EBGAN(
        mlp((4,), (8,), SHAPE, seed=1, name="generator"),
        ebgan.dense_autoencoder(SHAPE, (16, 6), seed=2),
        **arguments,
    )
    sgd = keras.optimizers.SGD
    model.compile(generator=sgd(rate), discriminator=sgd(rate))
    return model


def batch(count: int = 6) -> dict[str, tf.Tensor]:
    values = np.random.default_rng(0).uniform(-1, 1, size=(count, *SHAPE)).astype(np.float32)
    return {"image": tf.constant(values)}


def energies(model: ebgan.EBGAN, images: tf.Tensor) -> np.ndarray:
    error = (images - model.discriminator(images)).numpy()
    return np.sqrt((error.reshape(len(error), -1) ** 2).sum(1))


def test_the_energy_is_the_norm_of_the_error_over_all_pixels() -> None:
    model = small()
    image = batch()["image"]
    code, energy = model.code_and_energy(image)
    np.testing.assert_allclose(energy, energies(model, image), rtol=1e-5)
    np.testing.assert_allclose(model.score(image), -energies(model, image), rtol=1e-5)
    assert code.shape == (6, 6)


def test_the_gradient_of_a_perfect_reconstruction_is_finite() -> None:
    identity = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Activation("linear", name="code")], name="discriminator"
    )
    model = ebgan.EBGAN(mlp((4,), (8,), SHAPE), identity)
    image = batch()["image"]
    with tf.GradientTape() as tape:
        tape.watch(image)
        _, energy = model.code_and_energy(image)
    assert np.isfinite(tape.gradient(energy, image)).all()


@pytest.mark.parametrize("margin", [0.5, 4.0, 100.0])  # below, among and above the energies
def test_the_discriminators_loss(margin: float) -> None:
    model = small(margin=margin)
    loss, logs = model.discriminator_loss(batch())
    real, fake = energies(model, batch()["image"]), energies(model, model.generate(6, 10))
    expected = real.mean() + np.maximum(0.0, margin - fake).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(logs["energy_real"]) == pytest.approx(real.mean(), rel=1e-5)
    assert float(logs["energy_fake"]) == pytest.approx(fake.mean(), rel=1e-5)


def test_beyond_the_margin_fakes_do_not_move_the_discriminator() -> None:
    """The hinge is of each fake: with margin 0.5 all are beyond, and only real images count."""
    model, batch_ = small(margin=0.5), batch()
    variables = model.discriminator.trainable_variables
    with tf.GradientTape() as whole, tf.GradientTape() as real:
        loss, _ = model.discriminator_loss(batch_)
        energy = tf.reduce_mean(model.code_and_energy(batch_["image"])[1])
    for a, b in zip(whole.gradient(loss, variables), real.gradient(energy, variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_regulariser_by_hand() -> None:
    # cos of the pairs: 0 (e1, e2), 1/sqrt 2 (e1, e1 + e2), 1/sqrt 2 (e2, e1 + e2), each twice.
    codes = tf.constant([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    assert float(ebgan.pulling_away(codes)) == pytest.approx((0.0 + 0.5 + 0.5) / 3, rel=1e-6)
    assert float(ebgan.pulling_away(tf.ones([5, 2, 3]))) == pytest.approx(1.0, rel=1e-6)
    assert float(ebgan.pulling_away(-10.0 * codes)) == pytest.approx(1 / 3, rel=1e-6)
    assert float(ebgan.pulling_away(tf.eye(4))) == pytest.approx(0.0, abs=1e-6)
    assert float(ebgan.pulling_away(tf.ones([1, 3]))) == 0.0
    assert float(ebgan.pulling_away(tf.zeros([3, 2]))) == 0.0  # dead ReLUs


def test_the_regulariser_is_in_the_generators_loss_alone() -> None:
    plain, repelled = small(repelling_weight=0.0), small(repelling_weight=3.0)
    bare, _ = plain.generator_loss(batch())
    loss, logs = repelled.generator_loss(batch())
    fake = repelled.generate(6, 11)
    code = repelled.code_and_energy(fake)[0]
    assert float(logs["generator_loss"]) == pytest.approx(energies(plain, fake).mean(), rel=1e-5)
    assert float(logs["pulling_away"]) == pytest.approx(float(ebgan.pulling_away(code)), rel=1e-5)
    assert float(logs["pulling_away"]) > 0
    expected = float(bare) + 3.0 * float(logs["pulling_away"])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    of_d = [float(model.discriminator_loss(batch())[0]) for model in (plain, repelled)]
    assert of_d[0] == of_d[1]


def test_the_generator_moves_by_the_regulariser() -> None:
    """It spreads the codes where the energy has no weight; the discriminator stays."""
    model = small(rate=1.0, repelling_weight=1.0, adversarial_weight=0.0)
    before = model.discriminator.get_weights()
    first = model.move("generator", model.generator_loss, batch(32))["pulling_away"]
    for _ in range(30):
        last = model.move("generator", model.generator_loss, batch(32))["pulling_away"]
    assert float(last) < 0.7 * float(first)
    for old, new in zip(before, model.discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_at_equilibrium_the_discriminators_loss_is_the_margin() -> None:
    """Theorem 1 with p_G = p_data and D flat at any height in [0, m]."""
    for height in (0.0, 0.7, 2.0):
        flat = keras.Sequential(
            [
                keras.Input((1,)),
                keras.layers.Dense(1, kernel_initializer="ones", name="code"),
                keras.layers.Rescaling(1.0, offset=height),
            ]
        )
        model = ebgan.EBGAN(keras.Sequential([keras.Input((1,)), flat.layers[0]]), flat, margin=2.0)
        points = {"point": tf.random.stateless_normal([8, 1], [0, 0])}
        assert float(model.discriminator_loss(points)[0]) == pytest.approx(2.0, rel=1e-5)


def test_feature_matching_is_added() -> None:
    plain, matched = small(), small(feature_matching_layer="code", feature_matching_weight=3.0)
    loss, logs = matched.generator_loss(batch())
    bare, _ = plain.generator_loss(batch())
    assert float(logs["feature_distance"]) > 0
    expected = float(bare) + 3.0 * float(logs["feature_distance"])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_features_are_matched_in_training_mode() -> None:
    layers = [
        keras.Input(SHAPE),
        keras.layers.Flatten(),
        keras.layers.BatchNormalization(name="code"),
        keras.layers.Reshape(SHAPE),
    ]
    generator = mlp((4,), (8,), SHAPE, seed=1, name="generator")
    model = ebgan.EBGAN(generator, keras.Sequential(layers), feature_matching_layer="code")
    # Normed by their own batch, real images and fakes have equal means.
    assert float(model.generator_loss(batch())[1]["feature_distance"]) < 1e-6


def test_diagnosis() -> None:
    model = small(margin=4.0)
    healthy = {"discriminator_loss": 3.0, "energy_real": 1.0, "energy_fake": 2.0, "spread": 0.9}
    assert model.diagnose(healthy) == {}
    won = model.diagnose({**healthy, "discriminator_loss": 0.03})["the discriminator has won"]
    assert "0.03 is next to 0, and 4 if D cannot tell, energy_real 1, energy_fake 2" in won
    found = model.diagnose({**healthy, "energy_fake": 5.0})["the fakes are beyond the margin"]
    assert found == "energy_fake 5 is above m = 4, energy_real 1"
    assert list(model.diagnose({**healthy, "spread": 0.01})) == ["mode collapse"]


def test_the_code_is_not_counted_twice() -> None:
    model = small()
    names = [v.path for v in model.trainable_variables]
    assert len(names) == len(set(names)) == 4 + 6


@pytest.mark.parametrize("networks", ["mlp", "dcgan"])
def test_build(networks: str) -> None:
    spec = DataSpec("x", {"image": (16, 16, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    hp = ebgan.HParams(
        networks=networks, hidden_units=(4,), discriminator_units=(5, 3), filters=2, margin=2.0
    )
    model = ebgan.build(hp, spec)
    assert (model.margin, model.repelling_weight) == (2.0, 0.1)
    code = model.discriminator.get_layer("code").output.shape
    assert code == ((None, 3) if networks == "mlp" else (None, 4, 4, 4))
    model.train_step({"image": tf.zeros([4, 16, 16, 1])})
    assert model.sample(3, 0).shape == (3, 16, 16, 1)


def test_the_dense_generator_has_batch_norm() -> None:
    """Without it the paper's on MNIST makes one image, whatever the latents."""
    spec = DataSpec("x", {"image": (28, 28, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    spreads = {}
    for norm in ("batch", "none"):
        model = ebgan.build(ebgan.HParams(norm=norm), spec)
        spreads[norm] = np.std(model.generate(64, 0), axis=0).mean()
    assert spreads["batch"] > 0.2 > 0.02 > spreads["none"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"margin": 0.0}, "--margin must be more than 0. Received: --margin=0.0"),
        ({"repelling_weight": -1.0}, "--repelling_weight must be 0 or more"),
        ({"batch_size": 1}, "--batch_size must be at least 2. Received: --batch_size=1"),
        ({"objective": "hinge"}, "--objective has no place .* Received: --objective=hinge"),
        ({"networks": "dcgan", "minibatch_kernels": 3}, "set --networks=mlp"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ebgan.HParams(**flags)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "Received: margin=0.0, repelling_weight=0.1"),
        ({"repelling_weight": -0.1}, "Received: margin=10.0, repelling_weight=-0.1"),
        ({"code_layer": "latent"}, r"one of .*'code'.* Received: 'latent'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)
