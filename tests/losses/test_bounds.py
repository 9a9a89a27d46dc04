"""Bounds against numbers that a reader can check by hand."""

import numpy as np
import tensorflow as tf

from tfgen.losses import bounds

# Two samples of three images; the weights are (1, 3), (1, 1) and (e^200, e^-200).
LOG_WEIGHTS = np.log(np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 1.0]])).astype(np.float32)
LOG_WEIGHTS[:, 2] = [200.0, -200.0]


def test_parts_together_have_the_sum_of_their_log_densities() -> None:
    parts = [tf.constant([1.0, 2.0]), tf.constant([3.0, 4.0]), tf.constant([-5.0, 6.0])]
    np.testing.assert_array_equal(bounds.joint(parts), [-1.0, 12.0])
    assert bounds.joint(parts[:1]) is parts[0]


def test_elbo_is_the_mean() -> None:
    np.testing.assert_allclose(bounds.elbo(LOG_WEIGHTS), [np.log(3) / 2, 0, 0], atol=1e-6)


def test_iwae_is_the_log_of_the_mean_weight() -> None:
    expected = [np.log(2), 0, 200 - np.log(2)]
    np.testing.assert_allclose(bounds.iwae(LOG_WEIGHTS), expected, rtol=1e-6)


def test_one_sample_is_the_elbo_bit_for_bit() -> None:
    log_weights = tf.random.stateless_normal([1, 1000], [0, 1], mean=-90.0, stddev=30.0)
    np.testing.assert_array_equal(bounds.iwae(log_weights), bounds.elbo(log_weights))


def test_better_samples_weigh_more() -> None:
    weights = bounds.normalized_weights(LOG_WEIGHTS)
    np.testing.assert_allclose(weights, [[0.25, 0.5, 1], [0.75, 0.5, 0]], atol=1e-6)


def test_gradient_of_iwae_is_the_normalised_weights() -> None:
    log_weights = tf.constant(LOG_WEIGHTS)
    with tf.GradientTape() as tape:
        tape.watch(log_weights)
        value = tf.reduce_sum(bounds.iwae(log_weights))
    np.testing.assert_allclose(
        tape.gradient(value, log_weights), bounds.normalized_weights(log_weights), atol=1e-6
    )


def test_an_unknown_number_of_samples_is_counted_when_it_is_known() -> None:
    bound = tf.function(bounds.iwae, input_signature=[tf.TensorSpec([None, 3])])
    np.testing.assert_allclose(bound(LOG_WEIGHTS), bounds.iwae(LOG_WEIGHTS), rtol=1e-6)
