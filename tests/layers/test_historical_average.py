"""The layer alone, in a plain Keras model and on several replicas."""

import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.layers.historical_average import HistoricalAverage
from tfgen.training import strategies


def two_variables() -> list[keras.Variable]:
    return [keras.Variable(np.ones((2, 3)), name="a"), keras.Variable([5.0], name="b")]


def test_mean_and_penalty_by_hand() -> None:
    a, b = two_variables()
    past = HistoricalAverage([a, b])
    assert float(past.penalty()) == 0
    a.assign(3 * np.ones((2, 3)))
    b.assign([2.0])
    # The mean is still that of the start: 6 * 2^2 + 3^2.
    assert float(past.penalty()) == 33
    past.update()
    np.testing.assert_array_equal(past.means[0].numpy(), 2 * np.ones((2, 3)))
    np.testing.assert_array_equal(past.means[1].numpy(), [3.5])
    assert int(past.count.numpy()) == 2
    assert float(past.penalty()) == 6 + 1.5**2


def test_further_variables() -> None:
    a, b = two_variables()
    past, whole = HistoricalAverage([a]), HistoricalAverage([a, b])
    past.extend([b])
    assert [m.shape for m in past.means] == [m.shape for m in whole.means]
    a.assign(3 * np.ones((2, 3)))
    b.assign([2.0])
    for each in (past, whole):
        each.update()
    assert float(past.penalty()) == float(whole.penalty()) == 6 + 1.5**2
    assert past.get_config()["shapes"] == whole.get_config()["shapes"]


@pytest.mark.parametrize("jit", [False, True])
def test_mean_of_all_past_values_in_a_tf_function(jit: bool) -> None:
    values = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    variable = keras.Variable(values[0])
    past = HistoricalAverage([variable])

    @tf.function(jit_compile=jit)
    def step(value: tf.Tensor) -> tf.Tensor:
        variable.assign(value)
        past.update()
        return past.penalty()

    for i in range(1, 20):
        penalty = step(values[i])
        mean = values[: i + 1].mean(0)
        np.testing.assert_allclose(past.means[0].numpy(), mean, rtol=1e-5, atol=1e-6)
        assert float(penalty) == pytest.approx(((values[i] - mean) ** 2).sum(), rel=1e-5)
    assert int(past.count.numpy()) == 20


def test_gradient_is_twice_the_distance() -> None:
    a, b = two_variables()
    past = HistoricalAverage([a, b])
    a.assign(np.arange(6.0).reshape(2, 3))
    with tf.GradientTape() as tape:
        loss = past.penalty()
    gradients = tape.gradient(loss, [a.value, b.value])
    np.testing.assert_allclose(gradients[0], 2 * (np.arange(6).reshape(2, 3) - 1))
    np.testing.assert_array_equal(gradients[1], [0])


def test_means_are_float32_in_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    dense = keras.layers.Dense(3)
    dense.build((None, 4))
    past = HistoricalAverage(dense.trainable_variables)
    dense.kernel.assign(dense.kernel + 1e-4)  # Which bfloat16 would not see.
    past.update()
    assert past.means[0].dtype == "float32"
    assert past.penalty().dtype == tf.float32
    # Half the step, of numbers near 1, which float32 keeps to 6e-8: squares of 5e-5 +- 6e-8.
    assert float(past.penalty()) == pytest.approx(12 * 5e-5**2, rel=5e-3)


def test_theta_stays_with_its_owner() -> None:
    a, b = two_variables()
    past = HistoricalAverage([a, b])
    assert past.trainable_variables == []
    assert [tuple(v.shape) for v in past.variables] == [(), (2, 3), (1,)]


@keras.saving.register_keras_serializable("test_historical_average")
class Regressor(keras.Model):
    """A model whose training is slowed by its past."""

    def __init__(self, network: keras.Model, **kwargs: Any):
        super().__init__(**kwargs)
        self.network = network
        self.past = HistoricalAverage(network.trainable_variables)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.network(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        x, y = data
        with tf.GradientTape() as tape:
            distance = self.past.penalty()
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2) + 0.1 * distance
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.past.update()
        return {"loss": loss, "distance": distance}

    def get_config(self) -> dict[str, Any]:
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regressor":
        network = keras.saving.deserialize_keras_object(config.pop("network"))
        return cls(network, **config)


def regressor() -> Regressor:
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="relu", kernel_initializer=glorot(0))(x)
    model = Regressor(keras.Model(inputs, keras.layers.Dense(1, kernel_initializer=glorot(1))(x)))
    model.compile(keras.optimizers.SGD(0.1))
    return model


def glorot(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
Y = X[:, :1] * 2


def test_trains_saves_and_restores_in_a_keras_model(tmp_path: pathlib.Path) -> None:
    model = regressor()
    assert [len(vs) for vs in (model.trainable_variables, model.past.variables)] == [4, 5]
    history = model.fit(X, Y, batch_size=4, epochs=2, verbose=0).history
    assert min(history["distance"]) > 0  # Of each epoch's second step.
    assert int(model.past.count.numpy()) == 5
    owned = {id(v) for v in model.variables}
    assert all(id(v) in owned for v in model.past.variables)
    model.save(tmp_path / "m.keras")
    restored = keras.saving.load_model(tmp_path / "m.keras")
    for a, b in zip(model.variables, restored.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    np.testing.assert_array_equal(model(X), restored(X))
    assert float(model.past.penalty()) == float(restored.past.penalty()) > 0
    assert model.past.get_config() == restored.past.get_config() | {"name": model.past.name}


def test_made_from_its_configuration_it_watches_when_told() -> None:
    variables = two_variables()
    past = HistoricalAverage(variables)
    variables[1].assign([7.0])
    past.update()
    again = HistoricalAverage.from_config(past.get_config())
    assert again.get_config() == past.get_config()
    with pytest.raises(ValueError, match=r"watch\(variables\) first. Received: .* with 2 means"):
        again.penalty()
    again.set_weights(past.get_weights())
    again.watch(variables)
    assert float(again.penalty()) == float(past.penalty()) == 1
    with pytest.raises(ValueError, match=r"shapes \[\(2, 3\), \(1,\)\]. Received: \[\(1,\)\]"):
        again.watch(variables[1:])


def test_two_replicas_have_the_mean_of_one() -> None:
    strategy = strategies.make("mirrored", devices=2)
    alone = regressor()
    with strategy.scope():
        model = regressor()
        # `Regressor.train_step` leaves the loss undivided: two replicas move twice as far.
        model.optimizer.learning_rate.assign(0.05)

    def batch_of(context: tf.distribute.ReplicaContext) -> tuple[np.ndarray, np.ndarray]:
        start = 4 * context.replica_id_in_sync_group
        return tf.constant(X[start : start + 4]), tf.constant(Y[start : start + 4])

    @tf.function
    def step(batch: Any) -> dict[str, tf.Tensor]:
        return strategy.run(model.train_step, args=(batch,))

    for _ in range(3):
        alone.train_step((tf.constant(X), tf.constant(Y)))
        step(strategy.experimental_distribute_values_from_function(batch_of))
    for one, two in zip(alone.variables, model.variables, strict=True):
        for replica in strategy.experimental_local_results(two.value):
            np.testing.assert_allclose(replica, one.numpy(), rtol=1e-5, atol=1e-6, err_msg=two.path)
    assert int(model.past.count.numpy()) == 4
