"""KL of dimensions, collapse and mutual information against closed forms."""

import itertools

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.conditional_gaussian import ConditionalGaussian
from tests.linear_gaussian import LinearGaussian
from tfgen import distributions
from tfgen.metrics import latents
from tfgen.metrics.measure import Settings
from tfgen.models.vae import _slots, vae
from tfgen.networks.mlp import mlp


class _Images:
    """Images as a data set."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def batches(self, split: str, batch_size: int, seed: int, limit: int | None = None):
        assert split == "test"
        found = tf.data.Dataset.from_tensor_slices({"image": self.images[:limit]})
        return found.batch(batch_size)


def _vae(exact: LinearGaussian, **kwargs) -> vae.VAE:
    return vae.VAE(exact.encoder(**kwargs), exact.decoder(), likelihood="gaussian")


def _at(means: list[float], sigma: float, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and log sigmas of one-dimensional posteriors, each so many times."""
    loc = np.repeat(np.float64(means), copies)[:, None]
    return loc, np.full_like(loc, np.log(sigma))


def _information(means: np.ndarray, log_stds: np.ndarray) -> tuple[float, float]:
    """The estimate by one draw of each, with its error."""
    rng = np.random.default_rng(0)
    draws = means + np.exp(log_stds) * rng.normal(size=means.shape)
    log_q, log_aggregate = latents.densities(draws, means, log_stds)
    terms = log_q - log_aggregate
    return terms.mean(), terms.std() / np.sqrt(len(terms))


def test_densities_are_scipys() -> None:
    rng = np.random.default_rng(1)
    draws, means, log_stds = rng.normal(size=(3, 1203, 4))  # chunks of 500, 500 and 203
    log_q, log_aggregate = latents.densities(draws, means, log_stds)
    for row in (0, 499, 500, 1202):
        every = scipy.stats.norm(means, np.exp(log_stds)).logpdf(draws[row]).sum(1)
        assert log_q[row] == pytest.approx(every[row], rel=1e-9)
        assert log_aggregate[row] == pytest.approx(scipy.special.logsumexp(every) - np.log(1203))


def test_information_of_posteriors_apart_and_alike() -> None:
    apart = _information(*_at([0.0, 100.0, 200.0], 1.0, 50))
    assert apart[0] == pytest.approx(np.log(3), abs=1e-9)
    alike = _information(*_at([2.0], 0.5, 50))
    assert alike[0] == pytest.approx(0.0, abs=1e-9)


def test_information_of_two_that_overlap_is_the_integral() -> None:
    found, error = _information(*_at([-1.0, 1.0], 0.8, 2000))

    def gain(z: float) -> float:
        q = scipy.stats.norm([-1.0, 1.0], 0.8).pdf(z)
        return float(0.5 * (q * np.log(q / q.mean())).sum())

    truth = scipy.integrate.quad(gain, -10, 10)[0]
    assert 0.1 < truth < np.log(2) - 0.1
    assert abs(found - truth) < 4 * error
    assert error < 0.02


def test_information_and_marginal_kl_of_a_linear_gaussian() -> None:
    """The exact posterior: q(z) tends to p(z), and I(x; z) to H(z) - H(z|x)."""
    exact = LinearGaussian()
    data = _Images(exact.images(3000))
    found = latents.mutual_information(_vae(exact), data, Settings())
    truth = -0.5 * np.log(exact.variance).sum()
    measure = found["mutual_information"]
    # 3000 posteriors cover p(z) to some 1 %: the rest of their KL to it is in `marginal_kl`.
    assert abs(measure.value - truth) < 4 * measure.error + 0.05
    assert abs(found["marginal_kl"].value) < 0.1
    assert "3000 test images, at most log of it, 8.01" in measure.note
    # Moved by 1 in both dimensions the posteriors say as much, and lie off the prior by 1/2 each.
    moved = latents.mutual_information(_vae(exact, shift=1.0), data, Settings())
    assert moved["mutual_information"].value == pytest.approx(measure.value, abs=1e-4)
    off = moved["marginal_kl"]
    assert abs(off.value - found["marginal_kl"].value - 1.0) < 4 * off.error


def test_kl_of_dimensions_is_the_closed_form() -> None:
    exact = LinearGaussian()
    images, model = exact.images(700), _vae(exact)
    (kl,) = latents.mean_kl(model, _Images(images).batches("test", 300, 0), 0).values()
    q = model.posterior(0, images)
    theirs = tfd.kl_divergence(tfd.Normal(q.mean(), q.stddev()), tfd.Normal(0.0, 1.0))
    np.testing.assert_allclose(kl, tf.reduce_mean(theirs, 0), rtol=1e-4)
    total = tfd.kl_divergence(q, distributions.StandardGaussian(2))
    assert kl.sum() == pytest.approx(float(tf.reduce_mean(total)), rel=1e-4)


