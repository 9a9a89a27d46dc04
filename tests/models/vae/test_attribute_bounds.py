"""Bounds of Attribute2Image: k samples, importance weights, free bits; NLL against closed forms."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.models.vae.test_attribute import (
    ATTRIBUTES,
    SHAPE,
    batch,
    flags,
    gaussian,
    log_prob,
    ready,
)
from tfgen import stateless
from tfgen.metrics import latents, likelihood
from tfgen.metrics.measure import Settings
from tfgen.models.vae import attribute

PIXELS, SIGMA = 16, 0.5
SEED = tf.constant([5, 6])
NEW = {"k", "importance_weighted", "free_bits"}  # arguments that stored models do not have


# NLL in closed form: x = a z_F + b z_B + C y + c + noise.


class LinearLayers(attribute.DisCVAE):
    """Both layers are their logits, and their sum is the image."""

    def paint(self, latents, attributes, training=False):
        painted = super().paint(latents, attributes, training)
        of_foreground, of_background = latents
        given = [of_foreground, self.scaled(attributes)]
        front = self.decoder(given, training=training)[..., :-1]
        return {**painted, "image": front + self.background_decoder(of_background)}


class Linear(attribute.AttributeCVAE):
    def paint(self, latents, attributes, training=False):
        return {"image": self.decoder([*latents, self.scaled(attributes)], training=training)}


def affine(shapes: list, kernel: np.ndarray, bias: np.ndarray, output: tuple) -> keras.Model:
    """One dense layer of all inputs, side by side."""
    inputs = [keras.Input(shape) for shape in shapes]
    flat = [keras.layers.Flatten()(x) for x in inputs]
    joined = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    dense = keras.layers.Dense(kernel.shape[1])
    network = keras.Model(inputs, keras.layers.Reshape(output)(dense(joined)))
    dense.set_weights([kernel, bias])
    return network


class Exact:
    """The linear Gaussian, its p(x|y) and its posteriors, whose sigmas are times `widen`."""

    def __init__(self, layered: bool, widen: float = 1.0):
        rng = np.random.default_rng(0)
        self.columns = rng.normal(size=(PIXELS, 2 if layered else 1))  # not orthogonal
        self.of_y = rng.normal(size=(PIXELS, ATTRIBUTES))  # of attributes scaled to [-1, 1]
        self.offset = rng.normal(size=PIXELS)
        a, s2 = self.columns[:, 0], SIGMA**2
        precision = np.eye(self.columns.shape[1]) + self.columns.T @ self.columns / s2
        variance = np.linalg.inv(precision)
        of_x = variance @ self.columns.T / s2  # the means, but for what y and the offset take off
        given = [SHAPE, (ATTRIBUTES,)]
        front = np.concatenate([a[None], self.of_y.T])
        encoder = self._encoder(given, [of_x[0]], variance[0, 0], widen)
        if not layered:
            decoder = affine([(1,), (ATTRIBUTES,)], front, self.offset, SHAPE)
            self.model = Linear(encoder, decoder, sigma=SIGMA)
        else:
            b = self.columns[:, 1]
            with_gate = np.stack([front, np.ones_like(front)], -1).reshape(len(front), -1)
            bias = np.stack([self.offset, np.ones(PIXELS)], -1).reshape(-1)
            of_rest = b / s2 / precision[1, 1]  # z_B given z_F
            self.model = LinearLayers(
                encoder,
                affine([(1,), (ATTRIBUTES,)], with_gate, bias, (4, 4, 2)),
                self._encoder([*given, (1,)], [of_rest, a], 1 / precision[1, 1], widen),
                affine([(1,)], b[None], np.zeros(PIXELS), SHAPE),
                sigma=SIGMA,
            )
        self.model.compile()
        self.model.adapt(tf.data.Dataset.from_tensor_slices(batch(50, 1)).batch(20))

    def _encoder(self, shapes: list, of: list, variance: float, widen: float) -> keras.Model:
        """A mean of(x - C y - c - a z_F), and a constant log sigma."""
        weights, *front = of
        taken = [np.eye(PIXELS), -self.of_y.T, *(-a[None] for a in front)]
        mean = np.concatenate(taken) @ weights
        kernel = np.stack([mean, np.zeros_like(mean)], 1)
        bias = np.array([-self.offset @ weights, 0.5 * np.log(variance) + np.log(widen)])
        return affine(shapes, kernel, bias, (2,))

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """Draws of x given attributes; no pixel is hidden from q(z_F|x_F,y)."""
        rng, found = np.random.default_rng(2), batch(count)
        z = rng.normal(size=(count, self.columns.shape[1]))
        mean = z @ self.columns.T + self._mean(found["attributes"])
        image = mean + SIGMA * rng.normal(size=mean.shape)
        image = np.float32(image.reshape(count, *SHAPE))
        return {**found, "image": image, "mask": np.ones((count, *SHAPE), np.float32)}

    def log_prob(self, rows: dict) -> np.ndarray:
        covariance = self.columns @ self.columns.T + SIGMA**2 * np.eye(PIXELS)
        centred = rows["image"].reshape(-1, PIXELS) - self._mean(rows["attributes"])
        return scipy.stats.multivariate_normal(cov=covariance).logpdf(centred)

    def _mean(self, attributes) -> np.ndarray:
        return np.float64(self.model.scaled(attributes)) @ self.of_y.T + self.offset


class Rows:
    """Examples as a data set."""

    def __init__(self, rows: dict):
        self.rows = rows
        count = len(rows["image"])
        self.spec = type("Spec", (), {"test_size": count, "train_size": count})

    def batches(self, split: str, batch_size: int, seed: int = 0, limit: int | None = None):
        found = {key: value[:limit] for key, value in self.rows.items()}
        return tf.data.Dataset.from_tensor_slices(found).batch(batch_size)


@pytest.mark.parametrize("layered", [True, False])
def test_every_draw_has_the_exact_weight_by_exact_posteriors(layered: bool) -> None:
    exact = Exact(layered)
    rows = exact.rows(20)
    terms = exact.model.importance_terms(exact.model.as_batch(rows), 4, SEED)
    expected = np.tile(exact.log_prob(rows), (4, 1))
    # float32 sums of squares over s^2, some tens each.
    np.testing.assert_allclose(terms["log_weight"], expected, atol=2e-3)
    np.testing.assert_allclose(terms["likelihood"] - terms["kl"], terms["log_weight"], atol=1e-5)
    assert np.std(terms["kl"], axis=0).mean() > 0.1  # the draws do differ


@pytest.mark.parametrize("layered", [True, False])
def test_nll_agrees_with_the_closed_form(layered: bool) -> None:
    exact = Exact(layered, widen=1.4)
    rows = exact.rows(40)
    found = likelihood.estimate(exact.model, Rows(rows).batches("test", 16), k=1000, seed=3)
    off = found.log_prob - exact.log_prob(rows)
    assert abs(off.mean()) < 3 * np.sqrt((found.error**2).sum()) / 40
    assert (abs(off) > 3 * found.error).sum() <= 2
    assert found.error.max() < 0.1
    assert found.elbo.mean() < exact.log_prob(rows).mean() - 0.05
    measured = likelihood.nll(exact.model, Rows(rows), Settings(k=1000))["nll"].value
    assert measured == pytest.approx(-found.log_prob.mean(), abs=0.02)  # other batches, other noise


@pytest.mark.parametrize("layered", [True, False])
def test_nll_is_that_of_the_integral(layered: bool) -> None:
    """The networks, gate and sigmoids of the paper; the mask, told to q alone, does no harm."""
    model = ready(layered=layered, sigma=1.0)
    for network in [model.encoder, *([model.background_encoder] if layered else [])]:
        last = network.layers[-1]  # wide posteriors, so that no few weights have it all
        last.kernel.assign(0.1 * last.kernel)
        last.bias.assign(np.repeat([0.0, 0.3], last.units // 2))
    for seed in (2, 3):
        rows = batch(1, seed=seed)
        found = likelihood.estimate(model, [rows], k=4000, seed=3)
        assert found.error[0] < 0.05
        assert abs(found.log_prob[0] - log_prob(model, rows)) < 4 * found.error[0]


def test_an_estimate_paints_so_many_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = ready(), []
    terms = model.importance_terms
    model.importance_terms = lambda rows, k, seed: seen.append(k) or terms(rows, k, seed)
    monkeypatch.setattr(attribute, "_VALUES_AT_ONCE", 16 * 12)  # twelve images of 4x4
    likelihood.estimate(model, [batch(6)], k=5, seed=0)
    assert seen == [2, 1]  # in a loop, and the rest
    monkeypatch.undo()
    assert attribute.AttributeCVAE.rows_at_once.fget(_faces()) == 170  # of 64x64x3


def _faces() -> object:
    return type("Faces", (), {"image_shape": (64, 64, 3)})()


@pytest.mark.parametrize("layered", [True, False])
def test_kl_of_dimensions_and_active_units_of_each_group(layered: bool) -> None:
    exact = Exact(layered)
    data = Rows(exact.rows(2000))
    terms = exact.model.importance_terms(exact.model.as_batch(data.rows), 1, SEED)
    found = latents.kl_per_dimension(exact.model, data, Settings())
    groups = 1 + layered
    assert set(found) == {
        f"{name}_layer_{i}" for name in ("unit_kl", "collapsed") for i in range(1, groups + 1)
    }
    kl = terms["kl"].numpy()[0]
    total = sum(found[f"unit_kl_layer_{i}"].value for i in range(1, groups + 1))
    # Both are means over draws of z_F, hence twice the error.
    assert total == pytest.approx(kl.mean(), abs=4 * np.sqrt(2) * kl.std() / np.sqrt(2000))
    active = likelihood.active_units(exact.model, data, Settings())
    assert {name: m.value for name, m in active.items()} == {
        f"active_units_layer_{i}": 1 for i in range(1, groups + 1)
    }
    last = (exact.model.background_encoder if layered else exact.model.encoder).layers[-2]
    last.set_weights([np.zeros_like(w) for w in last.get_weights()])  # q is the prior
    still = likelihood.active_units(exact.model, data, Settings())
    assert still[f"active_units_layer_{groups}"].value == 0
    collapsed = latents.kl_per_dimension(exact.model, data, Settings())
    assert collapsed[f"collapsed_layer_{groups}"].value == 1


def test_factors_and_means_of_the_background_are_given_a_draw() -> None:
    model, rows = ready(), batch()
    of_f, of_b = model.infer(rows, SEED)[1]
    (q_f, p_f), (q_b, p_b) = model.factors(model.evidence(rows), SEED)
    means = model.posterior_means(model.evidence(rows), SEED)
    for ours, theirs, mean in ((q_f, of_f, means[0]), (q_b, of_b, means[1])):
        np.testing.assert_array_equal(ours.mean(), theirs.mean())
        np.testing.assert_array_equal(mean, theirs.mean())
    np.testing.assert_array_equal(p_f.mean(), np.zeros(1))
    np.testing.assert_array_equal(p_b.stddev(), np.ones(1))
    other = model.posterior_means(model.evidence(rows), SEED + 1)
    np.testing.assert_array_equal(other[0], means[0])
    assert not np.allclose(other[1], means[1])


# The objective.


def draws_by_hand(model: attribute.DisCVAE, k: int, seed: tf.Tensor, rows: dict) -> dict:
    """Terms of k draws, [k, B] each, in float64 but for the networks."""
    x, y, m = (rows[key].numpy() for key in ("image", "attributes", "mask"))
    low, high = model.lowest.numpy(), model.highest.numpy()
    scaled, count = np.float32(2 * (y - low) / (high - low) - 1), len(x)
    noises = [
        stateless.normal([k, count, 1], key).numpy() for key in tf.unstack(stateless.split(seed, 2))
    ]
    found: dict[str, list] = {
        name: [] for name in ("likelihood", "foreground", "gate", "f", "b", "kl_f", "kl_b")
    }
    for noise_f, noise_b in zip(*noises, strict=True):
        logs, zs = [], []
        for network, inputs, noise in (
            (model.encoder, [m * x, scaled], noise_f),
            (model.background_encoder, [x, scaled], noise_b),
        ):
            outputs = np.float64(network([*inputs, *zs], training=False))
            mean, log_std = np.split(outputs, 2, axis=-1)
            z = mean + np.exp(log_std) * noise
            log_q = scipy.stats.norm(mean, np.exp(log_std)).logpdf(z).sum(1)
            kl = (0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std).sum(1)
            logs.append((log_q - scipy.stats.norm.logpdf(z).sum(1), kl))
            zs.append(np.float32(z))
        logits = np.float64(model.decoder([zs[0], scaled], training=False))
        x_f, g = (scipy.special.expit(part) for part in (logits[..., :1], logits[..., 1:]))
        x_b = scipy.special.expit(np.float64(model.background_decoder(zs[1], training=False)))
        found["likelihood"].append(gaussian(x, x_f + g * x_b, model.sigma))
        found["foreground"].append(gaussian(m * x, x_f, model.sigma))
        found["gate"].append(((1 - m) * np.log(g) + m * np.log(1 - g)).sum((1, 2, 3)))
        for name, (sampled, kl) in zip("fb", logs, strict=True):
            found[name].append(sampled)
            found[f"kl_{name}"].append(kl)
    return {name: np.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("k", [1, 4])
def test_importance_weighted_objective_by_hand(k: int, weight: float) -> None:
    model, rows = (
        ready(sigma=0.3, gate_weight=0.7, k=k, importance_weighted=True, kl_weight=weight),
        batch(),
    )
    terms = draws_by_hand(model, k, model.noise_seed(), rows)
    seen = terms["likelihood"] + terms["foreground"] + 0.7 * terms["gate"]
    expected = {}
    for name, kl_weight in (("test", 1.0), ("train", weight)):
        log_w = seen - kl_weight * (terms["f"] + terms["b"])
        expected[name] = -(scipy.special.logsumexp(log_w, axis=0) - np.log(k)).mean()
    logs = model.test_step(rows)
    assert float(logs["loss"]) == pytest.approx(expected["test"], rel=1e-5)
    loss = model._objective(rows, weight)["loss"]  # of a train step, but for the batch statistics
    assert float(loss) == pytest.approx(expected["train"], rel=1e-5)
    kl = (terms["f"] + terms["b"]).mean()
    assert float(logs["kl"]) == pytest.approx(kl, rel=1e-4, abs=1e-4)
    assert float(logs["kl_background"]) == pytest.approx(terms["b"].mean(), rel=1e-4, abs=1e-4)
    assert float(logs["elbo"]) == pytest.approx(terms["likelihood"].mean() - kl, rel=1e-5)
    if k > 1:
        assert expected["test"] < -(seen - terms["f"] - terms["b"]).mean() - 0.1  # not the mean


def test_k_samples_are_averaged_with_the_closed_kl() -> None:
    model, rows = ready(sigma=0.3, gate_weight=0.7, k=3), batch()
    terms = draws_by_hand(model, 3, model.noise_seed(), rows)
    seen = terms["likelihood"] + terms["foreground"] + 0.7 * terms["gate"]
    kl = terms["kl_f"].mean() + terms["kl_b"].mean()
    logs = model.test_step(rows)
    assert float(logs["loss"]) == pytest.approx(kl - seen.mean(), rel=1e-5)
    assert float(logs["kl"]) == pytest.approx(kl, rel=1e-5)


@pytest.mark.parametrize("layered", [True, False])
def test_more_samples_tighten_the_bound(layered: bool) -> None:
    exact = Exact(layered, widen=2.0)
    rows = exact.model.as_batch(exact.rows(300))
    losses = []
    for k in (1, 5, 50):
        exact.model.k, exact.model.importance_weighted = k, True
        if layered:  # of the image alone, so that it bounds log p(x|y)
            exact.model.reconstruction = lambda terms: terms["likelihood"]
        losses.append(float(exact.model.test_step(rows)["loss"]))
    assert losses == sorted(losses, reverse=True)
    truth = -exact.log_prob(exact.rows(300)).mean()
    assert truth - 0.05 < losses[-1] < truth + 0.2
    assert losses[0] > truth + 0.5


def gradients(model: attribute.AttributeCVAE, kl_weight: float = 1.0) -> dict[str, np.ndarray]:
    with tf.GradientTape() as tape:
        loss = model._objective(batch(), kl_weight)["loss"]
    found = tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")
    return {v.path: g.numpy() for v, g in zip(model.trainable_variables, found, strict=True)}


def same(one: dict, other: dict) -> bool:
    return all(np.allclose(one[p], other[p], rtol=1e-4, atol=1e-5) for p in one)


@pytest.mark.parametrize("weighted", [False, True])
def test_free_bits_stop_the_gradient_of_a_group(weighted: bool) -> None:
    arguments = {"importance_weighted": weighted, "k": 2}
    model = ready(**arguments)
    logs = model.test_step(batch())
    kl_b = float(logs["kl_background"])
    kl_f = float(logs["kl"]) - kl_b
    assert abs(kl_f - kl_b) > 0.05
    everything, nothing = gradients(model), gradients(model, 0.0)
    assert not same(everything, nothing)

    def loss_at(free_bits: float) -> float:
        model.free_bits = free_bits
        return float(model.test_step(batch())["loss"])

    assert loss_at(100.0) == loss_at(0.0)  # the value stays
    model.free_bits = 0.9 * min(kl_f, kl_b)
    assert same(gradients(model), everything)
    model.free_bits = 1.1 * max(kl_f, kl_b)
    if not weighted:
        assert same(gradients(model), nothing)
    # Between the two only the smaller is free: then the encoder of the other has all its gradient.
    model.free_bits = 0.5 * (kl_f + kl_b)
    between = gradients(model)
    assert not same(between, everything)
    assert not same(between, nothing)
    (bias,) = (p for p in everything if p == model.background_encoder.layers[-1].bias.path)
    assert np.allclose(between[bias], everything[bias]) == (kl_b > kl_f)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_kl_weight_rises_from_0(weighted: bool) -> None:
    model = ready(
        kl_warmup_steps=10, kl_weight=0.5, importance_weighted=weighted, learning_rate=1e-9
    )
    rows = model.as_batch(batch())
    for step, weight in ((0, 0.0), (5, 0.25), (10, 0.5), (20, 0.5)):
        model.step.assign(step)
        logs = {name: float(value) for name, value in model.train_step(rows).items()}
        seen = logs["likelihood"] + logs["foreground"] + model.gate_weight * logs["gate"]
        assert logs["loss"] == pytest.approx(weight * logs["kl"] - seen, rel=1e-5)


def test_stored_configs_without_the_settings_are_the_model_of_before() -> None:
    model = ready()
    config = model.get_config()
    assert config.keys() >= NEW
    old = attribute.DisCVAE.from_config({k: v for k, v in config.items() if k not in NEW})
    assert old.get_config() == config
    assert (old.k, old.importance_weighted, old.free_bits) == (1, False, 0.0)
    given = {"k": 4, "importance_weighted": True, "free_bits": 0.2}
    other = ready(**given).get_config()
    assert {key: other[key] for key in NEW} == given


@pytest.mark.parametrize("layered", [True, False])
def test_it_trains_with_importance_weights(layered: bool) -> None:
    model = ready(layered=layered, k=3, importance_weighted=True, free_bits=0.1)
    data = tf.data.Dataset.from_tensors({key: batch()[key] for key in model.needs}).repeat()
    rows = model.run_steps(iter(data), 30)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"k": 0}, "^--k must be more than 0. Received: --k=0$"),
        ({"free_bits": -0.1}, "^--free_bits must be 0 or more. Received: --free_bits=-0.1$"),
    ],
)
def test_wrong_flags_are_named(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        flags(**wrong)
    networks = ready(layered=False)
    with pytest.raises(ValueError, match=match.replace("--", "")):
        attribute.AttributeCVAE(networks.encoder, networks.decoder, **wrong)
