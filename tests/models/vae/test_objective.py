"""Free bits of one group of latents, and settings out of range."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.models.vae import _objective
from tfgen.training import strategies


def gradient(kl: list, free_bits: float, shares: list | None = None) -> np.ndarray:
    values = tf.constant(kl, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(values)
        given = None if shares is None else tf.constant(shares, tf.float32)
        found = _objective.free(values, free_bits, given)
        np.testing.assert_array_equal(found, values)
        total = tf.reduce_sum(found)
    return tape.gradient(total, values, unconnected_gradients="zero").numpy()


@pytest.mark.parametrize(("free_bits", "slope"), [(0.0, 1.0), (1.9, 1.0), (2.1, 0.0)])
def test_the_mean_over_the_batch_decides(free_bits: float, slope: float) -> None:
    np.testing.assert_array_equal(gradient([1.0, 3.0], free_bits), [slope, slope])


def test_classes_count_by_their_shares() -> None:
    kl, shares = [[1.0, 1.0], [5.0, 3.0]], [[0.9, 0.5], [0.1, 0.5]]  # means 1.4 and 2, so 1.7
    for free_bits, slope in ((1.6, 1.0), (1.8, 0.0)):
        np.testing.assert_allclose(gradient(kl, free_bits, shares), np.full([2, 2], slope))
        draws = [kl, kl]  # [k, K, B]
        np.testing.assert_allclose(gradient(draws, free_bits, shares), np.full([2, 2, 2], slope))


@pytest.mark.parametrize(("free_bits", "slope"), [(1.9, 1.0), (2.1, 0.0)])
def test_the_mean_is_of_all_replicas(free_bits: float, slope: float) -> None:
    strategy = strategies.make("mirrored", devices=2)

    def step() -> tf.Tensor:
        kl = 1.0 + 2.0 * tf.cast(
            tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32
        )
        with tf.GradientTape() as tape:
            tape.watch(kl)
            found = _objective.free(kl, free_bits)
        return tape.gradient(found, kl, unconnected_gradients="zero")

    slopes = strategy.experimental_local_results(tf.function(lambda: strategy.run(step))())
    assert [float(s) for s in slopes] == [slope, slope]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "^k must be more than 0. Received: k=0$"),
        ({"free_bits": -1.0}, "^free_bits must be 0 or more. Received: free_bits=-1.0$"),
        ({"kl_weight": -0.5}, "^kl_weight must be 0 or more. Received: kl_weight=-0.5$"),
        ({"kl_warmup_steps": -2}, "^kl_warmup_steps must be 0 or more. Received: .*=-2$"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _objective.check_settings(**wrong)