def test_kl_of_two_layers_is_that_of_their_draws() -> None:
    hp = vae.HParams(latent_dims=(4, 2), hidden_units=(8, 6))
    model = vae.VAE(*vae.networks((8, 8, 1), hp), analytic_kl=False)
    images = tf.cast(tf.random.stateless_uniform([4000, 8, 8, 1], [1, 2]) > 0.5, tf.float32)
    found = latents.mean_kl(model, [{"image": images}], 0)
    assert {layer: len(kl) for layer, kl in found.items()} == {1: 4, 2: 2}
    sampled = model.importance_terms(images, 1, tf.constant([3, 4]))["kl"].numpy()[0]
    total = sum(kl.sum() for kl in found.values())
    # Both are means over draws of the lower layer, hence twice the error.
    assert abs(total - sampled.mean()) < 4 * np.sqrt(2) * sampled.std() / np.sqrt(4000)


def test_kl_of_a_conditional_model_is_to_its_prior() -> None:
    exact = ConditionalGaussian()
    images, model = exact.images(5), exact.model()
    (kl,) = latents.mean_kl(model, [{"image": images}], 0).values()
    (q, p) = model.factors(images, tf.constant([0, 0]))[0]
    theirs = tfd.kl_divergence(tfd.Normal(q.mean(), q.stddev()), tfd.Normal(p.mean(), p.stddev()))
    np.testing.assert_allclose(kl, tf.reduce_mean(theirs, 0), rtol=1e-4)
    np.testing.assert_allclose(p.variance()[0], exact.prior_variance, rtol=1e-4)


def _silent(model: vae.VAE, dimensions: list[int]) -> None:
    """Makes these dimensions of the posterior the prior."""
    dense = model.encoders[0].layers[-1]
    kernel, bias = dense.get_weights()
    half = len(bias) // 2
    columns = [*dimensions, *(half + d for d in dimensions)]
    kernel[:, columns], bias[columns] = 0.0, 0.0
    dense.set_weights([kernel, bias])


def test_a_collapse_is_named() -> None:
    exact = LinearGaussian()
    model, data = _vae(exact), _Images(exact.images(20))
    names = ("unit_kl_layer_1", "collapsed_layer_1")
    for silent, count in (([], 0), ([1], 1), ([0, 1], 2)):
        _silent(model, silent)
        found = latents.kl_per_dimension(model, data, Settings())
        assert set(found) == set(names)
        assert found[names[1]].value == count
        assert found[names[1]].note.startswith("posterior collapse") == (count == 2)
    assert found[names[0]].value == 0.0
    assert found[names[0]].note == "mean of 2; the largest are 0 0"
    information = latents.mutual_information(model, data, Settings())
    assert information["mutual_information"].value == pytest.approx(0.0, abs=1e-9)


def test_training_names_a_collapse() -> None:
    hp = vae.HParams(latent_dims=(4,), hidden_units=(16,))
    images = np.float32(np.random.default_rng(0).random((100, 8, 8, 1)) > 0.5)
    for weight, names in ((100.0, {"posterior collapse"}), (0.01, set())):
        model = vae.VAE(*vae.networks((8, 8, 1), hp), kl_weight=weight)
        model.compile(keras.optimizers.Adam(1e-2), steps_per_execution=10)
        logs = model.fit(images, batch_size=50, epochs=100, verbose=0).history
        assert set(model.diagnose({name: values[-1] for name, values in logs.items()})) == names


# Of two variables of three values, for black and for white images.
PROBABILITIES = np.array([[[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], [[0.1, 0.1, 0.8], [0.5, 0.3, 0.2]]])
CODES = np.array([np.concatenate(p) for p in itertools.product(np.eye(3), np.eye(3))])


def _of_codes(probabilities: np.ndarray) -> np.ndarray:
    """Probability of each of the nine codes, [2, 9], variables being independent."""
    return np.array([np.outer(*image).ravel() for image in probabilities])


def _categorical_vae(probabilities: np.ndarray) -> vae.VAE:
    """With these posteriors of black and of white 2x2 images."""
    black, white = (np.log(p).ravel() for p in probabilities)
    encoder = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(6)]
    )
    encoder.layers[-1].set_weights([np.tile((white - black) / 4, (4, 1)), black])
    return vae.VAE(
        encoder, mlp((6,), (4,), (2, 2, 1)),
        posterior=_slots.CategoricalPosterior(6, 3), prior=_slots.UniformPrior(6, 3),
    )  # fmt: skip


def _black_and_white(copies: int) -> _Images:
    return _Images(np.tile(np.float32([0, 1])[:, None, None, None], (copies, 2, 2, 1)))


