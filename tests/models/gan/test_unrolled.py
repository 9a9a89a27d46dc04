"""Unrolled GAN: the gradient through D's steps, D untouched by them, and K = 0 the plain GAN."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.losses import adversarial
from tfgen.models.gan import gan, unrolled
from tfgen.networks.mlp import mlp
from tfgen.training import optimizers, strategies

RATE, BETA1, BETA2, EPSILON = 0.1, 0.5, 0.9, 1e-8


def adam(rate: float = RATE, **arguments) -> keras.optimizers.Optimizer:
    return optimizers.Adam(rate, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON, **arguments)


def small(discriminator_optimizer=None, cls=unrolled.UnrolledGAN, **arguments) -> gan.GAN:
    model = cls(
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8, 8), (1,), activation="tanh", seed=2, name="discriminator"),
        **arguments,
    )
    model.compile(
        generator=keras.optimizers.SGD(1.0), discriminator=discriminator_optimizer or adam()
    )
    return model


def points(count: int = 6, seed: int = 0) -> dict[str, tf.Tensor]:
    values = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return {"point": tf.constant(values)}


def weights(network: keras.Model) -> list[np.ndarray]:
    return [np.array(w) for w in network.get_weights()]


# A game of one number each: D(x) = w x, data at r, the generator makes a. D minimises
# L(w, a) = a w - r w + r^2 w^2 / 2, so that dL/dw = a - r + r^2 w is linear; G minimises -L.

W, R, A = 0.3, 0.8, -0.4


class Quadratic(unrolled.UnrolledGAN):
    """The game above."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.losses_of = adversarial.Objective(
            lambda real, fake: fake - real + 0.5 * real**2, lambda fake: -fake
        )


def quadratic(steps: int, optimizer: keras.optimizers.Optimizer, **arguments) -> Quadratic:
    def line() -> keras.Sequential:
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        return keras.Sequential([keras.Input((1,)), layer])

    model = Quadratic(line(), line(), unrolled_steps=steps)
    model.discriminator.set_weights([np.array([[W]])])
    model.compile(generator=keras.optimizers.SGD(1.0), discriminator=optimizer, **arguments)
    return model


def slope(model: Quadratic) -> float:
    """d f_K / d a by the library."""
    a, real = tf.constant([[A]]), tf.constant([[R]])
    with tf.GradientTape() as tape:
        tape.watch(a)
        surrogate = -model.loss_at(model.look_ahead(real, a), real, a)
    return float(tape.gradient(surrogate, a)[0, 0])


@pytest.mark.parametrize("steps", [0, 1, 5, 10])
def test_gradient_through_sgd_equals_the_closed_form(steps: int) -> None:
    # w_K = q w - c (a - r) with q = (1 - rate r^2)^K and c = rate (1 + ... + (1 - rate r^2)^(K-1)).
    rho = 1 - RATE * R**2
    q, c = rho**steps, RATE * sum(rho**k for k in range(steps))
    w = q * W - c * (A - R)
    expected = -(w + (A - R + R**2 * w) * -c)  # -(dL/da + dL/dw dw/da)
    assert slope(quadratic(steps, keras.optimizers.SGD(RATE))) == pytest.approx(expected, rel=1e-5)


def by_hand(steps: int, w: float, m: float, v: float, count: int) -> float:
    """d f_K / d a through Adam: values and their derivatives by a side by side, in float64."""
    dw = dm = dv = 0.0
    for t in range(count + 1, count + steps + 1):
        g, dg = A - R + R**2 * w, 1 + R**2 * dw
        m, dm = BETA1 * m + (1 - BETA1) * g, BETA1 * dm + (1 - BETA1) * dg
        v, dv = BETA2 * v + (1 - BETA2) * g**2, BETA2 * dv + (1 - BETA2) * 2 * g * dg
        rate = RATE * np.sqrt(1 - BETA2**t) / (1 - BETA1**t)
        bottom, dbottom = np.sqrt(v) + EPSILON, dv / (2 * np.sqrt(v))
        w, dw = w - rate * m / bottom, dw - rate * (dm / bottom - m * dbottom / bottom**2)
    return -(w + (A - R + R**2 * w) * dw)


