"""Conditional VAEs: densities in closed form, what is seen, who is trained when, bad input."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.conditional_gaussian import LATENTS, SHAPE, ConditionalGaussian
from tests.kl_gradient import kl_gradients
from tfgen.data import DataSpec
from tfgen.metrics import latents, likelihood
from tfgen.metrics.measure import Settings
from tfgen.models.vae import cvae
from tfgen.networks.mlp import mlp

SEED = tf.constant([5, 6])


@pytest.fixture(scope="module")
def exact() -> ConditionalGaussian:
    return ConditionalGaussian()


def _build(**flags) -> cvae.CVAE:
    small = {"latent_dims": (4,), "hidden_units": (16,), "batch_size": 10, "steps": 10}
    spec = DataSpec(
        "nowhere", {"image": (8, 8, 1)}, {"image": "float32"}, "binary", None, 100, 20, 20
    )
    return cvae.build(cvae.HParams(**{**small, **flags}), spec)


def _images(count: int = 10) -> tf.Tensor:
    return tf.cast(tf.random.stateless_uniform([count, 8, 8, 1], [1, 2]) > 0.5, tf.float32)


def _stream(images: tf.Tensor):
    return iter(tf.data.Dataset.from_tensors({"image": images}).repeat())


def _values(variables) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in variables]


def _moved(variables, before: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(v.numpy(), b) for v, b in zip(variables, before, strict=True)]


@pytest.mark.parametrize(
    ("quadrants", "rows"),
    [(1, ("1111", "1111", "0011", "0011")), (2, ("0011",) * 4), (3, ("0000",) * 2 + ("0011",) * 2)],
)
def test_hidden_quadrants(quadrants: int, rows: tuple[str, ...]) -> None:
    hidden = cvae.hidden_pixels((4, 4, 1), quadrants)
    assert ["".join(str(int(p)) for p in row) for row in hidden[..., 0]] == list(rows)


def test_every_weight_is_exact_for_the_exact_posterior(exact: ConditionalGaussian) -> None:
    images = exact.images(20)
    weights = exact.model().importance_terms(images, 3, SEED)["log_weight"]
    # float32 sums of some thirty terms, magnitudes up to 30.
    np.testing.assert_allclose(weights, np.tile(exact.log_prob(images), (3, 1)), atol=2e-4)


class StandardPrior(cvae.CVAE):
    def log_terms(self, image, inference, training=False):
        terms = super().log_terms(image, inference, training)
        prior = -0.5 * tf.reduce_sum(inference.latents[0] ** 2 + np.log(2 * np.pi), -1)
        return {**terms, "prior": prior}


class NoGuess(cvae.CVAE):
    def condition(self, image):
        return tf.where(self.hidden, 0.0, image)


class LeakingCondition(cvae.CVAE):
    def condition(self, image):
        return tf.convert_to_tensor(image)


@pytest.mark.parametrize("wrong", [StandardPrior, NoGuess, LeakingCondition])
def test_wrong_models_are_caught(exact: ConditionalGaussian, wrong: type) -> None:
    images = exact.images(20)
    weights = exact.model(wrong).importance_terms(images, 3, SEED)["log_weight"]
    assert np.abs(weights - exact.log_prob(images)).min() > 2e-3


def test_baseline_is_exact_and_sees_only_what_is_seen(exact: ConditionalGaussian) -> None:
    images = exact.images(20)
    found = exact.model().baseline_log_prob(images)
    np.testing.assert_allclose(found, exact.baseline_log_prob(images), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("terms", ["importance_terms", "prior_terms"])
def test_both_estimates_tend_to_log_p(exact: ConditionalGaussian, terms: str) -> None:
    images, model = exact.images(40), exact.model(widen=1.4)
    batches = tf.data.Dataset.from_tensor_slices({"image": images}).batch(16)
    found = likelihood.estimate_by(getattr(model, terms), batches, k=4000, seed=3)
    off = found.log_prob - exact.log_prob(images)
    # The error is by the delta method, good where many samples count.
    good = found.effective > 40
    assert good.sum() > 20
    assert (np.abs(off) < 4 * found.error)[good].all()
    assert np.abs(off[good].mean()) < 4 * np.sqrt((found.error[good] ** 2).sum()) / good.sum()
    if terms == "prior_terms":  # fewer of them count
        by_posterior = likelihood.estimate(model, batches, k=4000, seed=3)
        assert found.effective.mean() < 0.5 * by_posterior.effective.mean()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_objective_weighs_both_bounds(exact: ConditionalGaussian, alpha: float) -> None:
    images, k = exact.images(6), 4000
    model = exact.model(alpha=alpha, k=k, analytic_kl=False)
    expected = alpha * exact.log_prob(images) + (1 - alpha) * exact.expected_log_likelihood(images)
    found = -float(model.test_step({"image": images})["loss"])
    spread = np.array(model.prior_terms(images, k, SEED)["likelihood"]).std(0)
    error = (1 - alpha) * np.sqrt((spread**2).sum() / k) / len(images)
    assert found == pytest.approx(expected.mean(), abs=float(4 * error + 2e-4))


def _of_samples(log_weights: tf.Tensor, importance_weighted: bool) -> np.ndarray:
    """L_k or the ELBO by log weights [k, B]."""
    weights = np.float64(log_weights)
    if importance_weighted:
        return scipy.special.logsumexp(weights, axis=0) - np.log(len(weights))
    return weights.mean(0)


@pytest.mark.parametrize("importance_weighted", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_both_bounds_are_importance_weighted(
    exact: ConditionalGaussian, alpha: float, importance_weighted: bool
) -> None:
    images, k = exact.images(6), 5
    flags = {"importance_weighted": importance_weighted, "analytic_kl": False}
    model = exact.model(widen=1.4, alpha=alpha, k=k, **flags)
    terms = model.log_terms(images, model.infer(images, k, model.noise_seed()))
    weights = terms["likelihood"] + terms["prior"] - terms["posterior"]
    bound = _of_samples(weights, importance_weighted)
    if alpha == 0:  # z ~ p(z|x), of which no ratio is left
        np.testing.assert_allclose(weights, terms["likelihood"], atol=1e-4)
    by_prior = model.prior_terms(images, k, model.noise_seed(cvae._FROM_PRIOR))["likelihood"]
    gsnn = _of_samples(by_prior, importance_weighted) if 0 < alpha < 1 else bound
    expected = alpha * bound + (1 - alpha) * gsnn
    found = -float(model.test_step({"image": images})["loss"])
    assert found == pytest.approx(expected.mean(), rel=1e-5)
    other = _of_samples(weights, not importance_weighted)
    assert abs(other - bound).mean() > 0.1


def test_l_k_lies_between_the_elbo_and_log_p(exact: ConditionalGaussian) -> None:
    images, k = exact.images(500), 20
    model = exact.model(widen=1.4, k=k, importance_weighted=True, analytic_kl=False)
    elbo = exact.model(widen=1.4, k=k, analytic_kl=False)
    terms = model.log_terms(images, model.infer(images, k, SEED))
    weights = terms["likelihood"] + terms["prior"] - terms["posterior"]
    found = np.array(model.bound(terms, 1.0))
    np.testing.assert_allclose(found, _of_samples(weights, True), rtol=1e-4, atol=1e-4)
    off = {"L_k": found, "elbo": np.array(elbo.bound(terms, 1.0))}
    off = {name: bound - exact.log_prob(images) for name, bound in off.items()}
    error = {name: values.std() / np.sqrt(500) for name, values in off.items()}
    assert off["L_k"].mean() > off["elbo"].mean() + 10 * error["elbo"]
    assert off["L_k"].mean() < 4 * error["L_k"]


@pytest.mark.parametrize("importance_weighted", [False, True])
def test_free_bits_stop_the_gradient_of_the_kl(importance_weighted: bool) -> None:
    flags = {"importance_weighted": importance_weighted, "analytic_kl": not importance_weighted}
    found = {}
    for free_bits in (0.0, 1e-3, 1e4):
        model = _build(free_bits=free_bits, **flags)
        found[free_bits] = kl_gradients(model, _images(), 3, SEED)
    decoder = {id(v) for v in model.decoders[0].trainable_variables}
    # Float32 sums over a batch of components up to 1.
    assert max(found[1e4]) < 1e-5
    for variable, largest in zip(model.players()["model"], found[0.0], strict=True):
        assert (largest > 1e-3) == (id(variable) not in decoder), variable.path
    assert found[1e-3] == found[0.0]


def test_a_unit_may_be_active_by_what_is_seen_alone(exact: ConditionalGaussian) -> None:
    """A GSNN's latents depend on x through p(z|x), and tell nothing of y."""

    class Data:
        spec = SimpleNamespace(test_size=300)

        def batches(self, *_, **__):
            return tf.data.Dataset.from_tensor_slices({"image": exact.images(300)}).batch(100)

    for alpha, lowest, highest in ((0.0, 0.0, 1e-6), (1.0, 0.01, np.inf)):
        model = exact.model(alpha=alpha)
        assert {"likelihood.active_units", "latents.kl_per_dimension"} <= set(model.evaluations)
        active = likelihood.active_units(model, Data(), Settings())["active_units_layer_1"]
        assert active.value == LATENTS
        kl = latents.mean_kl(model, Data().batches(), 0)[1]
        assert ((lowest <= kl) & (kl <= highest)).all()
    kernel, bias = model.encoders[0].layers[-1].get_weights()
    kernel[:, 0] = 0.0
    model.encoders[0].layers[-1].set_weights([kernel, bias])
    assert likelihood.active_units(model, Data(), Settings())["active_units_layer_1"].value == 1


