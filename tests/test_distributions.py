"""Likelihoods against TFP's and scipy's."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfgen import distributions


def test_bernoulli_equals_tfp_and_is_finite_at_any_logit() -> None:
    logits = np.array([[[0.0], [1.5]], [[-104.0], [1e4]]], np.float32)  # [B, W, C] as one event
    value = np.array([[[1.0], [0.0]], [[0.0], [0.0]]], np.float32)
    ours = distributions.bernoulli(logits[:, None], event_ndims=3).log_prob(value[:, None])
    theirs = tfp.distributions.Independent(tfp.distributions.Bernoulli(logits), 2).log_prob(value)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.isfinite(ours).all()


def test_bernoulli_gradient_is_x_minus_sigmoid_and_broadcasts() -> None:
    logits = tf.random.stateless_normal([5, 3, 4, 4, 1], [1, 2]) * 3
    value = tf.cast(tf.random.stateless_uniform([3, 4, 4, 1], [3, 4]) > 0.5, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = distributions.bernoulli(logits).log_prob(value)
    assert log_prob.shape == (5, 3)
    expected = value - scipy.special.expit(logits.numpy())
    np.testing.assert_allclose(tape.gradient(log_prob, logits), expected, atol=1e-6)


def test_bernoulli_takes_values_of_more_dimensions_than_logits() -> None:
    logits = tf.random.stateless_normal([3, 4], [1, 2])
    values = tf.cast(tf.random.stateless_uniform([5, 3, 4], [3, 4]) > 0.5, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = distributions.bernoulli(logits, event_ndims=1).log_prob(values)
    assert log_prob.shape == (5, 3)
    expected = tf.reduce_sum(values - tf.sigmoid(logits), 0)
    np.testing.assert_allclose(tape.gradient(log_prob, logits), expected, atol=1e-6)


def test_bernoulli_is_a_tfp_distribution_that_slices_and_copies() -> None:
    logits = tf.random.stateless_normal([3, 4], [1, 2])
    found = distributions.bernoulli(logits, event_ndims=1)
    value = tf.ones([4])
    np.testing.assert_allclose(found[1:].log_prob(value), found.log_prob(value)[1:])
    np.testing.assert_allclose(found.copy().log_prob(value), found.log_prob(value))


def test_gaussian_splits_means_and_log_sigmas() -> None:
    outputs = np.array([0.5, -1.0], np.float32).reshape(1, 1, 1, 2)
    found = distributions.gaussian(outputs).log_prob(np.full((1, 1, 1, 1), 0.2, np.float32))
    assert found.numpy() == pytest.approx(scipy.stats.norm(0.5, np.exp(-1)).logpdf(0.2), rel=1e-5)


@pytest.mark.parametrize("mean", [-0.1, 0.0, 0.3, 1.0])
def test_discretized_logistic_equals_the_formula_and_sums_to_one(mean: float) -> None:
    log_scale = -3.0
    levels = np.arange(256) / 255
    outputs = np.tile(np.float32([mean, log_scale]), (256, 1, 1, 1))
    found = distributions.discretized_logistic(outputs).log_prob(
        levels.reshape(-1, 1, 1, 1).astype(np.float32)
    )
    upper = scipy.special.expit((levels + 1 / 510 - mean) / np.exp(log_scale))
    lower = scipy.special.expit((levels - 1 / 510 - mean) / np.exp(log_scale))
    upper[-1], lower[0] = 1.0, 0.0
    # Differences of float32 logistic functions lose up to three digits in the tails.
    np.testing.assert_allclose(np.exp(found), upper - lower, rtol=2e-3, atol=1e-9)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-4)


def test_discretized_logistic_is_finite_far_out() -> None:
    outputs = np.array([0.0, -20.0], np.float32).reshape(1, 1, 1, 2)
    value = tf.constant(1.0, shape=[1, 1, 1, 1])
    assert np.isfinite(distributions.discretized_logistic(outputs).log_prob(value)).all()


def test_logistic_mixture_weighs_discretized_logistics() -> None:
    rng = np.random.default_rng(0)
    outputs = np.float32(rng.normal(0.5, 0.5, (2, 1, 1, 3 * 3 * distributions.MIXTURE)))
    levels = np.float32(np.arange(256) / 255)
    found = distributions.logistic_mixture(outputs)
    assert (found.batch_shape, found.event_shape) == ((2,), (1, 1, 3))
    by_channel = np.zeros((2, 3, 256))
    parts = outputs.reshape(2, 3, 3, distributions.MIXTURE)
    for (n, c), probabilities in np.ndenumerate(np.empty((2, 3))):
        del probabilities
        logits, means, scales = parts[n, c]
        for logit, mean, scale in zip(scipy.special.softmax(logits), means, scales, strict=True):
            one = np.tile(np.float32([mean, scale]), (256, 1, 1, 1))
            masses = distributions.discretized_logistic(one).log_prob(levels[:, None, None, None])
            by_channel[n, c] += logit * np.exp(masses)
    assert by_channel.sum(-1) == pytest.approx(1.0, abs=1e-4)
    value = rng.integers(0, 256, (2, 1, 1, 3))
    expected = [
        sum(np.log(by_channel[n, c, value[n, 0, 0, c]]) for c in range(3)) for n in range(2)
    ]
    np.testing.assert_allclose(found.log_prob(np.float32(value / 255)), expected, rtol=1e-4)
    expected_mean = (by_channel * np.arange(256)).sum(-1)
    np.testing.assert_allclose(found.mean()[:, 0, 0], expected_mean / 255, atol=1e-4)
    drawn = found.sample(4000, seed=(1, 2)).numpy()[:, :, 0, 0] * 255
    np.testing.assert_allclose(drawn, drawn.round(), atol=1e-3)
    error = drawn.std(0) / np.sqrt(4000)
    assert (np.abs(drawn.mean(0) - expected_mean) < 4 * error).all()


@pytest.mark.parametrize("log_scale", [-9.0, -6.0, -4.0, -2.0, 0.0, 4.0])
def test_mean_of_levels_is_that_of_their_probabilities(log_scale: float) -> None:
    levels = np.float32(np.arange(256) / 255)
    for mean in (-0.3, 0.0, 0.2503, 0.9, 1.1):
        one = np.tile(np.float32([mean, log_scale]), (256, 1, 1, 1))
        found = distributions.discretized_logistic(one)
        masses = np.exp(found.log_prob(levels[:, None, None, None]))
        assert masses.sum() == pytest.approx(1.0, abs=1e-4)
        within = 0.51 / 255 if log_scale < -5 else 1e-4  # narrower than a level, or wider
        assert float(found.mean()[0, 0, 0, 0]) == pytest.approx(masses @ levels, abs=within)


def test_a_logistic_wider_than_all_levels_is_finite() -> None:
    outputs = tf.constant([[[[0.5, 12.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        log_prob = distributions.discretized_logistic(outputs).log_prob([[[[0.4]]]])
    assert np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(log_prob, outputs)).all()


def test_logistic_mixture_fits_what_one_logistic_cannot() -> None:
    """Two levels far apart, each half of the time: 1 bit at best, 8 if all levels are alike."""
    value = tf.constant([25 / 255, 230 / 255] * 20, shape=[40, 1, 1, 1])
    bits = {}
    for make, numbers in (
        (distributions.discretized_logistic, 2),
        (distributions.logistic_mixture, 3 * distributions.MIXTURE),
    ):
        outputs = tf.Variable(0.3 * tf.random.stateless_normal([1, 1, 1, numbers], [0, 1]))
        optimizer = keras.optimizers.Adam(0.1)
        for _ in range(300):
            with tf.GradientTape() as tape:
                nll = -tf.reduce_mean(make(outputs).log_prob(value)) / np.log(2)
            optimizer.apply(tape.gradient(nll, [outputs]), [outputs])
        bits[numbers] = float(nll)
    assert bits[2] > 8
    assert bits[3 * distributions.MIXTURE] < 4


def test_diagonal_gaussian_and_its_kl_are_analytic() -> None:
    outputs = np.array([[0.5, -1.0, 0.2, -0.3]], np.float32)
    q, p = distributions.diagonal_gaussian(outputs), distributions.StandardGaussian(2)
    mean, log_std = outputs[0, :2], outputs[0, 2:]
    # Kingma and Welling 2014, appendix B.
    expected = -0.5 * np.sum(1 + 2 * log_std - mean**2 - np.exp(2 * log_std))
    kl = tfp.distributions.kl_divergence(q, p)
    np.testing.assert_allclose(kl, [expected], rtol=1e-5)


def test_diagonal_gaussian_tells_the_density_of_its_draws() -> None:
    q = distributions.diagonal_gaussian(tf.random.stateless_normal([3, 8], [1, 2]))
    draws, log_prob = q.experimental_sample_and_log_prob([5], seed=[0, 1])
    np.testing.assert_array_equal(draws, q.sample(5, seed=[0, 1]))
    np.testing.assert_allclose(log_prob, q.log_prob(draws), rtol=1e-5)
    standard = distributions.StandardGaussian(4)
    np.testing.assert_allclose(
        standard.log_prob(draws), super(type(standard), standard)._log_prob(draws), rtol=1e-6
    )


def test_diagonal_gaussian_equals_tfp() -> None:
    q = distributions.diagonal_gaussian(tf.random.stateless_normal([3, 8], [1, 2]))
    p = distributions.diagonal_gaussian(tf.random.stateless_normal([3, 8], [3, 4]))
    theirs = [tfp.distributions.MultivariateNormalDiag(d.mean(), d.stddev()) for d in (q, p)]
    draws = q.sample(5, seed=[0, 1])
    assert draws.shape == (5, 3, 4)
    np.testing.assert_allclose(q.log_prob(draws), theirs[0].log_prob(draws), rtol=1e-5)
    kl, expected = (tfp.distributions.kl_divergence(*d) for d in ((q, p), theirs))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_diagonal_gaussian_samples_have_its_moments_and_gradients() -> None:
    outputs = tf.constant([0.5, -1.0, 0.2, -0.3])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        draws = distributions.diagonal_gaussian(outputs).sample(100_000, seed=[5, 6])
        first = tf.reduce_sum(draws[0])
    np.testing.assert_allclose(np.mean(draws, axis=0), [0.5, -1.0], atol=0.02)  # 5 standard errors
    np.testing.assert_allclose(np.std(draws, axis=0), np.exp([0.2, -0.3]), rtol=0.01)
    deviation = draws[0] - outputs[:2]  # sigma * noise, its own derivative by log sigma
    np.testing.assert_allclose(
        tape.gradient(first, outputs), tf.concat([[1.0, 1.0], deviation], 0), rtol=1e-5
    )
