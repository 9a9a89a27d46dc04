"""Penalties of critics whose gradients are known by hand."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen import stateless
from tfgen.losses import penalties

RANDOM = np.random.default_rng(0)
REAL, FAKE = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
MIX = np.array([0.0, 0.25, 0.9], np.float32)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 1, 2), (2, 1, 2, 1)])
def test_linear_critic_of_norm_5(shape: tuple) -> None:
    # grad D = (3, 0, 0, 4) everywhere: (5 - 1)^2 and 25 / 2.
    def critic(x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(x, [-1, 4]) @ tf.constant([[3.0], [0], [0], [4]])

    real, fake = REAL.reshape(3, *shape), FAKE.reshape(3, *shape)
    np.testing.assert_allclose(penalties.gradient_penalty(critic, real, fake, MIX), [16] * 3)
    penalty = penalties.gradient_penalty(critic, real, fake, MIX, target=5.5)
    np.testing.assert_allclose(penalty, [0.25] * 3, rtol=1e-5)
    np.testing.assert_allclose(penalties.r1_penalty(critic, real), [12.5] * 3)


def test_quadratic_critic() -> None:
    # D(x) = ||x||^2 / 2 has the gradient x.
    def critic(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x**2, axis=1) / 2

    x = MIX[:, np.newaxis] * REAL + (1 - MIX[:, np.newaxis]) * FAKE
    expected = (np.linalg.norm(x, axis=1) - 1) ** 2
    np.testing.assert_allclose(
        penalties.gradient_penalty(critic, REAL, FAKE, MIX), expected, rtol=1e-5
    )
    np.testing.assert_allclose(penalties.r1_penalty(critic, REAL), (REAL**2).sum(1) / 2, rtol=1e-6)


def test_mix_0_is_fake_and_1_is_real() -> None:
    seen = []

    def critic(x: tf.Tensor) -> tf.Tensor:
        seen.append(x.numpy())
        return x

    for mix in (0.0, 1.0):
        penalties.gradient_penalty(critic, REAL, FAKE, np.full(3, mix, np.float32))
    np.testing.assert_array_equal(seen, [FAKE, REAL])


def test_patches_are_summed() -> None:
    # 4 logits x_i + 2 x_i: the gradient of their sum is (3, 3, 3, 3), its square 36.
    def patches(x: tf.Tensor) -> tf.Tensor:
        return tf.stack([x, 2 * x], axis=1)

    np.testing.assert_allclose(penalties.r1_penalty(patches, REAL), [18] * 3)
    np.testing.assert_allclose(penalties.gradient_penalty(patches, REAL, FAKE, MIX), [25] * 3)


PENALTIES = {
    "gradient_penalty": lambda critic: penalties.gradient_penalty(critic, REAL, FAKE, MIX),
    "r1_penalty": lambda critic: penalties.r1_penalty(critic, REAL),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_of_the_weights_by_finite_differences(name: str, jit: bool) -> None:
    weights = [RANDOM.normal(size=(4, 5)), RANDOM.normal(size=(5, 1))]

    def value_of(first: np.ndarray) -> float:
        # D(x) = tanh(x A) b has the gradient A (b (1 - tanh^2)).
        x = REAL
        if name == "gradient_penalty":
            x = MIX[:, np.newaxis] * REAL + (1 - MIX[:, np.newaxis]) * FAKE
        slope = (weights[1][:, 0] * (1 - np.tanh(x @ first) ** 2)) @ first.T
        squares = (slope**2).sum(1)
        each = squares / 2 if name == "r1_penalty" else (np.sqrt(squares) - 1) ** 2
        return each.mean()

    a, b = (tf.Variable(w, dtype=tf.float32) for w in weights)

    @tf.function(jit_compile=jit)
    def loss_and_gradient() -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(PENALTIES[name](lambda x: tf.tanh(x @ a) @ b))
        return loss, tape.gradient(loss, a)

    loss, gradient = loss_and_gradient()
    assert float(loss) == pytest.approx(value_of(weights[0]), rel=1e-5)
    numeric = np.zeros((4, 5))
    for at in np.ndindex(4, 5):
        step = np.zeros((4, 5))
        step[at] = 1e-6
        numeric[at] = (value_of(weights[0] + step) - value_of(weights[0] - step)) / 2e-6
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_finite_where_the_gradient_is_0(name: str) -> None:
    weight = tf.Variable(np.zeros((4, 1), np.float32))
    with tf.GradientTape() as tape:
        penalty = PENALTIES[name](lambda x: x @ weight)
    # (sqrt(1e-12) - 1)^2 = 1 - 2e-6, and d||g||/dg is taken as 0.
    expected = {"gradient_penalty": 1 - 2e-6, "r1_penalty": 0}[name]
    np.testing.assert_allclose(penalty, [expected] * 3, rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(penalty, weight), np.zeros((4, 1)))
    # A critic that does not look at its inputs at all.
    ignores = PENALTIES[name](lambda x: tf.zeros([3]))
    np.testing.assert_allclose(ignores, [expected] * 3, rtol=1e-6)


def test_any_batch_size_and_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None])])
    def both(x: tf.Tensor, mix: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fake = tf.cast(x + 1, tf.bfloat16)
        penalty = penalties.gradient_penalty(critic, x, fake, mix)
        return penalty, penalties.r1_penalty(critic, x)

    norm = np.linalg.norm(critic.layers[0].kernel.numpy())
    for size in (1, 3):
        penalty, r1 = both(REAL[:size], MIX[:size])
        assert penalty.dtype == r1.dtype == tf.float32
        # The kernel is rounded to the 8 bits of bfloat16.
        np.testing.assert_allclose(penalty, [(norm - 1) ** 2] * size, atol=0.02)
        np.testing.assert_allclose(r1, [norm**2 / 2] * size, rtol=0.02)


def test_trains_a_keras_model_to_the_target_slope() -> None:
    critic = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    for _ in range(60):
        with tf.GradientTape() as tape:
            penalty = penalties.gradient_penalty(critic, REAL, FAKE, MIX, target=2.0)
            loss = tf.reduce_mean(penalty)
        optimizer.apply(tape.gradient(loss, critic.trainable_variables[:1]), [critic.weights[0]])
    assert np.linalg.norm(critic.layers[0].kernel.numpy()) == pytest.approx(2, rel=1e-5)


def test_callables_are_the_functions() -> None:
    def critic(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(x**2, axis=1)

    mix = stateless.uniform([3], tf.constant([5, 6]))
    np.testing.assert_array_equal(
        penalties.GradientPenalty(0.5)(critic, REAL, FAKE, tf.constant([5, 6])),
        penalties.gradient_penalty(critic, REAL, FAKE, mix, target=0.5),
    )
    np.testing.assert_array_equal(
        penalties.R1Penalty()(critic, REAL), penalties.r1_penalty(critic, REAL)
    )
    with pytest.raises(ValueError, match="target must be 0 or more. Received: target=-1"):
        penalties.GradientPenalty(-1)


@keras.saving.register_keras_serializable("tests")
class Critic(keras.Model):
    """A plain Keras model that is trained by a penalty alone."""

    def __init__(self, penalty: Callable, **kwargs: Any):
        super().__init__(**kwargs)
        self.penalty = penalty
        self.logit = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.logit(x)

    def train_step(self, real: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            each = self.penalty(self, real, real + 1.0, seed=tf.constant([0, 1]))
            loss = tf.reduce_mean(each)
        gradient = tape.gradient(loss, [self.logit.kernel])
        self.optimizer.apply(gradient, [self.logit.kernel])
        return {"loss": loss}

    def get_config(self) -> dict[str, Any]:
        penalty = keras.saving.serialize_keras_object(self.penalty)
        return {**super().get_config(), "penalty": penalty}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Critic":
        penalty = keras.saving.deserialize_keras_object(config.pop("penalty"))
        return cls(penalty, **config)


@pytest.mark.parametrize("penalty", [penalties.GradientPenalty(3.0), penalties.R1Penalty()])
def test_in_a_plain_keras_model_saved_and_reloaded(
    penalty: Callable, tmp_path: pathlib.Path
) -> None:
    model = Critic(penalty)
    model(REAL)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.fit(REAL, epochs=80, batch_size=3, verbose=0)
    slope = np.linalg.norm(model.logit.kernel.numpy())
    wanted = penalty.get_config().get("target", 0.0)
    assert slope == pytest.approx(wanted, abs=1e-2)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert type(twin.penalty) is type(penalty)
    assert twin.penalty.get_config() == penalty.get_config()
    np.testing.assert_array_equal(twin(REAL), model(REAL))


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"Received: real \(3, 4\), fake \(2, 4\), mix \(3,\)"):
        penalties.gradient_penalty(tf.identity, REAL, FAKE[:2], MIX)
    with pytest.raises(ValueError, match=r"mix must be \[B\]. Received: .* mix \(3, 1\)"):
        penalties.gradient_penalty(tf.identity, REAL, FAKE, MIX[:, np.newaxis])
    with pytest.raises(ValueError, match=r"rank 2 or more. Received: shape \(3,\)"):
        penalties.r1_penalty(tf.identity, MIX)
