"""The autoregressive prior: what it is beside an inverse autoregressive posterior."""

import numpy as np
import pytest
import tensorflow as tf

from tfgen import hparams
from tfgen.models.vae import af_prior, vae

HPARAMS = af_prior.HParams(latent_dims=(3,), hidden_units=(16,), flow_hidden_units=(8,))


def test_the_same_model_seen_from_the_base() -> None:
    """With u = f^-1(z), log p(z) - log q(z|x) = log N(u) - log q_u(u|x): section 3.2."""
    model = vae.VAE(**vae.slots(HPARAMS, (8, 8, 1)), k=5, analytic_kl=False)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))
    images = tf.cast(tf.random.stateless_uniform([4, 8, 8, 1], [1, 2]) > 0.5, tf.float32)
    inference = model.infer(images, 5, tf.constant([1, 2]))
    terms = model.log_terms(images, inference)
    (z,) = inference.latents
    flow = model.prior.flow.bijector()
    u = flow.inverse(z)
    log_q_u = inference.log_q[0] - flow.inverse_log_det_jacobian(z, 1)
    log_p_u = -0.5 * tf.reduce_sum(u**2, -1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(terms["ratios"][0], log_p_u - log_q_u, atol=1e-4)


def test_samples_come_from_the_flow() -> None:
    model = vae.VAE(**vae.slots(HPARAMS, (8, 8, 1)), analytic_kl=False)
    network = model.prior.flow.networks[0]
    shift = network.get_layer("output").bias
    shift.assign(tf.constant([50.0, 0.0] * 3))  # shifts of 50, log scales of 0
    drawn = model.prior.distribution().sample(2000, seed=[1, 2]).numpy()
    np.testing.assert_allclose(drawn.mean(0), 50.0, atol=1.0)
    assert not np.allclose(model.sample(2, 0), vae.VAE(
        **vae.slots(HPARAMS, (8, 8, 1)), analytic_kl=False
    ).sample(2, 0))  # fmt: skip


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="no closed form: set --analytic_kl=false"):
        af_prior.HParams(analytic_kl=True)
    assert hparams.load_system("vae.af_prior") is af_prior