def test_the_analytic_kl_is_to_the_conditional_prior(exact: ConditionalGaussian) -> None:
    images, model = exact.images(6), exact.model(k=4000)
    terms = model.log_terms(images, model.infer(images, 4000, SEED))
    sampled = terms["posterior"] - terms["prior"]
    error = tf.math.reduce_std(sampled, 0) / np.sqrt(4000)
    assert (abs(tf.reduce_mean(sampled, 0) + terms["ratios"][0]) < 4 * error).numpy().all()


def test_nothing_shown_depends_on_hidden_pixels() -> None:
    model, image = _build(), _images()
    other = tf.where(model.hidden, 1.0 - image, image)
    np.testing.assert_array_equal(model.condition(image), model.condition(other))
    first = model.complete(image, 1)
    np.testing.assert_array_equal(first, model.complete(other, 1))
    seen = ~np.broadcast_to(model.hidden, first.shape)
    np.testing.assert_array_equal(first.numpy()[seen], image.numpy()[seen])
    assert not np.array_equal(first, model.complete(image, 2))
    assert not np.array_equal(model.encode(image), model.encode(other))


def test_the_baseline_comes_first_and_then_stands_still() -> None:
    model, stream = _build(steps=10, baseline_part=0.3), _stream(_images())
    players = model.players()
    start = {name: _values(variables) for name, variables in players.items()}
    (*first, _) = rows = model.run_steps(stream, 4)
    assert [set(logs) for logs in first] == [{"loss"}] * 3
    assert "baseline_nll" in rows[3]
    steps = {name: int(o.iterations.numpy()) for name, o in model.optimizers.items()}
    assert steps == {"baseline": 3, "model": 1}

    model, stream = _build(steps=10, baseline_part=0.3), _stream(_images())
    players = model.players()
    model.run_steps(stream, 3)
    assert all(_moved(players["baseline"], start["baseline"]))
    assert not any(_moved(players["model"], start["model"]))
    learnt = _values(players["baseline"])
    model.run_steps(stream, 3)
    assert not any(_moved(players["baseline"], learnt))
    assert all(_moved(players["model"], start["model"]))


