"""BEGAN: the energy, the controller of k, M and the step sizes; both players move at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import began
from tfgen.networks.mlp import mlp
from tfgen.training import checkpoint, strategies

SHAPE = (8, 8, 1)


def small(rate: float = 0.1, **arguments) -> began.BEGAN:
    model = began.BEGAN(
        mlp((4,), (8,), SHAPE, seed=1, name="generator"),
        mlp(SHAPE, (8,), SHAPE, seed=2, name="discriminator"),
        **arguments,
    )
    sgd = keras.optimizers.SGD
    model.compile(generator=sgd(rate), discriminator=sgd(rate))
    return model


def batch(count: int = 6, seed: int = 0) -> dict[str, tf.Tensor]:
    values = np.random.default_rng(seed).uniform(-1, 1, size=(count, *SHAPE)).astype(np.float32)
    return {"image": tf.constant(values)}


def stream(count: int = 6):
    return iter(tf.data.Dataset.from_tensors(batch(count)).repeat())


def energies(model: began.BEGAN, images: tf.Tensor) -> np.ndarray:
    return np.abs(images - model.discriminator(images)).reshape(len(images), -1).mean(1)


def test_the_energy_is_the_mean_over_pixels_of_the_absolute_error() -> None:
    model = small()
    image = batch()["image"]
    np.testing.assert_allclose(model.energy(image), energies(model, image), rtol=1e-5)
    np.testing.assert_allclose(model.score(image), -energies(model, image), rtol=1e-5)


def test_the_losses() -> None:
    model = small()
    model.k.assign(0.3)
    loss, logs = model.discriminator_loss(batch())
    fake = model.fakes_for_discriminator(batch())
    real = energies(model, batch()["image"]).mean()
    assert float(logs["energy_real"]) == pytest.approx(real, rel=1e-5)
    expected = real - 0.3 * energies(model, fake).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    own = model.generate(6, 11)
    assert not np.array_equal(own, fake), "z_D and z_G are drawn apart"
    expected = energies(model, own).mean()
    assert float(model.generator_loss(batch())[0]) == pytest.approx(expected, rel=1e-5)


def test_both_players_move_on_each_other_s_old_weights() -> None:
    model, twin = small(), small()
    for each in (model, twin):
        each.k.assign(0.5)
    with tf.GradientTape() as tape_d, tf.GradientTape() as tape_g:
        loss_d, _ = twin.discriminator_loss(batch())
        loss_g, _ = twin.generator_loss(batch())
    moves = [
        (tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        for tape, loss, network in (
            (tape_d, loss_d, twin.discriminator),
            (tape_g, loss_g, twin.generator),
        )
    ]
    expected = [v - 0.1 * g for gs, vs in moves for g, v in zip(gs, vs, strict=True)]
    model.train_step(batch())
    moved = model.discriminator.trainable_variables + model.generator.trainable_variables
    for new, old in zip(moved, expected, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("real", "fake", "k", "expected"),
    [
        (0.4, 0.1, 0.2, 0.2 + 0.01 * (0.5 * 0.4 - 0.1)),
        (0.4, 0.3, 0.2, 0.2 + 0.01 * (0.5 * 0.4 - 0.3)),
        (0.4, 0.3, 0.0, 0.0),  # kept in [0, 1]
        (0.4, 0.1, 1.0, 1.0),
    ],
)
def test_the_controller(real: float, fake: float, k: float, expected: float) -> None:
    model = small(gamma=0.5, balance_rate=0.01)
    assert float(model.k) == 0.0
    model.k.assign(k)
    model.balance(tf.constant(real), tf.constant(fake))
    assert float(model.k) == pytest.approx(expected, rel=1e-6)
    assert float(model.convergence) == pytest.approx(real + abs(0.5 * real - fake), rel=1e-6)


def test_the_controller_follows_the_logs_of_its_step() -> None:
    model = small(balance_rate=0.1)
    (logs,) = model.run_steps(stream(), 1)
    error = 0.5 * logs["energy_real"] - logs["energy_fake"]
    assert logs["k"] == pytest.approx(max(0.0, 0.1 * error), rel=1e-5)
    assert logs["convergence"] == pytest.approx(logs["energy_real"] + abs(error), rel=1e-5)


def test_the_ratio_of_the_energies_reaches_gamma() -> None:
    """A game in which G can always win needs k > 0, and integral control leaves no error."""
    model = small(rate=0.02, gamma=0.7, balance_rate=0.1)
    rows = model.run_steps(stream(), 1500)[-300:]
    real, fake = (np.mean([row[name] for row in rows]) for name in ("energy_real", "energy_fake"))
    assert fake / real == pytest.approx(0.7, rel=0.1)
    assert rows[-1]["k"] > 0


def test_the_step_sizes_are_halved_where_m_stalls() -> None:
    model = small(stall_steps=2)
    rates = []
    for real in (0.5, 0.3, 0.3, 0.3, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2):
        model.balance(tf.constant(real), tf.constant(0.5 * real))  # M = real
        model.step.assign_add(1)
        rates.append([float(o.learning_rate) for o in model.optimizers.values()])
    # Means of the windows: 0.4, 0.3 (falls), 0.4 (stalls), 0.2 (falls), 0.2 (stalls).
    expected = [0.1] * 5 + [0.05] * 4 + [0.025]
    np.testing.assert_allclose(rates, np.stack([expected, expected], 1), rtol=1e-6)


def test_without_a_window_the_step_sizes_stay() -> None:
    model = small(rate=0.0, stall_steps=0)
    model.run_steps(stream(), 3)
    assert float(model.window_sum) == 0.0


def test_a_schedule_needs_no_window() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = small()
    sgd = keras.optimizers.SGD
    with pytest.raises(ValueError, match="stall_steps=0. Received: the discriminator's optimiser"):
        model.compile(generator=sgd(0.1), discriminator=sgd(schedule))
    small(stall_steps=0).compile(generator=sgd(0.1), discriminator=sgd(schedule))


def test_k_and_m_are_in_the_checkpoint(tmp_path) -> None:
    first, second = (small(stall_steps=3, balance_rate=0.5) for _ in range(2))
    first.k.assign(0.5)
    data = stream()
    first.run_steps(data, 4)
    checkpoint.save(tmp_path, first, {}, keep=1)
    checkpoint.restore(tmp_path, second)
    for name in ("k", "convergence", "window_sum", "lowest_mean"):
        assert float(getattr(second, name)) == float(getattr(first, name)) != 0.0
    assert first.run_steps(data, 3) == second.run_steps(data, 3)
    assert float(first.k) == float(second.k)


def test_two_replicas_with_unlike_batches_agree_on_k_and_m() -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        model = small(balance_rate=0.5)
        model.k.assign(0.5)

    def of_replica(context):
        return batch(4, seed=context.replica_id_in_sync_group)

    values = strategy.experimental_distribute_values_from_function(of_replica)

    @tf.function
    def step(inputs):
        return strategy.run(model.train_step, args=(inputs,))

    logs = step(values)
    real, fake = (
        np.mean([float(v) for v in strategy.experimental_local_results(logs[name])])
        for name in ("energy_real", "energy_fake")
    )
    error = 0.5 * real - fake
    for name, expected in (("k", 0.5 + 0.5 * error), ("convergence", real + abs(error))):
        both = strategy.experimental_local_results(getattr(model, name).value)
        np.testing.assert_allclose([float(v) for v in both], expected, rtol=1e-5)


def test_feature_matching_and_historical_averaging_are_added() -> None:
    plain, matched = small(), small(feature_matching_layer="hidden_1", feature_matching_weight=3.0)
    loss, logs = matched.generator_loss(batch())
    bare, _ = plain.generator_loss(batch())
    assert float(logs["feature_distance"]) > 0
    expected = float(bare) + 3.0 * float(logs["feature_distance"])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    (logs,) = small(historical_average_weight=0.1).run_steps(stream(), 1)
    assert {"generator_past_distance", "discriminator_past_distance"} <= set(logs)


def test_diagnosis() -> None:
    model = small()
    healthy = {"energy_real": 0.4, "energy_fake": 0.2, "k": 0.1, "spread": 0.9}
    assert model.diagnose(healthy) == {}
    assert model.diagnose({**healthy, "discriminator_loss": 0.0}) == {}  # has no scale
    found = model.diagnose({**healthy, "k": 0.0})["the balance is stuck"]
    assert "k is 0, at 0: E L(G(z)) stays above 0.5 E L(x), energy_real 0.4" in found
    assert "at 1: E L(G(z)) stays below" in str(model.diagnose({**healthy, "k": 1.0}))
    assert list(model.diagnose({**healthy, "spread": 0.01})) == ["mode collapse"]


def test_features_are_matched_in_training_mode() -> None:
    norm = keras.layers.BatchNormalization(name="norm")
    layers = [keras.Input(SHAPE), keras.layers.Flatten(), norm, keras.layers.Reshape(SHAPE)]
    model = began.BEGAN(
        mlp((4,), (8,), SHAPE, seed=1, name="generator"),
        keras.Sequential(layers, name="discriminator"),
        feature_matching_layer="norm",
    )
    # Normed by their own batch, real images and fakes have equal means.
    assert float(model.generator_loss(batch())[1]["feature_distance"]) < 1e-6


@pytest.mark.parametrize("side", [8, 28])
def test_the_paper_s_networks(side: int) -> None:
    shape = (side, side, 3)
    generator = began.decoder(5, shape, filters=2, seed=0, name="generator")
    discriminator = began.autoencoder(shape, 5, filters=2, seed=500)
    assert generator.output_shape[1:] == discriminator.output_shape[1:] == shape
    assert discriminator.get_layer("code").output.shape == (None, 5)
    layers = generator.layers + discriminator.layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert {layer.activation.__name__ for layer in convolutions} == {"elu", "linear"}
    first, other = (
        began.decoder(5, shape, filters=2, seed=seed, name="generator").layers[0].kernel.numpy()
        for seed in (0, 1000)
    )
    assert np.array_equal(first, generator.layers[0].kernel)
    assert not np.array_equal(first, other)


def test_build() -> None:
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    model = began.build(began.HParams(filters=2, minibatch_kernels=3, gamma=0.3), spec)
    assert (model.gamma, model.balance_rate, model.latents) == (0.3, 0.001, "uniform")
    assert model.discriminator.get_layer("code").input.shape == (None, 2 * 2 * 16 + 3)
    samples = model.sample(4, 0).numpy()
    assert -1.0 <= samples.min() <= samples.max() <= 1.0
    hp = began.HParams(filters=2, norm="virtual", reference_size=4)
    (carrier,) = began.build(hp, spec).generator.layers
    kinds = [type(layer).__name__ for layer in carrier.layer.layers]
    assert kinds.count("VirtualBatchNormalization") == 4  # each convolution's but the last


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"gamma": 0.0}, "--gamma must be above 0 and at most 1. Received: --gamma=0.0"),
        ({"gamma": 1.5}, "--gamma must be above 0 and at most 1"),
        ({"balance_rate": 0.0}, "--balance_rate must be more than 0"),
        ({"stall_steps": -1}, "--stall_steps must be 0 or more"),
        ({"schedule": "linear"}, "--stall_steps=0 to use a schedule"),
        ({"objective": "hinge"}, "--objective has no place .* Received: --objective=hinge"),
        ({"discriminator_norm": "layer"}, "--discriminator_norm has no place"),
        ({"positive_label": 0.9}, "--positive_label has no place"),
        ({"data": "ring8"}, "needs images: .* Received: --data=ring8"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        began.HParams(**flags)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="gamma must be above 0 and at most 1. Received: gamma=0"):
        small(gamma=0)
    with pytest.raises(ValueError, match=r"must be an autoencoder.*\(8, 8, 1\) to \(1,\)"):
        began.BEGAN(mlp((4,), (8,), SHAPE), mlp(SHAPE, (8,), (1,)))
