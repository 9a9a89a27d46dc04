"""The VAE's bound, layers and outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.linear_gaussian import LinearGaussian
from tfgen.models.vae import vae
from tfgen.networks.mlp import mlp

SEED = tf.constant([5, 6])


def _two_layers(k: int = 3) -> vae.VAE:
    hparams = vae.HParams(latent_dims=(4, 2), hidden_units=(8, 6), k=k)
    model = vae.VAE(*vae.networks((8, 8, 1), hparams), k=k)
    model.compile("adam")
    return model


def _images(count: int = 5) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.5, tf.float32)


def test_bound_is_exact_for_the_exact_posterior() -> None:
    exact = LinearGaussian()
    images = exact.images(20)
    model = vae.VAE(exact.encoder(), exact.decoder(), k=4, likelihood="gaussian", analytic_kl=False)
    terms = model.log_terms(images, model.infer(images, 4, SEED))
    # log w is log p(x) for every sample; float32 sums of some ten terms.
    np.testing.assert_allclose(model.bound(terms, 1.0), exact.log_prob(images), atol=5e-5)


def test_analytic_and_sampled_kl_agree_within_errors() -> None:
    exact = LinearGaussian()
    images = exact.images(8)
    k = 4000
    model = vae.VAE(exact.encoder(1.5), exact.decoder(), k=k, likelihood="gaussian")
    terms = model.log_terms(images, model.infer(images, k, SEED))
    ratio, kl = terms["posterior"] - terms["prior"], -terms["ratios"][-1]
    error = tf.math.reduce_std(ratio, 0) / np.sqrt(k)
    assert (abs(tf.reduce_mean(ratio, 0) - kl) < 4 * error).numpy().all()
    sampled = vae.VAE(exact.encoder(1.5), exact.decoder(), likelihood="gaussian", analytic_kl=False)
    of_samples = sampled.log_terms(images, model.infer(images, k, SEED))
    difference = model.bound(terms, 1.0) - sampled.bound(of_samples, 1.0)
    np.testing.assert_allclose(
        difference, tf.reduce_mean(ratio, 0) - kl, atol=1e-4
    )  # float32 means of 4000 terms


def test_two_layers_factorise_as_documented() -> None:
    model, image = _two_layers(), _images()
    inference = model.infer(image, 3, SEED)
    h1, h2 = inference.latents
    assert (h1.shape, h2.shape) == ((3, 5, 4), (3, 5, 2))
    terms = model.log_terms(image, inference)
    log_q = model.posterior(0, image).log_prob(h1) + model.posterior(1, h1).log_prob(h2)
    log_p = model.prior.distribution().log_prob(h2) + model.conditional_prior(0, h2).log_prob(h1)
    np.testing.assert_allclose(terms["posterior"], log_q, rtol=1e-6)
    np.testing.assert_allclose(terms["prior"], log_p, rtol=1e-6)
    np.testing.assert_allclose(
        terms["likelihood"], model.observation(h1).log_prob(image), rtol=1e-6
    )
    assert [r.shape for r in terms["ratios"]] == [(3, 5), (3, 5)]


def test_networks_are_the_papers() -> None:
    encoders, decoders = vae.networks(
        (28, 28, 1), vae.HParams(latent_dims=(100, 50), hidden_units=(200, 100))
    )
    widths = [[x.units for x in n.layers if isinstance(x, keras.layers.Dense)] for n in encoders]
    assert widths == [[200, 200, 200], [100, 100, 100]]
    widths = [[x.units for x in n.layers if isinstance(x, keras.layers.Dense)] for n in decoders]
    assert widths == [[100, 100, 200], [200, 200, 784]]


def test_kl_weight_warms_up() -> None:
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams()), kl_weight=0.5, kl_warmup_steps=10)
    model.step.assign(4)
    assert float(model._kl_weight()) == pytest.approx(0.2)
    model.step.assign(40)
    assert float(model._kl_weight()) == pytest.approx(0.5)


def test_adapt_sets_the_bias_to_the_clipped_logit_of_the_mean() -> None:
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams()))
    model.compile()
    images = np.zeros((4, 8, 8, 1), np.float32)
    images[0, :4] = 1.0  # mean 1/4 in the upper half, 0 in the lower
    model.adapt(tf.data.Dataset.from_tensor_slices({"image": images}).batch(3))
    biases = model.decoders[-1].layers[-2].bias.numpy().reshape(8, 8)
    np.testing.assert_allclose(biases[:4], np.log(1 / 3), rtol=1e-5)
    np.testing.assert_allclose(biases[4:], np.log(0.001 / 0.999), rtol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_logistic", "logistic_mixture"])
def test_other_likelihoods_train(likelihood: str) -> None:
    model = vae.VAE(
        *vae.networks((8, 8, 1), vae.HParams(likelihood=likelihood)), likelihood=likelihood
    )
    model.compile(keras.optimizers.Adam(3e-3))
    images = np.tile(np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1), (64, 1, 1, 1))
    images = np.round(images * 255) / 255
    history = model.fit(images, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0] if history[0] > 0 else history[-1] < history[0]


def test_learns_digits() -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images[..., None] > 8).astype(np.float32)
    hparams = vae.HParams(latent_dims=(8,), hidden_units=(64,))
    model = vae.VAE(*vae.networks((8, 8, 1), hparams))
    model.compile(keras.optimizers.Adam(3e-3), steps_per_execution=10)
    history = model.fit(images, batch_size=100, epochs=15, verbose=0).history["elbo"]
    mean = np.clip(images.mean(0), 1e-3, 1 - 1e-3)
    mean_image = (images * np.log(mean) + (1 - images) * np.log(1 - mean)).sum((1, 2, 3)).mean()
    assert history[-1] > mean_image + 2.0  # the latents carry what the mean image cannot


def test_latent_grid_covers_the_quantiles() -> None:
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams(latent_dims=(2,), hidden_units=(8,))))
    assert model.latent_grid(5).shape == (5, 5, 8, 8, 1)
    middle = model.decode(tf.zeros([1, 2]))[0]
    np.testing.assert_allclose(model.latent_grid(5)[2, 2], middle, atol=1e-6)


def test_traversals_move_one_latent_through_the_prior() -> None:
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams(latent_dims=(3,), hidden_units=(8,))))
    image = np.eye(8, dtype=np.float32)[..., None]
    found = model.traverse(image, (2, 0), 3)
    assert found.shape == (2, 3, 8, 8, 1)
    (code,) = model.encode(image[None]).numpy()
    for row, dimension in enumerate((2, 0)):
        for column, value in enumerate((-2.326348, 0.0, 2.326348)):  # of 1 %, 50 % and 99 %
            latent = code.copy()
            latent[dimension] = value
            (wanted,) = model.decode(latent[None])
            np.testing.assert_allclose(found[row, column], wanted, atol=1e-5)


def test_traversals_are_of_the_latents_that_vary_most() -> None:
    images = np.random.default_rng(0).uniform(size=(20, 8, 8, 1)).astype(np.float32)
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams(latent_dims=(12,), hidden_units=(8,))))
    order = np.argsort(-model.encode(images).numpy().var(0))[:8]
    shown = model.pictures({"image": images}, 0)["traversals"]
    np.testing.assert_allclose(shown, model.traverse(images[0], order, 10), atol=1e-6)


def test_wrong_arguments_are_named() -> None:
    encoder = mlp((8, 8, 1), (4,), (4,))
    decoder = mlp((2,), (4,), (8, 8, 1))
    with pytest.raises(ValueError, match="k must be more than 0. Received: k=0"):
        vae.VAE(encoder, decoder, k=0)
    for name in ("free_bits", "kl_weight", "kl_warmup_steps"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more. Received: {name}=-1"):
            vae.VAE(encoder, decoder, **{name: -1})
    with pytest.raises(ValueError, match="likelihood must be one of .* Received: 'poisson'"):
        vae.VAE(encoder, decoder, likelihood="poisson")
    with pytest.raises(ValueError, match="as many encoders as decoders.* Received: 1 and 2"):
        vae.VAE(encoder, [decoder, decoder])
    with pytest.raises(ValueError, match=r"must give \(8, 8, 2\) for a gaussian .*\(8, 8, 1\)$"):
        vae.VAE(encoder, decoder, likelihood="gaussian")
    with pytest.raises(ValueError, match=r"means and log sigmas of 3 .*\(6,\). Received: \(2,\)"):
        vae.VAE(
            [mlp((8, 8, 1), (4,), (6,)), mlp((3,), (4,), (4,))],
            [mlp((2,), (4,), (2,)), mlp((3,), (4,), (8, 8, 1))],
        )
    unbuilt = keras.Sequential([keras.layers.Dense(4)], name="unbuilt")
    with pytest.raises(ValueError, match="start 'unbuilt' with a keras.Input"):
        vae.VAE(unbuilt, decoder)


def test_an_importance_weighted_bound_has_its_terms() -> None:
    """By one line of each, in the flags and in the constructor."""
    flags = {"importance_weighted": True, "analytic_kl": False}
    assert vae.HParams(**flags).importance_weighted
    assert vae.VAE(*vae.networks((8, 8, 1), vae.HParams()), **flags).importance_weighted
    assert not vae.VAE(*vae.networks((8, 8, 1), vae.HParams())).importance_weighted
    with pytest.raises(ValueError, match="set --analytic_kl=false. Received: --importance_weighte"):
        vae.HParams(importance_weighted=True)
    with pytest.raises(ValueError, match="set analytic_kl=False. Received: importance_weighted=Tr"):
        vae.VAE(*vae.networks((8, 8, 1), vae.HParams()), importance_weighted=True)
    one_hots = {"posterior": "categorical", "latent_dims": (20,)}
    for analytic_kl in (False, True):
        flags["analytic_kl"] = analytic_kl
        with pytest.raises(ValueError, match="--posterior=categorical. Use --system=vae.gumbel --"):
            vae.HParams(**flags, **one_hots)
        with pytest.raises(ValueError, match="Received: importance_weighted=True, CategoricalPost"):
            vae.VAE(**vae.slots(vae.HParams(**one_hots), (8, 8, 1)), **flags)


def test_means_of_a_gaussian_are_images() -> None:
    decoder = mlp((2,), (4,), (8, 8, 2))
    decoder.layers[-2].set_weights([10 * w + 3 for w in decoder.layers[-2].get_weights()])
    model = vae.VAE(mlp((8, 8, 1), (4,), (4,)), decoder, likelihood="gaussian")
    images = model.sample(50, 0).numpy()
    assert images.min() >= 0
    assert images.max() == 1


def test_the_collapse_of_one_layer_is_named() -> None:
    hparams = vae.HParams(latent_dims=(3, 2), hidden_units=(6, 5))
    model = vae.VAE(*vae.networks((8, 8, 1), hparams), analytic_kl=False)
    image = tf.cast(tf.random.stateless_uniform([6, 8, 8, 1], [1, 1]) > 0.5, tf.float32)
    logs = model.test_step({"image": image})
    total = float(logs["kl_1"] + logs["kl_2"])
    assert total == pytest.approx(float(logs["kl"]), rel=1e-4)
    found = model.diagnose({**logs, "kl": 30.0, "kl_1": 30.0, "kl_2": 0.05})
    assert found == {"posterior collapse": "kl_2 0.05 nats, below 0.1"}
