"""Flows in a VAE's slots: densities of draws, exactness, free bits, combinations, bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.linear_gaussian import LinearGaussian
from tfgen import distributions, hparams
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.losses import bounds
from tfgen.models.vae import iaf, iwae, vae
from tfgen.models.vae._slots import FlowPosterior, FlowPrior, UniformPrior

SEED = tf.constant([5, 6])
SMALL = {"latent_dims": (4,), "hidden_units": (16,), "flow_hidden_units": (8,)}


def _images(count: int = 6) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.5, tf.float32)


def _make(cls=vae.VAE, **flags) -> vae.VAE:
    hp = vae.HParams(**{**SMALL, "analytic_kl": False, **flags})
    arguments = {} if cls is iwae.IWAE else {"analytic_kl": False}
    model = cls(**vae.slots(hp, (8, 8, 1)), k=hp.k, **arguments)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


def test_log_q_of_draws_is_their_density() -> None:
    model = _make(posterior="iaf")
    found = model.infer(_images(), 3, SEED)
    assert found.latents[0].shape == (3, 6, 4)
    again = model.posterior(0, _images()).log_prob(tf.identity(found.latents[0]))
    np.testing.assert_allclose(found.log_q[0], again, atol=1e-4)  # through 4 steps of the inverse


def test_the_posterior_is_not_diagonal_and_depends_on_the_image() -> None:
    model = _make(posterior="iaf")
    draws = model.posterior(0, _images(2)).sample(4000, seed=[1, 2]).numpy()
    correlations = np.corrcoef(draws[:, 0].T)
    assert np.abs(correlations - np.eye(4)).max() > 0.05  # 3 sigma of 4000 independent draws
    assert np.abs(draws[:, 0].mean(0) - draws[:, 1].mean(0)).max() > 0.1


def test_log_weights_are_exact_where_the_flows_undo_each_other() -> None:
    """z = f(h): with q(z|x) = f(q(h|x)) and p(z) = f(p(h)) log w is still log p(x)."""
    exact = LinearGaussian()
    images = exact.images(10)
    dimensions = exact.decoder().input_shape[-1]
    flow = AutoregressiveFlow(dimensions, blocks=2, hidden_units=(8,))
    for index, variable in enumerate(flow.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))

    class Carried(vae.VAE):
        def posterior(self, layer, below, training=False):
            return distributions.FlowGaussian(
                super().posterior(layer, below, training), flow.bijector()
            )

        def observation(self, latent, training=False):
            return super().observation(flow.bijector().inverse(latent), training)

    model = Carried(
        exact.encoder(), exact.decoder(), k=4, likelihood="gaussian", analytic_kl=False,
        prior=FlowPrior(flow),
    )  # fmt: skip
    log_weights = model.importance_terms(images, 4, SEED)["log_weight"]
    expected = np.tile(exact.log_prob(images), (4, 1))
    np.testing.assert_allclose(log_weights, expected, atol=1e-3)  # through the flow and back


def test_free_bits_leave_out_the_gradient_below_and_only_below() -> None:
    image = _images()

    def gradient(free_bits: float) -> np.ndarray:
        model = _make(posterior="iaf", free_bits=free_bits)
        with tf.GradientTape() as tape:
            terms = model.log_terms(image, model.infer(image, 5, SEED))
            bound = tf.reduce_mean(model.bound(terms, 1.0))
        of_likelihood = bounds.elbo(terms["likelihood"])
        kl = -float(tf.reduce_mean(terms["ratios"][0]))
        value = float(tf.reduce_mean(of_likelihood)) - kl
        assert float(bound) == pytest.approx(value, rel=1e-5)
        assert kl > 0.1
        last = model.posteriors[0].flow.networks[-1].trainable_variables[-1]
        return np.array(tape.gradient(bound, last))

    assert np.array_equal(gradient(0.1), gradient(0.0))
    assert not np.allclose(gradient(1e4), gradient(0.0))


def test_a_prior_begins_as_the_standard_gaussian_and_learns() -> None:
    hp = vae.HParams(**SMALL, prior="maf", analytic_kl=False, learning_rate=3e-3)
    model = vae.VAE(**vae.slots(hp, (8, 8, 1)), analytic_kl=False)
    z = tf.random.stateless_normal([5, 4], [1, 2])
    standard = distributions.StandardGaussian(4).log_prob(z)
    np.testing.assert_allclose(model.prior.distribution().log_prob(z), standard, atol=0.1)
    model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=5)
    images = np.tile(_images(40).numpy(), (5, 1, 1, 1))
    model.fit(images, batch_size=20, epochs=8, verbose=0)
    assert not np.allclose(model.prior.distribution().log_prob(z), standard, atol=0.3)


COMBINATIONS = [
    (iwae.IWAE, {"posterior": "iaf", "k": 5}),
    (iwae.IWAE, {"prior": "maf", "k": 5}),
    (vae.VAE, {"posterior": "iaf", "prior": "maf"}),
    (vae.VAE, {"posterior": "iaf", "latent_dims": (4, 3), "hidden_units": (16, 8)}),
    (vae.VAE, {"prior": "maf", "likelihood": "gaussian", "free_bits": 0.5}),
    (iwae.IWAE, {"posterior": "iaf", "likelihood": "discretized_logistic", "kl_warmup_steps": 5}),
]


@pytest.mark.parametrize(("cls", "flags"), COMBINATIONS)
def test_slots_combine(cls, flags, tmp_path) -> None:
    model = _make(cls, **flags)
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(_images(40), batch_size=10, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.log_prob(_images(), 3, k=7)).all()
    assert model.encode(_images()).shape == (6, model.latent_dims[-1])
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.sample(3, 1), model.sample(3, 1))
    np.testing.assert_array_equal(twin.log_prob(_images(), 3), model.log_prob(_images(), 3))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="no closed form: set --analytic_kl=false"):
        iaf.HParams(analytic_kl=True)
    with pytest.raises(ValueError, match="--dreg asks the posterior for densities"):
        iwae.HParams(posterior="iaf", dreg=True)
    with pytest.raises(ValueError, match="--free_bits must be 0 or more"):
        iaf.HParams(free_bits=-1.0)
    one = {"latent_dims": (1,), "hidden_units": (8,), "prior": "maf", "analytic_kl": False}
    with pytest.raises(ValueError, match="2 latents or more.* set --latent_dims. Received: .*=1$"):
        vae.HParams(**one)
    with pytest.raises(ValueError, match="--flow_hidden_units must be at least 50 for these"):
        iaf.HParams(flow_hidden_units=(20,))
    networks = vae.networks((8, 8, 1), vae.HParams(**SMALL))
    flow = AutoregressiveFlow(3, hidden_units=(8,))
    with pytest.raises(ValueError, match=r"must be over \[4, 4\] latents. Received: \[4, 3\]"):
        vae.VAE(*networks, prior=FlowPrior(flow), analytic_kl=False)
    with pytest.raises(ValueError, match="kind 'inverse' is needed. Received: kind='masked'"):
        FlowPosterior(flow)
    flow = AutoregressiveFlow(4, hidden_units=(8,), kind="inverse", context=2)
    with pytest.raises(ValueError, match="takes 10 numbers of its encoder. Received: .* gives 8"):
        vae.VAE(*networks, posterior=FlowPosterior(flow), analytic_kl=False)
    with pytest.raises(ValueError, match="no closed form. Received: analytic_kl=True"):
        vae.VAE(*networks, prior=FlowPrior(AutoregressiveFlow(4, hidden_units=(8,))))
    with pytest.raises(ValueError, match="one-hot latents need .*'GaussianPosterior', 'Uniform"):
        vae.VAE(*networks, prior=UniformPrior(4, 2))
    assert hparams.load_system("vae.iaf") is iaf
