"""A critic that is trained more often: counts, batches, noise, replicas, resuming."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.toys import batches, dense
from tfgen.training import strategies
from tfgen.training.model import GenerativeModel


class Critic(GenerativeModel):
    """`high` moves in extra steps too; keeps the sum of all batches and the last noise drawn."""

    needs = ("x",)

    def __init__(self, extra=4, **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = dense(2, 3, "low", seed=1), dense(2, 3, "high", seed=2)
        self.extra = extra
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.seen = tf.Variable(0.0, trainable=False, aggregation=first)
        self.noise = tf.Variable(tf.zeros([16]), trainable=False, aggregation=first)
        self.built = True

    def players(self):
        return {"low": self.low.trainable_variables, "high": self.high.trainable_variables}

    def extra_steps(self, step):
        return self.extra(step) if callable(self.extra) else self.extra

    def move(self, player, batch):
        with tf.GradientTape() as tape:
            distance = self.low(batch["x"], training=True) - self.high(batch["x"], training=True)
            loss = tf.reduce_mean(distance**2)
        self.minimize(player, loss, tape)
        self.seen.assign_add(tf.reduce_mean(batch["x"]))
        draw = tf.random.stateless_uniform([1], self.noise_seed())
        self.noise.assign(tf.concat([self.noise[1:], draw], 0))
        return loss

    def extra_step(self, batch):
        self.move("high", batch)

    def train_step(self, batch):
        return {"loss": self.move("low", batch)}


def compiled(extra, **options):
    model = Critic(extra)
    model.compile(low="sgd", high=keras.optimizers.Adam(1e-2), **options)
    return model


def counts(model):
    return [int(model.optimizers[player].iterations.numpy()) for player in ("high", "low")]


def numbered(count):
    """Batch i is full of i."""
    return {"x": np.repeat(np.arange(count, dtype=np.float32), 3).reshape(-1, 3)}


@pytest.mark.parametrize("jit", [False, True])
def test_the_critic_moves_so_often_and_on_batches_of_its_own(jit):
    model = compiled(4, jit_compile=jit)
    model.run_steps(iter(batches(numbered(100), 1, repeat=True)), 3)
    assert counts(model) == [12, 3]
    assert model.seen.numpy() == sum(range(15))
    assert len(set(model.noise.numpy()[-15:])) == 15  # every one of them has other noise


def test_the_number_may_depend_on_the_step():
    model = compiled(lambda step: tf.where(step < 2, 3, 1))
    model.run_steps(iter(batches(numbered(100), 1, repeat=True)), 4)
    assert counts(model) == [3 + 3 + 1 + 1, 4]
    assert model.seen.numpy() == sum(range(12))
    assert [model.batches_before(step) for step in range(5)] == [0, 4, 8, 10, 12]


def test_without_extra_steps_a_step_takes_one_batch():
    model = compiled(0)
    model.run_steps(iter(batches(numbered(100), 1, repeat=True)), 3)
    assert counts(model) == [0, 3]
    assert model.batches_before(7) == 7


def test_in_fit_the_extra_steps_share_the_batch():
    model = compiled(2)
    model.fit(batches(numbered(4), 1), epochs=1, verbose=0)
    assert counts(model) == [8, 4]
    assert model.seen.numpy() == 3 * sum(range(4))
    assert len(set(model.noise.numpy()[-12:])) == 12


def test_two_replicas_give_the_same_update():
    one = compiled(2)
    data = {"x": np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)}
    one.run_steps(iter(batches(data, 8, repeat=True)), 2)
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        two = compiled(2)
        stream = strategy.experimental_distribute_dataset(batches(data, 8, repeat=True))
        two.run_steps(iter(stream), 2)
    assert counts(two) == counts(one) == [4, 2]
    for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