def test_information_of_two_categoricals_is_the_sum_over_their_codes() -> None:
    """All draws of both images, each as often as it is probable: no error is left."""
    q = _of_codes(PROBABILITIES)
    found = marginal = 0.0
    for (i, first), (j, second) in itertools.product(enumerate(CODES), repeat=2):
        draws = np.stack([first, second])
        own, aggregate = latents.categorical_densities(draws, np.log(PROBABILITIES))
        np.testing.assert_allclose(own, np.log([q[0, i], q[1, j]]), rtol=1e-12)
        found += q[0, i] * q[1, j] * (own - aggregate).mean()
        marginal += q[0, i] * q[1, j] * (aggregate + np.log(9)).mean()
    of_all = 0.5 * (q * np.log(q / q.mean(0))).sum()
    assert found == pytest.approx(of_all, rel=1e-12)
    assert marginal == pytest.approx((q.mean(0) * np.log(9 * q.mean(0))).sum(), rel=1e-12)


def test_categorical_densities_of_many_are_numpys() -> None:
    rng = np.random.default_rng(1)
    log_probs = np.float32(np.log(rng.dirichlet(np.ones(4), size=(1203, 2))))  # three chunks
    values = rng.integers(4, size=(1203, 2))
    draws = np.eye(4, dtype=np.float32)[values].reshape(1203, 8)
    own, aggregate = latents.categorical_densities(draws, log_probs)
    assert own.dtype == aggregate.dtype == np.float64
    for row in (0, 499, 500, 1202):
        every = log_probs[:, [0, 1], values[row]].astype(np.float64).sum(1)
        assert own[row] == pytest.approx(every[row], rel=1e-12)
        assert aggregate[row] == pytest.approx(scipy.special.logsumexp(every) - np.log(1203))


def test_information_and_kl_of_categorical_latents_are_the_closed_forms() -> None:
    model, data, q = (
        _categorical_vae(PROBABILITIES),
        _black_and_white(1500),
        _of_codes(PROBABILITIES),
    )
    found = latents.mutual_information(model, data, Settings())
    truth = {
        "mutual_information": 0.5 * (q * np.log(q / q.mean(0))).sum(),
        "marginal_kl": (q.mean(0) * np.log(9 * q.mean(0))).sum(),
    }
    assert found.keys() == truth.keys()
    for name, measure in found.items():
        assert abs(measure.value - truth[name]) < 4 * measure.error
        assert measure.error < 0.2 * truth[name]
    assert "3000 test images, at most log of it, 8.01" in found["mutual_information"].note
    (kl,) = latents.mean_kl(model, data.batches("test", 700, 0), 0).values()
    expected = (PROBABILITIES * np.log(3 * PROBABILITIES)).sum(-1).mean(0)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)  # of float32 logits
    # Of all variables together it is what the bound has.
    terms = model.log_terms(data.images, model.infer(data.images, 1, tf.constant([1, 2])))
    assert kl.sum() == pytest.approx(-float(tf.reduce_mean(terms["ratios"][0])), rel=1e-4)


def test_a_collapse_of_categoricals_is_named() -> None:
    for silent, count in (([], 0), ([1], 1), ([0, 1], 2)):
        probabilities = PROBABILITIES.copy()
        probabilities[:, silent] = 1 / 3
        model = _categorical_vae(probabilities)
        found = latents.kl_per_dimension(model, _black_and_white(10), Settings())
        assert set(found) == {"unit_kl_layer_1", "collapsed_layer_1"}
        assert found["collapsed_layer_1"].value == count
        note = found["collapsed_layer_1"].note
        assert note.startswith("posterior collapse") == (count == 2)
        assert note.endswith("of 2, KL below 0.01")
    assert found["unit_kl_layer_1"].value == pytest.approx(0.0, abs=1e-6)
    information = latents.mutual_information(model, _black_and_white(10), Settings())
    for name in ("mutual_information", "marginal_kl"):
        assert information[name].value == pytest.approx(0.0, abs=1e-6)


def test_flows_are_left_out() -> None:
    data = _Images(np.zeros((3, 8, 8, 1), np.float32))
    flags = {"latent_dims": (4,), "hidden_units": (8,), "analytic_kl": False}
    flow = vae.HParams(**flags, posterior="iaf", flow_hidden_units=(8,))
    model = vae.VAE(**vae.slots(flow, (8, 8, 1)), analytic_kl=False)
    assert latents.kl_per_dimension(model, data, Settings()) == {}
    assert latents.mutual_information(model, data, Settings()) == {}
    flow = vae.HParams(**flags, prior="maf", flow_hidden_units=(8,))
    model = vae.VAE(**vae.slots(flow, (8, 8, 1)), analytic_kl=False)
    assert latents.kl_per_dimension(model, data, Settings()) == {}
    found = latents.mutual_information(model, data, Settings())
    assert set(found) == {"mutual_information", "marginal_kl"}
