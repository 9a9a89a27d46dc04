"""A training in stages: who learns when, logs, executions, replicas."""

import keras
import numpy as np
import pytest

from tests.training.toys import Tug, batches, values
from tfgen.training import strategies

DATA = {"x": np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)}


class InTurn(Tug):
    """`low` learns for 3 steps, then `high` does."""

    def stage_starts(self):
        return (3,)

    def train_step(self, batch):
        self.moves = (("low", "high")[self.stage],)
        logs = super().train_step(batch)
        return {self.moves[0]: logs[self.moves[0]]}


def compiled(**options):
    model = InTurn()
    model.compile(low=keras.optimizers.Adam(0.1), high=keras.optimizers.Adam(0.1), **options)
    return model


def counts(model):
    return [int(model.optimizers[player].iterations.numpy()) for player in ("low", "high")]


@pytest.mark.parametrize("jit", [False, True])
def test_players_learn_one_after_the_other_whatever_the_executions(jit):
    whole, parts = compiled(jit_compile=jit), compiled(jit_compile=jit)
    rows = whole.run_steps(iter(batches(DATA, 4, repeat=True)), 7)
    assert [list(row) for row in rows] == [["low"]] * 3 + [["high"]] * 4
    assert counts(whole) == [3, 4]
    stream = iter(batches(DATA, 4, repeat=True))
    assert [row for steps in (2, 4, 1) for row in parts.run_steps(stream, steps)] == rows
    for one, other in zip(values(whole.variables), values(parts.variables), strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_the_stage_s_player_moves():
    model = compiled()
    stream = iter(batches(DATA, 4, repeat=True))
    for moving, resting in ((model.low, model.high), (model.high, model.low)):
        before = values(moving.variables), values(resting.variables)
        model.run_steps(stream, 3)
        for new, old in zip(values(resting.variables), before[1], strict=True):
            np.testing.assert_array_equal(new, old)
        assert not np.array_equal(values(moving.variables)[0], before[0][0])


def test_in_fit_too():
    model = compiled(steps_per_execution=4)
    history = model.fit(batches(DATA, 8), epochs=2, verbose=0).history  # 5 batches an epoch
    assert counts(model) == [3, 7]
    # The means are of the stage in which an epoch ends.
    assert list(history) == ["high"]


def test_two_replicas_give_the_same_update():
    one = compiled()
    one.run_steps(iter(batches(DATA, 8, repeat=True)), 5)
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        two = compiled()
        stream = strategy.experimental_distribute_dataset(batches(DATA, 8, repeat=True))
        two.run_steps(iter(stream), 5)
    assert counts(two) == counts(one) == [3, 2]
    for a, b in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)
