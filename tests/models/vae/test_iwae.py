"""The importance weighted bound, its gradients and how they differ from the VAE's."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import ordering
from tests.linear_gaussian import LinearGaussian
from tfgen import commands, hparams
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.models.vae import iwae, vae
from tfgen.models.vae._slots import FlowPosterior, FlowPrior

HPARAMS = iwae.HParams(latent_dims=(4,), hidden_units=(16,))


def _images(count: int = 6) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.5, tf.float32)


def _gradients(model: vae.VAE, images: np.ndarray, step: int = 0) -> list[np.ndarray]:
    """The gradients that one train step hands to the optimiser, by plain SGD at step size 1."""
    if not model.optimizers:
        model.compile(keras.optimizers.SGD(1.0))
    before = [v.numpy() for v in model.trainable_variables]
    model.step.assign(step)
    model.run_steps(iter(tf.data.Dataset.from_tensors({"image": images})), 1)
    found = [b - v.numpy() for b, v in zip(before, model.trainable_variables, strict=True)]
    for value, variable in zip(before, model.trainable_variables, strict=True):
        variable.assign(value)
    return found


def test_k_1_equals_the_sampled_elbo_bit_for_bit() -> None:
    networks = vae.networks((8, 8, 1), HPARAMS)
    sampled = vae.VAE(*networks, k=1, analytic_kl=False)
    weighted = iwae.IWAE(*networks, k=1)
    terms = sampled.log_terms(_images(), sampled.infer(_images(), 1, tf.constant([1, 2])))
    np.testing.assert_array_equal(sampled.bound(terms, 1.0), weighted.bound(terms, 1.0))
    for a, b in zip(_gradients(sampled, _images()), _gradients(weighted, _images()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("flags", [{}, {"kl_weight": 0.3}, {"free_bits": 1e3}])
def test_a_vae_with_the_flag_is_an_iwae_bit_for_bit(flags) -> None:
    networks, images = vae.networks((8, 8, 1), HPARAMS), _images()
    flagged = vae.VAE(*networks, k=5, importance_weighted=True, analytic_kl=False, **flags)
    weighted = iwae.IWAE(*networks, k=5, **flags)
    plain = vae.VAE(*networks, k=5, analytic_kl=False, **flags)
    ours, theirs, elbo = (
        model.test_step({"image": images})["loss"].numpy() for model in (flagged, weighted, plain)
    )
    assert ours == theirs
    assert ours < elbo - 0.01  # Jensen's inequality, of the same samples
    for a, b in zip(_gradients(flagged, images), _gradients(weighted, images), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dreg", [False, True])
def test_with_layers_its_sums_have_one_order(dreg: bool) -> None:
    hp = dataclasses.replace(HPARAMS, latent_dims=(4, 3, 2), hidden_units=(8, 8, 8))
    model = iwae.IWAE(*vae.networks((8, 8, 1), hp), k=3, dreg=dreg)
    graphs = ordering.graphs_of(lambda: _gradients(model, _images()))
    assert any(node.op == "MatMul" for graph in graphs for node in graph.node)
    assert [name for graph in graphs for name in ordering.sums_by_chance(graph)] == []


def test_gradient_tends_to_that_of_log_p() -> None:
    exact = LinearGaussian()
    images = exact.images(50)
    model = iwae.IWAE(exact.encoder(1.4, shift=0.3), exact.decoder(), k=1000, likelihood="gaussian")
    bias = -_gradients(model, images)[-1].reshape(9, 2)[:, 0]
    # 50 x 1000 samples leave some 0.005 of noise in components of about 0.3.
    np.testing.assert_allclose(bias, exact.log_prob_gradient(images), atol=0.02)


def test_weights_that_favour_worse_samples_are_caught() -> None:
    class Wrong(iwae.IWAE):
        def bound(self, terms: dict, kl_weight: float) -> tf.Tensor:
            log_weights = self.log_weights(terms, kl_weight)
            weights = tf.stop_gradient(tf.nn.softmax(-log_weights, axis=0))
            return tf.reduce_sum(weights * log_weights, axis=0)

    exact = LinearGaussian()
    images = exact.images(50)
    model = Wrong(exact.encoder(1.4, shift=0.3), exact.decoder(), k=1000, likelihood="gaussian")
    bias = -_gradients(model, images)[-1].reshape(9, 2)[:, 0]
    assert abs(bias - exact.log_prob_gradient(images)).max() > 0.1


@pytest.mark.parametrize(("layers", "kl_weight"), [(1, 1.0), (2, 1.0), (1, 0.3), (2, 0.0)])
def test_dreg_has_the_same_mean_and_less_noise(layers: int, kl_weight: float) -> None:
    hp = iwae.HParams(latent_dims=(3, 2)[:layers], hidden_units=(6, 5)[:layers])
    networks = vae.networks((4, 4, 1), hp)
    image = tf.cast(tf.random.stateless_uniform([1, 4, 4, 1], [8, 2]) > 0.5, tf.float32)
    images = tf.tile(image, [200, 1, 1, 1])  # 200 draws of one image's gradient, averaged

    def draws(dreg: bool) -> np.ndarray:
        model = iwae.IWAE(*networks, k=8, dreg=dreg, kl_weight=kl_weight)
        count = len(model.trainable_variables) // 2  # the encoders', which come first
        return np.stack(
            [
                np.concatenate([g.ravel() for g in _gradients(model, images, s)[:count]])
                for s in range(16)
            ]
        )

    plain, doubly = draws(False), draws(True)
    error = np.sqrt((plain.var(0, ddof=1) + doubly.var(0, ddof=1)) / 16)
    off = abs(plain.mean(0) - doubly.mean(0)) / np.maximum(error, 1e-7)
    # Student's t with some 20 degrees of freedom: of these parameters under 1% lie beyond 4.
    assert (off > 4).mean() < 0.01
    assert np.abs(plain.mean(0)).max() > 10 * np.median(error)
    if kl_weight:  # Without it the density has no gradient to take the noise of.
        assert doubly.var(0).sum() < plain.var(0).sum()


def test_dreg_without_free_bits() -> None:
    with pytest.raises(ValueError, match="free_bits=0. Received: free_bits=2.0"):
        iwae.IWAE(*vae.networks((4, 4, 1), HPARAMS), dreg=True, free_bits=2.0)
    with pytest.raises(ValueError, match="--free_bits=0. Received: --dreg --free_bits=2.0"):
        iwae.HParams(dreg=True, free_bits=2.0)


def test_dreg_of_the_decoder_is_the_plain_gradient() -> None:
    networks = vae.networks((8, 8, 1), HPARAMS)
    plain = _gradients(iwae.IWAE(*networks, k=5), _images())
    doubly = _gradients(iwae.IWAE(*networks, k=5, dreg=True), _images())
    for a, b in zip(plain[6:], doubly[6:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_dreg_vanishes_at_the_exact_posterior() -> None:
    exact = LinearGaussian()
    images = exact.images(10)

    def encoder_gradient(dreg: bool) -> float:
        model = iwae.IWAE(exact.encoder(), exact.decoder(), k=3, dreg=dreg, likelihood="gaussian")
        return max(abs(g).max() for g in _gradients(model, images)[:2])

    # log w does not depend on z there: nothing is left but float32 rounding.
    assert encoder_gradient(dreg=True) < 1e-4
    assert encoder_gradient(dreg=False) > 0.01


def test_wrong_flags_are_named() -> None:
    with pytest.raises(ValueError, match="--analytic_kl has no meaning.*set --analytic_kl=false"):
        iwae.HParams(analytic_kl=True)
    with pytest.raises(ValueError, match="use --system=vae.vae .*--importance_weighted=false$"):
        iwae.HParams(importance_weighted=False)
    with pytest.raises(ValueError, match="no importance weights.*Use --system=vae.gumbel"):
        iwae.HParams(posterior="categorical", latent_dims=(200,))


def test_flags_of_a_run_from_before_the_flag_are_read(tmp_path) -> None:
    new = iwae.HParams(k=7)
    lines = hparams.to_flagfile("vae.iwae", new).splitlines()
    (line,) = (line for line in lines if "importance" in line)
    assert line == "--importance_weighted=true"
    path = tmp_path / "flags.cfg"
    path.write_text("\n".join(other for other in lines if other != line))
    arguments = ["", f"--flagfile={path}", "--run_dir=there"]
    assert hparams.parse(arguments, commands.RunOptions)[1] == new


def test_dreg_trains_a_prior_by_its_plain_gradient() -> None:
    flow = AutoregressiveFlow(4, blocks=1, hidden_units=(8,), seed=3)
    encoder, decoder = vae.networks((8, 8, 1), HPARAMS)

    def of_prior(dreg: bool) -> list[np.ndarray]:
        model = iwae.IWAE(encoder, decoder, k=5, dreg=dreg, prior=FlowPrior(flow))
        moved = zip(model.trainable_variables, _gradients(model, _images()), strict=True)
        ours = {id(v) for v in model.prior.trainable_variables}
        return [gradient for variable, gradient in moved if id(variable) in ours]

    doubly, plain = of_prior(True), of_prior(False)
    assert len(plain) > 2
    assert max(np.abs(g).max() for g in plain) > 1e-3
    for ours, expected in zip(doubly, plain, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_dreg_needs_gaussian_posteriors() -> None:
    posterior = FlowPosterior(AutoregressiveFlow(4, blocks=1, hidden_units=(8,), kind="inverse"))
    networks = vae.networks((8, 8, 1), HPARAMS, [posterior.outputs])
    with pytest.raises(ValueError, match="dreg needs Gaussian posteriors.*FlowPosterior"):
        iwae.IWAE(*networks, dreg=True, posterior=posterior)