def test_the_kl_warms_up_when_the_baseline_has_learnt() -> None:
    model = _build(steps=20, baseline_part=0.5, kl_warmup_steps=4)
    weights = []
    for step in (0, 10, 12, 14, 19):
        model.step.assign(step)
        weights.append(float(model._kl_weight()))
    assert weights == [0, 0, 0.5, 1, 1]


def test_a_gsnn_draws_from_the_prior_and_has_no_encoder() -> None:
    model, image = _build(alpha=0.0), _images()
    assert not model.encoders[0].trainable_variables
    terms = model.log_terms(image, model.infer(image, 2, SEED))
    np.testing.assert_allclose(terms["posterior"], terms["prior"], atol=1e-5)
    encoder = _values(model.encoders[0].weights)
    rows = model.run_steps(_stream(image), 7)
    assert rows[-1]["kl"] == pytest.approx(0.0, abs=1e-5)
    assert not any(_moved(model.encoders[0].weights, encoder))


@pytest.mark.parametrize(
    "flags",
    [
        {"quadrants": 2, "alpha": 0.5},
        {"posterior": "iaf", "flow_hidden_units": (8,), "analytic_kl": False, "k": 3},
        {"likelihood": "logistic_mixture", "quadrants": 3, "free_bits": 1.0},
        {"importance_weighted": True, "analytic_kl": False, "k": 3, "alpha": 0.5},
    ],
)
def test_other_fillings_train(flags) -> None:
    model = _build(**flags, learning_rate=3e-3, steps=60, baseline_part=0.4)
    rows = model.run_steps(_stream(_images()), 60)
    assert rows[23]["loss"] < rows[0]["loss"]
    assert np.isfinite(rows[-1]["loss"])
    assert rows[-1]["loss"] < rows[24]["loss"]


def test_samples_complete_what_adapt_has_kept() -> None:
    model, images = _build(quadrants=3), _images(5)
    model.adapt(tf.data.Dataset.from_tensor_slices({"image": images}).batch(3))
    kept = {image.tobytes() for image in images.numpy()[:3]}
    assert {image.tobytes() for image in model.examples.numpy()} == kept
    seen = {(image * ~model.hidden).tobytes() for image in images.numpy()[:3]}
    found = np.float32(model.sample(20, 0).numpy() * ~model.hidden)
    assert {image.tobytes() for image in found} == seen
    mean = np.clip(images.numpy().mean(0), 0.001, 0.999).reshape(-1)
    np.testing.assert_allclose(
        model.baseline.layers[-2].bias, np.log(mean / (1 - mean)), rtol=1e-5, atol=1e-6
    )


