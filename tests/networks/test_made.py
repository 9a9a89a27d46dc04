"""MADE: what each output may depend on, and nothing less."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen.networks.made import autoregress, made


def dependencies(
    network, dimensions: int, context: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Whether number i depends on input j, and on input j of the context: bool [d, d], [d, c]."""
    for variable in network.trainable_variables:  # no weight is 0, and no unit of a relu is dead
        noise = tf.random.stateless_uniform(variable.shape, [len(variable.shape), 3], 0.1, 1.0)
        variable.assign(noise)
    x = tf.random.stateless_uniform([1, dimensions], [1, 2], 0.5, 1.0)
    inputs = [x] + ([tf.random.stateless_uniform([1, context], [3, 4])] if context else [])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        numbers = network(inputs if context else x)[..., 0]
    found = [tape.jacobian(numbers, i)[0, :, 0].numpy() != 0 for i in inputs]
    return found[0], found[1] if context else None


@pytest.mark.parametrize("hidden", [(4,), (7, 5), (9, 4, 6)])
@pytest.mark.parametrize("order", [None, (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
def test_each_output_sees_all_of_what_comes_before_and_nothing_else(hidden, order) -> None:
    found, _ = dependencies(made(5, hidden, order=order), 5)
    rank = np.arange(5) if order is None else np.array(order)
    np.testing.assert_array_equal(found, rank[np.newaxis] < rank[:, np.newaxis])


def test_every_output_sees_all_of_the_context() -> None:
    found, of_context = dependencies(made(4, (8, 6), context=3), 4, context=3)
    np.testing.assert_array_equal(found, np.tri(4, k=-1, dtype=bool))
    assert of_context.all()


def test_one_dimension_may_have_a_context() -> None:
    _, of_context = dependencies(made(1, (4,), context=2), 1, context=2)
    assert of_context.all()


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("order", [None, (2, 0, 4, 1, 3)])
def test_autoregressing_gives_what_calls_for_each_dimension_give(context, order) -> None:
    network = made(5, (9, 7), order=order, context=context)
    for index, variable in enumerate(network.trainable_variables):
        variable.assign(0.5 * tf.random.stateless_normal(variable.shape, [index, 3]))
    u = tf.random.stateless_normal([6, 5], [1, 2])
    given = tf.random.stateless_normal([6, context], [3, 4]) if context else None

    def numbers(x):
        return network(x if given is None else [x, given])

    x = tf.zeros_like(u)
    for _ in range(5):
        x = u * tf.exp(numbers(x)[..., 1]) + numbers(x)[..., 0]
    found = tf.function(autoregress)(network, lambda u, n: u * tf.exp(n[1]) + n[0], u, given)
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-5)  # sums in another order
    np.testing.assert_allclose(
        autoregress(network, lambda u, n: u * tf.exp(n[1]) + n[0], u, given), found, atol=1e-5
    )


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="2 dimensions or more, or a context.* dimensions=1"):
        made(1, (8,))
    with pytest.raises(ValueError, match=r"at least 5 for 6 dimensions.* Received: \(8, 4\)"):
        made(6, (8, 4))
    with pytest.raises(ValueError, match=r"permutation of 0..2. Received: \[0, 1, 1\]"):
        made(3, (8,), order=(0, 1, 1))
    with pytest.raises(ValueError, match="at least 1 width. Received: none"):
        made(3, ())
