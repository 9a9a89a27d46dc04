"""The fused Adam against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.training import optimizers, schedules, strategies


def train(make, strategy, settings, steps=50):
    """Variables and moments after steps down the gradient of a fixed, badly scaled function."""
    random = np.random.default_rng(0)
    targets = [random.normal(size=shape).astype(np.float32) for shape in ((5, 3), (4,), ())]
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        variables = [keras.Variable(np.zeros_like(t)) for t in targets]
        optimizer = make(**settings)
        optimizer.build(variables)

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        share = 2.0 * (tf.cast(replica, tf.float32) + 1) / (replicas * (replicas + 1))
        gradients = [
            share * 10.0**at * (v.value - t)
            for at, (v, t) in enumerate(zip(variables, targets, strict=True))
        ]
        optimizer.apply(gradients, variables)

    @tf.function
    def execute():
        for _ in tf.range(steps):
            strategy.run(step)

    execute()
    return [np.array(v.numpy()) for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": 1e-2},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-4},
        {"learning_rate": schedules.ConstantThenLinear(0.1, 10, 40), "beta_1": 0.0},
        {"learning_rate": 1e-2, "amsgrad": True},
        {"learning_rate": 1e-2, "weight_decay": 0.1, "global_clipnorm": 0.5},
    ],
)
@pytest.mark.parametrize("kind", ["none", "mirrored"])
def test_equals_keras_adam(settings, kind):
    strategy = strategies.make(kind)
    if kind == "mirrored":
        assert strategy.num_replicas_in_sync == 2
    ours = train(optimizers.Adam, strategy, settings)
    theirs = train(keras.optimizers.Adam, strategy, settings)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        # The same formula in another order of float32 operations.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert max(np.abs(v).max() for v in ours[:3]) > 0.1


def test_two_replicas_add_up_to_one():
    settings = {"learning_rate": 1e-2}
    one = train(optimizers.Adam, strategies.make("none"), settings)
    two = train(optimizers.Adam, strategies.make("mirrored"), settings)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_sparse_gradients():
    table = [keras.Variable(np.ones((4, 2), np.float32)) for _ in range(2)]
    sparse = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), tf.constant([4, 2]))
    for cls, variable in zip((optimizers.Adam, keras.optimizers.Adam), table, strict=True):
        cls(0.1).apply([sparse], [variable])
    np.testing.assert_allclose(table[0].numpy(), table[1].numpy(), atol=1e-6)
    np.testing.assert_array_equal(table[0].numpy()[[0, 1, 3]], 1.0)


def test_config_round_trip():
    optimizer = optimizers.Adam(
        schedules.Warmup(schedules.ConstantThenLinear(1e-3, 5, 9), 3), beta_1=0.5, epsilon=1e-4
    )
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(twin) is optimizers.Adam
    assert twin.get_config() == optimizer.get_config()
