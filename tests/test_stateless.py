"""Draws are functions of their seed, and XLA's are as good."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfgen import stateless

SEED = tf.constant([3, 4])


@pytest.mark.parametrize("jit", [False, True])
def test_draws_follow_their_distribution_and_repeat(jit: bool) -> None:
    for draw, law in ((stateless.normal, "norm"), (stateless.uniform, "uniform")):
        compiled = tf.function(lambda seed, draw=draw: draw([4000], seed), jit_compile=jit)
        drawn = compiled(SEED).numpy()
        np.testing.assert_array_equal(drawn, compiled(SEED))
        assert not np.array_equal(drawn, compiled(SEED + 1))
        assert scipy.stats.kstest(drawn, law).pvalue > 0.01


@pytest.mark.parametrize(
    "derive",
    [
        lambda seed: stateless.fold_in(seed, 7),
        lambda seed: stateless.split(seed, 2),
        lambda seed: stateless.uniform([50], seed, 0, 10, tf.int32),
    ],
    ids=["fold_in", "split", "integers"],
)
def test_seeds_and_integers_are_the_same_with_xla(derive: Callable) -> None:
    plain, compiled = (tf.function(derive, jit_compile=jit)(SEED) for jit in (False, True))
    np.testing.assert_array_equal(plain, compiled)


def test_seeds_that_are_split_or_folded_differ() -> None:
    split = stateless.split(SEED, 3).numpy()
    folded = [stateless.fold_in(SEED, step).numpy() for step in range(3)]
    assert len({tuple(seed) for seed in (*split, *folded, SEED.numpy())}) == 7