def test_pictures_show_what_is_seen_guessed_completed_and_true() -> None:
    model, image = _build(), _images(3)
    grid = model.pictures({"image": image}, seed=2)["completions"]
    assert grid.shape == (3, 9, 8, 8, 1)
    hidden = np.broadcast_to(model.hidden, image.shape)
    assert (grid[:, 0][hidden] == 0.5).all()
    np.testing.assert_array_equal(grid[:, 0][~hidden], image.numpy()[~hidden])
    np.testing.assert_array_equal(grid[:, 1], model.condition(image))
    np.testing.assert_array_equal(grid[:, 3], model.complete(image, 3))
    np.testing.assert_array_equal(grid[:, 8], image)


def test_learns_more_than_the_baseline_on_digits() -> None:
    from sklearn.datasets import load_digits

    images = (load_digits().images[..., None] > 8).astype(np.float32)
    hp = cvae.HParams(latent_dims=(8,), hidden_units=(64,), learning_rate=3e-3)
    model = cvae.CVAE(**cvae.networks((8, 8, 1), hp, 16), quadrants=1, baseline_steps=600)
    model.compile(
        baseline=keras.optimizers.Adam(3e-3), model=keras.optimizers.Adam(3e-3),
        steps_per_execution=10,
    )  # fmt: skip
    train = tf.data.Dataset.from_tensor_slices({"image": images[:1500]}).shuffle(1500, seed=0)
    model.run_steps(iter(train.repeat().batch(100)), 1200)
    test = images[1500:]
    ours = float(tf.reduce_mean(model.log_prob(test, 0)))
    baseline = float(tf.reduce_mean(model.baseline_log_prob(test)))
    mean = np.clip(images[:1500].mean(0), 1e-3, 1 - 1e-3)
    by_pixel = test * np.log(mean) + (1 - test) * np.log(1 - mean)
    mean_image = (by_pixel * model.hidden).sum((1, 2, 3)).mean()
    assert baseline > mean_image + 1.0
    assert ours > baseline + 1.0


def test_wrong_arguments_are_named() -> None:
    for quadrants in (0, 4):
        with pytest.raises(ValueError, match="--quadrants must be 1, 2 or 3. Received: --quadr"):
            cvae.HParams(quadrants=quadrants)
        with pytest.raises(ValueError, match=f"must be 1, 2 or 3. Received: {quadrants}"):
            cvae.hidden_pixels(SHAPE, quadrants)
    with pytest.raises(ValueError, match="--alpha must be from 0 to 1. Received: --alpha=1.5"):
        cvae.HParams(alpha=1.5)
    with pytest.raises(ValueError, match="--baseline_part must be between 0 and 1. Received: --b"):
        cvae.HParams(baseline_part=1)
    with pytest.raises(ValueError, match="--likelihood must be of pixels independent giv"):
        cvae.HParams(likelihood="pixelcnn")
    with pytest.raises(ValueError, match="one stochastic layer. Received: --latent_dims=4,2"):
        cvae.HParams(latent_dims=(4, 2), hidden_units=(8, 8))
    with pytest.raises(ValueError, match="has no meaning for the importance weighted bound.*: set"):
        cvae.HParams(importance_weighted=True)
    with pytest.raises(ValueError, match="set analytic_kl=False. Received: importance_weighted=T"):
        ConditionalGaussian().model(importance_weighted=True)
    with pytest.raises(ValueError, match="gaussian or iaf. Received: --posterior=gaussian --pri"):
        cvae.HParams(prior="maf", analytic_kl=False)
    exact = ConditionalGaussian()
    with pytest.raises(ValueError, match="alpha must be from 0 to 1. Received: -1"):
        exact.model(alpha=-1.0)
    with pytest.raises(ValueError, match="needs x beside z"):
        exact.model().decode(tf.zeros([1, LATENTS]))
    networks = cvae.networks(SHAPE, cvae.HParams(latent_dims=(2,), hidden_units=(4,)), 4)
    between = [mlp((2,), (4,), (4,)), networks["decoder"]]
    with pytest.raises(ValueError, match="a CVAE has one encoder. Received: 2"):
        cvae.CVAE(**{**networks, "encoder": [networks["encoder"], between[0]], "decoder": between})
    networks["prior"] = cvae.ConditionalPrior(mlp(SHAPE, (4,), (6,)))
    with pytest.raises(ValueError, match=r"must be over \[2, 2\] latents. Received: \[2, 3\]"):
        cvae.CVAE(**networks)