@pytest.mark.parametrize(("steps", "moved"), [(1, 0), (5, 0), (1, 3), (5, 3), (10, 3)])
def test_gradient_through_adam_equals_the_one_by_hand(steps: int, moved: int) -> None:
    model = quadratic(steps, adam())
    for other in range(moved):  # ordinary steps, so that the moments are not 0 at the start
        batch = {"point": tf.constant([[R + other]])}
        model.move("discriminator", model.discriminator_loss, batch)
    optimizer = model.optimizers["discriminator"]
    state = [
        float(np.squeeze(x))
        for x in (
            model.discriminator.get_weights()[0],
            optimizer._momentums[0].numpy(),
            optimizer._velocities[0].numpy(),
        )
    ]
    assert (state[1] != 0) == (moved > 0)
    assert slope(model) == pytest.approx(by_hand(steps, *state, moved), rel=1e-5)


def test_clipping_is_a_part_of_the_steps() -> None:
    norm = 0.01  # far below |dL/dw|, so that w_1 = w + rate * norm, whatever a is
    model = quadratic(1, keras.optimizers.SGD(RATE), clip_norm=norm)
    assert slope(model) == pytest.approx(-(W + RATE * norm), rel=1e-5)


# Any networks.


def test_the_steps_are_those_that_the_optimiser_would_do() -> None:
    model, batch = small(adam(1e-2), unrolled_steps=3), points()
    model.move("discriminator", model.discriminator_loss, points(seed=5))
    fake = model.generate(6, 3)
    ahead = [w.numpy() for w in model.look_ahead(batch["point"], fake)]

    def loss(batch):
        real, made = model.judge(batch["point"]), model.judge(fake)
        return tf.reduce_mean(model.losses_of.discriminator(real, made)), {}

    for _ in range(3):
        model.move("discriminator", loss, batch)
    for expected, got in zip(weights(model.discriminator), ahead, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_looking_ahead_changes_nothing_but_the_generator() -> None:
    model = small(unrolled_steps=4)
    model.move("discriminator", model.discriminator_loss, points())
    kept = model.discriminator.weights + model.optimizers["discriminator"].variables
    before = [np.array(v) for v in kept]
    generator = weights(model.generator)
    model.move("generator", model.generator_loss, points())
    for old, new in zip(before, kept, strict=True):
        np.testing.assert_array_equal(old, np.array(new))
    assert not np.array_equal(generator[0], weights(model.generator)[0])


def test_batch_norms_averages_are_left_as_they_are() -> None:
    spec = DataSpec("x", {"image": (8, 8, 1)}, {"image": "float32"}, "symmetric", 10, 9, 9, 9)
    hp = unrolled.HParams(filters=2, unrolled_steps=2)
    model = unrolled.build(hp, spec)
    before = [v.numpy() for v in model.discriminator.non_trainable_variables]
    image = tf.random.stateless_uniform([4, 8, 8, 1], [0, 1], -1.0, 1.0)
    loss, _ = model.generator_loss({"image": image})
    assert np.isfinite(loss)
    for old, new in zip(before, model.discriminator.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def test_without_steps_it_is_the_minimax_gan() -> None:
    plain, ours = small(cls=gan.GAN, objective="minimax"), small(unrolled_steps=0)
    for model, _ in itertools.product((plain, ours), range(2)):
        model.train_step(points())
    for old, new in zip(plain.variables, ours.variables, strict=True):
        np.testing.assert_allclose(np.array(old), np.array(new), rtol=1e-5, atol=1e-7)


def test_every_number_of_steps_gives_another_gradient() -> None:
    slopes = []
    for steps in (0, 1, 2):
        model = small(unrolled_steps=steps)
        with tf.GradientTape() as tape:
            loss, logs = model.generator_loss(points())
        assert float(logs["generator_loss"]) == float(loss)
        slopes.append(tape.gradient(loss, model.generator.trainable_variables)[0].numpy())
    assert all(not np.allclose(a, b, rtol=1e-3) for a, b in itertools.combinations(slopes, 2))


def test_the_step_ahead_raises_the_objective_of_the_discriminator() -> None:
    model = small(keras.optimizers.SGD(0.1), unrolled_steps=5)
    real, fake = points()["point"], model.generate(6, 3)
    now = model.loss_at(model.discriminator.trainable_variables, real, fake)
    assert float(model.loss_at(model.look_ahead(real, fake), real, fake)) < float(now)


def test_units_that_are_never_active_do_not_spoil_the_gradient() -> None:
    model = unrolled.UnrolledGAN(
        mlp((4,), (8,), (2,), activation="relu", seed=1, name="generator"),
        mlp((2,), (8,), (1,), activation="relu", seed=2, name="discriminator"),
        unrolled_steps=2,
    )
    model.discriminator.get_layer("hidden_1").bias.assign(np.full(8, -100.0))  # gradients exactly 0
    model.compile(generator=keras.optimizers.SGD(1.0), discriminator=adam())
    model.move("generator", model.generator_loss, points())
    assert all(np.isfinite(w).all() for w in weights(model.generator))


def test_two_replicas_look_ahead_like_one() -> None:
    def step(strategy, replicas: int) -> list[np.ndarray]:
        with strategy.scope():
            model = small(keras.optimizers.SGD(0.5), unrolled_steps=3)
        fakes = model.generate(6, 3)  # the same for one replica and for two

        def move() -> None:
            part = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows = tf.range(6 // replicas) + part * (6 // replicas)

            def made(num, salt):  # the gradient reaches the generator through every fake
                return tf.gather(fakes, rows) + tf.reduce_sum(model.generator(tf.ones([1, 4])))

            model.generate = made
            batch = {"point": tf.gather(points()["point"], rows)}
            model.move("generator", model.generator_loss, batch)

        strategy.run(tf.function(move) if replicas == 1 else move)
        return weights(model.generator)

    one = step(tf.distribute.get_strategy(), 1)
    two = step(strategies.make("mirrored", devices=2), 2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_feature_matching_is_added() -> None:
    plain = small(unrolled_steps=1)
    model = small(
        unrolled_steps=1, feature_matching_layer="hidden_2", feature_matching_weight=3.0,
        adversarial_weight=0.5,
    )  # fmt: skip
    loss, logs = model.generator_loss(points())
    expected = 0.5 * plain.generator_loss(points())[0] + 3.0 * logs["feature_distance"]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(logs["feature_distance"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unrolled_steps": -1}, "unrolled_steps must be 0 or more. Received: -1"),
        ({"penalty": "r1"}, "penalty must be 'none'. Received: 'r1'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_an_optimiser_that_cannot_be_unrolled_is_named() -> None:
    for optimizer, received in (
        (keras.optimizers.AdamW(0.1, weight_decay=0.01), "weight_decay=0.01"),
        (keras.optimizers.SGD(0.1, clipnorm=1.0), "clipnorm=1.0"),
    ):
        model = small(optimizer, unrolled_steps=1)
        with pytest.raises(ValueError, match=f"unrolled steps know no .* Received: {received}"):
            model.generator_loss(points())
    model = small(keras.optimizers.RMSprop(0.1), unrolled_steps=1)
    with pytest.raises(ValueError, match=r"Adam .* or of SGD .* Received: RMSprop"):
        model.generator_loss(points())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"unrolled_steps": -1}, "--unrolled_steps must be 0 or more"),
        ({"precision": "mixed_float16"}, "set --precision to float32 or mixed_bfloat16"),
    ],
)
def test_wrong_flags_are_named(flags: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unrolled.HParams(**flags)


def test_networks_of_the_notebook() -> None:
    spec = DataSpec("ring8", {"point": (2,)}, {"point": "float32"}, "symmetric", 8, 9, 9, 9)
    hp = unrolled.HParams(data="ring8", networks="mlp", dense_networks="notebook")
    for network in (unrolled.build(hp, spec).generator, unrolled.build(hp, spec).discriminator):
        hidden = [x for x in network.layers if x.name.startswith("hidden")]
        assert [x.units for x in hidden] == [128, 128]
        assert {x.activation.__name__ for x in hidden} == {"tanh"}
        kernel = hidden[1].kernel.numpy()
        np.testing.assert_allclose(kernel.T @ kernel, 1.4**2 * np.eye(128), atol=1e-4)


def test_networks_of_the_ring_are_those_of_appendix_a() -> None:
    spec = DataSpec("ring8", {"point": (2,)}, {"point": "float32"}, "symmetric", 8, 9, 9, 9)
    model = unrolled.build(unrolled.HParams(data="ring8", networks="mlp"), spec)
    hidden = model.generator.get_layer("hidden_2")
    assert hidden.activation is keras.activations.relu
    kernel = hidden.kernel.numpy()
    np.testing.assert_allclose(kernel.T @ kernel, 0.8**2 * np.eye(128), atol=1e-4)
    judge = model.discriminator
    dense = [layer for layer in judge.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.units for layer in dense] == [128, 1]
    first, last = (layer.kernel.numpy() for layer in dense)
    point = np.float32([[2.0, -1.0]])
    expected = np.maximum(point / 4 @ first, 0) @ last  # biases begin as 0
    np.testing.assert_allclose(judge(point), expected, rtol=1e-4)
