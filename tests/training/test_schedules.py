"""Step sizes and weights, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgen.hparams import HParams
from tfgen.training import schedules


def at(schedule, *steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_constant():
    assert schedules.learning_rate(HParams(learning_rate=2e-3), 100) == 2e-3


def test_the_stages_of_burda_et_al():
    # 1 + 3 + 9 + ... + 3^7 = 3280 epochs of 2500 steps (50,000 images in batches of 20): stage i
    # begins at epoch (3^i - 1) / 2 = 0, 1, 4, 13, 40, 121, 364, 1093 and has 1e-3 * 10^(-i/7).
    hparams = HParams(schedule="stages", epochs=3280, batch_size=20)
    total = hparams.total_steps(50_000)
    assert total == 3280 * 2500
    schedule = schedules.learning_rate(hparams, total)
    for stage, epoch in enumerate([0, 1, 4, 13, 40, 121, 364, 1093]):
        rate = 1e-3 * 10 ** (-stage / 7)
        first, last = 2500 * epoch, 2500 * (epoch + 3**stage) - 1
        np.testing.assert_allclose(at(schedule, first, last), [rate, rate], rtol=1e-6)
    assert last == total - 1


def test_stages_of_another_run():
    # 4 epochs are stages of 1 and 3 parts; with one stage the step size stays.
    schedule = schedules.stages(1.0, 2, 40)
    np.testing.assert_allclose(at(schedule, 0, 9, 10, 39), [1, 1, 0.1, 0.1], rtol=1e-6)
    assert schedules.stages(0.5, 1, 40) == 0.5


def test_piecewise():
    hparams = HParams(schedule="piecewise", schedule_drops=(0.5, 0.75), learning_rate=1.0)
    schedule = schedules.learning_rate(hparams, 100)
    np.testing.assert_allclose(
        at(schedule, 0, 49, 50, 74, 75, 99), [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6
    )


def test_linear():
    hparams = HParams(schedule="linear", decay_from=0.5, learning_rate=2.0)
    schedule = schedules.learning_rate(hparams, 100)
    np.testing.assert_allclose(
        at(schedule, 0, 49, 50, 75, 99, 100, 1000), [2, 2, 2, 1, 0.04, 0, 0], atol=1e-6
    )
    whole = schedules.constant_then_linear(1.0, 0.0, 4)
    np.testing.assert_allclose(at(whole, 0, 1, 2, 3), [1, 0.75, 0.5, 0.25], atol=1e-6)


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["stages", "linear", "piecewise"])
def test_the_shortest_runs_have_a_step_size(schedule, total):
    made = schedules.learning_rate(HParams(schedule=schedule, decay_from=0.9), total)
    rates = at(made, *range(total))
    assert all(0 < rate <= 1e-3 * (1 + 1e-6) for rate in rates)
    assert rates == sorted(rates, reverse=True)


def test_warmup_multiplies_another_schedule():
    hparams = HParams(
        schedule="piecewise", schedule_drops=(0.5,), warmup_steps=4, learning_rate=1.0
    )
    schedule = schedules.learning_rate(hparams, 12)
    np.testing.assert_allclose(
        at(schedule, 0, 1, 2, 3, 4, 5, 6, 11), [0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1], rtol=1e-6
    )
    constant = schedules.learning_rate(HParams(warmup_steps=2, learning_rate=1.0), 12)
    np.testing.assert_allclose(at(constant, 0, 1, 2), [0.5, 1, 1], rtol=1e-6)


def test_kl_warmup():
    weights = [float(schedules.warmup(0.5, 4, tf.constant(s, tf.int64))) for s in (0, 1, 2, 4, 9)]
    np.testing.assert_allclose(weights, [0, 0.125, 0.25, 0.5, 0.5], rtol=1e-6)
    assert schedules.warmup(0.5, 0, tf.constant(0)) == 0.5


@pytest.mark.parametrize("kind", ["stages", "linear", "piecewise"])
@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_config_round_trip_and_functions_of_the_step_only(kind, warmup_steps):
    schedule = schedules.learning_rate(HParams(schedule=kind, warmup_steps=warmup_steps), 200)
    config = keras.saving.serialize_keras_object(schedule)
    twin = keras.saving.deserialize_keras_object(config)
    steps = list(range(0, 220, 3))
    assert at(twin, *reversed(steps)) == at(schedule, *steps)[::-1]


def test_no_drop_is_a_constant():
    assert schedules.learning_rate(HParams(schedule="piecewise", schedule_drops=()), 10) == 1e-3
