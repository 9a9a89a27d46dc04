"""The NLL estimate against a model whose log p(x) is known, and against wrong estimators."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tests.linear_gaussian import LinearGaussian
from tfgen.metrics import likelihood
from tfgen.metrics.measure import Measure, Settings
from tfgen.models.vae.iwae import IWAE

K = 2000


@pytest.fixture(scope="module")
def exact() -> LinearGaussian:
    return LinearGaussian()


def _model(exact: LinearGaussian, cls: type = IWAE, widen: float = 1.4) -> IWAE:
    return cls(exact.encoder(widen), exact.decoder(), k=5, likelihood="gaussian")


def _estimate(model: IWAE, images: np.ndarray, k: int = K) -> likelihood.Estimates:
    batches = tf.data.Dataset.from_tensor_slices({"image": images}).batch(16)
    return likelihood.estimate(model, batches, k=k, seed=3)


def _agrees(model: IWAE, exact: LinearGaussian, k: int = K) -> bool:
    """Within 3 standard errors, for the mean over images and for nearly every image."""
    images = exact.images(40)
    found, truth = _estimate(model, images, k), exact.log_prob(images)
    off = found.log_prob - truth
    error_of_mean = np.sqrt((found.error**2).sum()) / len(off)
    # Of 40 images 0.1 lie outside 3 errors on average; more than 2 has a probability below 1e-3.
    return bool(abs(off.mean()) < 3 * error_of_mean and (abs(off) > 3 * found.error).sum() <= 2)


def test_agrees_with_closed_form(exact: LinearGaussian) -> None:
    assert _agrees(_model(exact), exact)


def test_exact_posterior_has_no_error(exact: LinearGaussian) -> None:
    images = exact.images(10)
    found = _estimate(_model(exact, widen=1.0), images, k=7)
    # float32 log densities of magnitude 10 carry about 1e-6 each, and some twenty are added.
    np.testing.assert_allclose(found.log_prob, exact.log_prob(images), atol=5e-5)
    np.testing.assert_allclose(found.effective, 7.0, rtol=1e-4)
    np.testing.assert_allclose(found.error, 0.0, atol=1e-4)


class WrongSign(IWAE):
    def importance_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        terms = super().importance_terms(image, k, seed)
        return {**terms, "log_weight": terms["likelihood"] + terms["kl"]}


class WorseSamplesWeighMore(IWAE):
    """The known peer: softmax over plus the loss instead of minus."""

    def importance_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        terms = super().importance_terms(image, k, seed)
        return {**terms, "log_weight": -terms["log_weight"]}


class PriorForgotten(IWAE):
    def importance_terms(self, image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        terms = super().importance_terms(image, k, seed)
        return {**terms, "log_weight": terms["likelihood"]}


@pytest.mark.parametrize("wrong", [WrongSign, WorseSamplesWeighMore, PriorForgotten])
def test_wrong_estimators_are_caught(exact: LinearGaussian, wrong: type) -> None:
    assert not _agrees(_model(exact, wrong), exact)


def test_too_few_samples_are_caught(exact: LinearGaussian) -> None:
    # With 2 samples the bound lies visibly below log p(x).
    assert not _agrees(_model(exact, widen=2.5), exact, k=2)


def test_bound_rises_with_k(exact: LinearGaussian) -> None:
    images = exact.images(64)
    model = _model(exact, widen=2.0)
    means = [_estimate(model, images, k).log_prob.mean() for k in (1, 5, 50, 500)]
    assert means == sorted(means)
    assert means[-1] <= exact.log_prob(images).mean() + 0.02


def test_elbo_is_its_terms_and_chunks_do_not_matter(
    exact: LinearGaussian, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = exact.images(16)
    whole = _estimate(_model(exact), images, k=K)
    np.testing.assert_allclose(whole.elbo, whole.likelihood - whole.kl, atol=1e-5)
    monkeypatch.setattr(likelihood, "_ROWS", 16 * 90)  # 22 chunks of 90 and one of 20
    chunked = _estimate(_model(exact), images, k=K)
    # Other noise: equal within the errors that both state.
    bound = 4 * np.sqrt(whole.error**2 + chunked.error**2)
    assert (abs(whole.log_prob - chunked.log_prob) < bound).all()


def test_k_below_one_is_refused(exact: LinearGaussian) -> None:
    with pytest.raises(ValueError, match="k must be more than 0. Received: k=0"):
        _estimate(_model(exact), exact.images(2), k=0)


@pytest.mark.parametrize("rows", [1, 400])  # k samples one by one, and all at once
def test_weights_of_0_count_as_0(rows: int, monkeypatch) -> None:
    """Half of all weights of eight images are 0, none of the ninth's, all of the tenth's."""
    monkeypatch.setattr(likelihood, "_ROWS", rows)

    def terms_of(image: tf.Tensor, k: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        none = tf.random.stateless_uniform([k, 10], seed) < image
        log_weight = tf.where(none, -np.inf, -1000.0)
        return {"log_weight": log_weight, "likelihood": log_weight, "kl": tf.zeros([k, 10])}

    batches = [{"image": tf.constant([*[0.5] * 8, 0.0, 1.0])}]
    with np.errstate(all="raise"):
        found = likelihood.estimate_by(terms_of, batches, k=40, seed=0)
    some = found.effective[:8]  # of 40 weights are not 0
    assert ((some > 8) & (some < 32)).all()
    expected = [*(-1000 + np.log(some / 40)), -1000.0, -np.inf]
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-9)
    np.testing.assert_allclose(found.effective, [*some, 40.0, 0.0], rtol=1e-9)
    errors = [*np.sqrt(1 / some - 1 / 40), 0.0, np.inf]
    np.testing.assert_allclose(found.error, errors, atol=1e-7)


class _Units:
    """Ten images; layer 1 has two units that move and one that does not, layer 2 one that moves."""

    spec = type("Spec", (), {"test_size": 10, "train_size": 10})

    def batches(self, split: str, batch_size: int, seed: int, limit: int) -> tf.data.Dataset:
        assert (split, limit) == ("train", 10_000)
        return tf.data.Dataset.from_tensor_slices({"image": np.arange(10, dtype=np.float32)}).batch(
            4
        )

    def evidence(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return batch["image"]

    def posterior_means(self, image: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        still = tf.fill(tf.shape(image), 0.3) + 0.02 * image / 10
        return [tf.stack([image, still, -image], -1), tf.stack([still, 1 / (1 + image)], -1)]


def test_active_units_counts_by_variance() -> None:
    found = likelihood.active_units(_Units(), _Units(), Settings())
    assert {k: m.value for k, m in found.items()} == {
        "active_units_layer_1": 2,
        "active_units_layer_2": 1,
    }
    assert "over 10 train images" in found["active_units_layer_1"].note


def test_measure_of_a_mean() -> None:
    m = Measure.mean(np.array([1.0, 2.0, 3.0, 6.0]), "nats", "")
    # Sample variance (4 + 1 + 0 + 9) / 3, divided by n = 4.
    assert m.value == 3.0
    assert m.error == pytest.approx(np.sqrt(14 / 3 / 4))


@pytest.mark.parametrize("image_range", ["unit", "symmetric"])
def test_reconstruction_error_is_of_pixels_in_unit_range(image_range: str) -> None:
    """Whatever range a system wants: all black for images of 1/4 and of 1."""
    levels = tf.constant([0.25, 1.0]) * tf.ones([2, 2, 1, 2])
    image = tf.transpose(levels, [3, 0, 1, 2])  # [2, 2, 2, 1]
    if image_range == "symmetric":
        image = 2.0 * image - 1.0
    black = types.SimpleNamespace(
        reconstruct=lambda x, seed: tf.zeros_like(x) - float(image_range == "symmetric")
    )
    data = types.SimpleNamespace(
        spec=types.SimpleNamespace(image_range=image_range),
        batches=lambda split, size, seed, limit: [{"image": image}],
    )
    found = likelihood.reconstruction_error(black, data, Settings(split="test", seed=0))
    assert found["reconstruction_error"].value == pytest.approx((0.25**2 + 1) / 2)
