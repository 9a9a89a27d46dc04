"""The PixelCNN network: what a pixel sees, probabilities that sum to 1, one draw by two ways."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfgen.networks.pixelcnn import PixelCNNNetwork

SMALL = {"layers": 2, "filters": 12, "first_kernel_size": 5, "head_filters": 12}
FORMS = {
    "gated": {},
    "residual": {"gated": False},
    "levels": {"levels": 5},
    "embedded": {"levels": 5, "embedding": 3, "gated": False},
    "colours": {"shape": (4, 5, 3), "levels": 4, "embedding": 2},
    "colours, residual": {"shape": (4, 5, 3), "gated": False},
    "condition": {"context": 3},
}
SEED = tf.constant([3, 4])


def make(**arguments) -> PixelCNNNetwork:
    """A small network whose weights, biases included, are far from 0."""
    network = PixelCNNNetwork(**{"shape": (5, 6, 1), **SMALL, **arguments})
    for index, variable in enumerate(network.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return network


def _seen(network: PixelCNNNetwork, place: tuple[int, int]) -> np.ndarray:
    """Of which values [H, W, C] each channel's logits at a place depend on: bool [C, H, W, C]."""
    height, width, channels = network.shape
    x = tf.random.stateless_normal([8, height, width, channels * network.inputs_per_value], [0, 0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        here = network(x)[:, place[0], place[1]]
        here = tf.reduce_sum(tf.reshape(here, [8, channels, -1]) ** 2, axis=[0, 2])
    by_channel = np.abs(tape.jacobian(here, x)).sum(1)
    return by_channel.reshape(channels, height, width, channels, -1).sum(-1) > 0


def test_the_gated_form_sees_every_pixel_before_and_none_after() -> None:
    network = make(shape=(7, 6, 1), layers=4)  # 2 + 4 rows and columns are in range
    for i, j in itertools.product((0, 3, 6), (0, 2, 5)):
        before = np.arange(42).reshape(7, 6) < i * 6 + j
        np.testing.assert_array_equal(_seen(network, (i, j))[0, ..., 0], before)


def test_the_ungated_form_has_a_blind_spot() -> None:
    """It sees what its masked kernels lead to, one after the other; the gated form all before."""
    height, width, place = 7, 9, (5, 3)

    def kernel(half: int, here: bool) -> set[tuple[int, int]]:
        above = itertools.product(range(-half, 0), range(-half, half + 1))
        return {*above, *((0, c) for c in range(-half, int(here)))}

    reached = {(5 + r, 3 + c) for r, c in kernel(2, False)}
    for _ in range(4):
        reached = {(i + r, j + c) for i, j in reached for r, c in kernel(1, True)}
    expected = np.array([[(i, j) in reached for j in range(width)] for i in range(height)])
    before = np.arange(63).reshape(height, width) < 5 * 9 + 3
    assert (before & ~expected)[:, 4:].any()  # on the right, though within six columns
    seen, gated = (
        _seen(make(shape=(height, width, 1), layers=4, gated=form), place)[0, ..., 0]
        for form in (False, True)
    )
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(gated, before)


@pytest.mark.parametrize("form", ["colours", "colours, residual"])
def test_colours_see_those_before_them(form: str) -> None:
    seen = _seen(make(**FORMS[form]), (2, 2))
    np.testing.assert_array_equal(seen[:, 2, 2], [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    assert seen[:, :2, 2].all()
    assert not seen[:, 2, 3:].any()
    assert not seen[:, 3:].any()


@pytest.mark.parametrize("form", ["gated", "residual", "levels", "colours"])
def test_probabilities_of_all_images_sum_to_one(form: str) -> None:
    shape = (2, 1, 3) if form == "colours" else (3, 2, 1)
    network = make(**{**FORMS[form], "shape": shape, "levels": 3 if form == "levels" else 2})
    every = np.array(list(itertools.product(range(network.levels), repeat=6)), np.int32)
    total = tf.reduce_sum(tf.exp(network.log_prob(every.reshape(-1, *shape))))
    assert float(total) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_draws_are_those_of_the_plain_loop(form: str) -> None:
    network = make(**FORMS[form])
    conditions = [None]
    if network.context:
        a_map = tf.random.stateless_normal([20, *network.shape[:2], network.context], [9, 9])
        conditions = [a_map, a_map[:, 0, 0]]
    for condition in conditions:
        found = network.draw(20, SEED, condition).numpy()
        np.testing.assert_array_equal(found, network.draw_plainly(20, SEED, condition))
        assert sorted(np.unique(found)) == list(range(network.levels))
        assert not np.array_equal(found, network.draw(20, SEED + 1, condition))


def test_draws_have_the_probabilities() -> None:
    network = make(shape=(2, 2, 1), levels=3)
    every = np.array(list(itertools.product(range(3), repeat=4)), np.int32)
    p = np.exp(network.log_prob(every.reshape(-1, 2, 2, 1)).numpy().astype(np.float64))
    drawn = network.draw(20_000, SEED).numpy().reshape(-1, 4) @ [27, 9, 3, 1]
    counts = np.bincount(drawn, minlength=81)
    assert scipy.stats.chisquare(counts, 20_000 * p / p.sum()).pvalue > 1e-3


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="levels must be 2 or more. Received: levels=1"):
        make(levels=1)
    with pytest.raises(ValueError, match="multiples of the 3 channels.* Received: filters=8"):
        make(shape=(4, 4, 3), filters=8)
    with pytest.raises(ValueError, match="needs gated=True. Received: context=2, gated=False"):
        make(context=2, gated=False)
    with pytest.raises(ValueError, match="a condition of 3 numbers, 0 being none. Received: 0"):
        make(context=3).draw(2, SEED)
