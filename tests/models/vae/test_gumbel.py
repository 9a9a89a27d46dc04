"""Categorical latents: draws, bounds, the score function, wrong arguments."""

import itertools

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfgen import distributions
from tfgen.losses import bounds
from tfgen.models.vae import gumbel, vae

HPARAMS = gumbel.HParams(latent_dims=(6,), categories=3, hidden_units=(16,))
SEED = tf.constant([5, 6])


def _images(count: int = 6) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.5, tf.float32)


def _make(cls=vae.VAE, **flags) -> vae.VAE:
    hp = gumbel.HParams(latent_dims=(6,), categories=3, hidden_units=(16,), **flags)
    model = cls(**vae.slots(hp, (8, 8, 1)), k=hp.k)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.3 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


def _log_p(model: vae.VAE, images: tf.Tensor) -> np.ndarray:
    """log p(x) by all 9 values of two variables of three."""
    eye = np.eye(3, dtype=np.float32)
    codes = np.array([np.concatenate(pair) for pair in itertools.product(eye, eye)])
    joint = [model.observation(tf.tile(c[None], [len(images), 1])).log_prob(images) for c in codes]
    return scipy.special.logsumexp(np.array(joint), axis=0) - np.log(9)


def test_draws_have_the_categories_probabilities() -> None:
    logits = tf.constant([[[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]]])
    for temperature in (None, 0.5):
        draws = distributions.Categoricals(logits, temperature).sample(20_000, seed=[1, 2])
        chosen = tf.reshape(draws, [20_000, 2, 3]).numpy().argmax(-1)
        for variable in range(2):
            counts = np.bincount(chosen[:, variable], minlength=3)
            expected = 20_000 * scipy.special.softmax(np.float64(logits[0, variable]))
            assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def test_density_and_kl_are_tfps() -> None:
    a, b = (tf.random.stateless_normal([4, 2, 3], [seed, 1]) for seed in (0, 1))
    q, p = distributions.Categoricals(a), distributions.Categoricals(b)
    theirs = [tfp.distributions.OneHotCategorical(logits=x) for x in (a, b)]
    draws = q.sample(5, seed=[1, 2])
    assert draws.shape == (5, 4, 6)
    split = tf.reshape(draws, [5, 4, 2, 3])
    np.testing.assert_allclose(
        p.log_prob(draws), tf.reduce_sum(theirs[1].log_prob(split), -1), rtol=1e-5
    )
    kl = tf.reduce_sum(tfp.distributions.kl_divergence(*theirs), -1)
    np.testing.assert_allclose(tfp.distributions.kl_divergence(q, p), kl, rtol=1e-5)


def test_training_relaxes_and_evaluation_draws_one_hots() -> None:
    model = _make()
    for training in (True, False):
        z = model.infer(_images(), 4, SEED, training=training).latents[0].numpy()
        np.testing.assert_allclose(z.reshape(4, 6, 2, 3).sum(-1), 1.0, atol=1e-5)
        assert np.isin(z, [0.0, 1.0]).all() == (not training)


def test_the_bound_tends_to_log_p_summed_over_all_codes() -> None:
    model, images = _make(), _images()
    expected = _log_p(model, images)
    terms = model.importance_terms(images, 5000, SEED)
    weights = bounds.normalized_weights(terms["log_weight"])
    error = np.sqrt(tf.reduce_sum(weights**2, 0) - 1 / 5000)  # by the delta method
    assert error.max() < 0.2
    assert (abs(bounds.iwae(terms["log_weight"]) - expected) < 4 * error).numpy().all()
    assert (tf.reduce_mean(terms["log_weight"], 0) < expected).numpy().all()


def test_the_temperature_falls_with_the_step() -> None:
    model = _make(temperature_rate=0.1, temperature_min=0.3)
    for step in (0, 5, 100):
        model.step.assign(step)
        assert float(model.posterior(0, _images(), training=True).temperature) == pytest.approx(
            max(np.exp(-0.1 * step), 0.3)
        )


def test_the_score_function_has_the_bounds_gradient() -> None:
    """Against the gradient of the exact ELBO, summed over all codes."""
    model, images = _make(gumbel.ScoreFunctionVAE, k=20_000), _images(2)
    last = model.encoders[0].trainable_variables[-1]
    eye = np.eye(3, dtype=np.float32)
    codes = np.array([np.concatenate(pair) for pair in itertools.product(eye, eye)])
    with tf.GradientTape() as tape:
        q = model.posterior(0, images)
        elbo = 0.0
        for code in codes:
            z = tf.tile(code[None], [2, 1])
            log_q = q.log_prob(z)
            joint = model.observation(z).log_prob(images) - np.log(9)
            elbo += tf.reduce_mean(tf.exp(log_q) * (tf.stop_gradient(joint) - log_q))
    expected = tape.gradient(elbo, last).numpy()
    model.compile(keras.optimizers.SGD(1.0))
    terms = model.log_terms(images, model.infer(images, 100, SEED))
    mean = float(tf.reduce_mean(terms["likelihood"] + terms["prior"] - terms["posterior"]))
    model.signal_mean.assign(mean)  # so that little noise is left
    model.signal_square.assign(mean**2 + 10.0)
    before, decoder = last.numpy(), model.decoders[0].trainable_variables[-1].numpy()
    rows = model.run_steps(iter(tf.data.Dataset.from_tensors({"image": images})), 1)
    scale = max(1.0, rows[0]["signal_deviation"])  # by which the signal is divided
    # 40,000 draws leave some 2 % of the largest component.
    found = (last.numpy() - before) * scale
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert not np.array_equal(model.decoders[0].trainable_variables[-1].numpy(), decoder)


@pytest.mark.parametrize("flags", [{}, {"straight_through": True}, {"estimator": "score"}])
def test_each_estimator_learns(flags) -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images[..., None] > 8).astype(np.float32)
    cls = gumbel.ScoreFunctionVAE if flags.get("estimator") == "score" else vae.VAE
    hp = gumbel.HParams(latent_dims=(32,), categories=8, hidden_units=(64,), **flags)
    model = cls(**vae.slots(hp, (8, 8, 1)))
    model.compile(keras.optimizers.Adam(3e-3), steps_per_execution=10)
    model.fit(images, batch_size=100, epochs=15, verbose=0)
    mean = np.clip(images.mean(0), 1e-3, 1 - 1e-3)
    mean_image = (images * np.log(mean) + (1 - images) * np.log(1 - mean)).sum((1, 2, 3)).mean()
    assert float(tf.reduce_mean(model.log_prob(images[:500], 0))) > mean_image + 1.0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="--temperature_min must be more than 0"):
        gumbel.HParams(temperature_min=0.0)
    with pytest.raises(ValueError, match="--categories must be 2 or more"):
        gumbel.HParams(categories=1)
    with pytest.raises(ValueError, match=r"a multiple of --categories. Received: .*\(25,\)"):
        gumbel.HParams(latent_dims=(25,))
    with pytest.raises(ValueError, match="vae.gumbel has categorical latents"):
        gumbel.HParams(posterior="gaussian")
    for estimator in ("relaxed", "score"):
        with pytest.raises(ValueError, match="have no importance weights"):
            gumbel.HParams(importance_weighted=True, analytic_kl=False, estimator=estimator)
    with pytest.raises(ValueError, match="has a uniform prior"):
        gumbel.HParams(prior="maf", analytic_kl=False)
