"""Bounds of M1 and M2 with k samples, importance weights, free bits and KL weights."""

import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.linear_gaussian import LATENTS
from tests.models.vae.test_semi_supervised import (
    CLASSES,
    SEED,
    Exact,
    flags,
    one_batch,
    ready,
    train,
)
from tfgen import distributions, stateless
from tfgen.layers.labelled_mlp import LabelledMLP
from tfgen.metrics import latents
from tfgen.models.vae import iwae, semi_supervised
from tfgen.networks.mlp import mlp

DRAWS = 3
NEW = {"k", "importance_weighted", "free_bits", "kl_weight", "kl_warmup_steps"}


def binary() -> np.ndarray:
    return np.float32(one_batch()["image"].numpy() > 0.5)


def terms_by_hand(model, x: np.ndarray, label: int, noise: np.ndarray) -> tuple:
    """log p(x|y,z), log q - log p of one draw of one class for all images, and the closed KL."""
    one_hot = np.tile(np.eye(CLASSES, dtype=np.float32)[label], (len(x), 1))
    mean, log_std = np.split(np.float64(model.encoder(x, one_hot)), 2, axis=-1)
    z = mean + np.exp(log_std) * noise
    logits = np.float64(model.decoder(np.float32(z), one_hot))
    pixels = x * -np.logaddexp(0, -logits) + (1 - x) * -np.logaddexp(0, logits)
    log_q = scipy.stats.norm(mean, np.exp(log_std)).logpdf(z).sum(-1)
    closed = 0.5 * (mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std).sum(-1)
    return pixels.sum((1, 2, 3)), log_q - scipy.stats.norm.logpdf(z).sum(-1), closed


def bound_by_hand(model, x: np.ndarray, label: int, noise: np.ndarray, weight: float) -> np.ndarray:
    """-L of one class with the model's settings; noise [k, B, d]."""
    likelihood, sampled, closed = (
        np.stack(terms)
        for terms in zip(*(terms_by_hand(model, x, label, n) for n in noise), strict=True)
    )
    if model.importance_weighted:
        log_w = likelihood - weight * sampled
        bound = scipy.special.logsumexp(log_w, axis=0) - math.log(len(noise))
    else:
        bound = likelihood.mean(0) - weight * closed[0]
    return bound - math.log(CLASSES)


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize(("k", "weighted"), [(DRAWS, True), (DRAWS, False), (1, True), (1, False)])
def test_bounds_by_hand_and_by_enumeration(k: int, weighted: bool, weight: float) -> None:
    model, x = ready(k=k, importance_weighted=weighted), binary()
    label = one_batch()["label"].numpy()
    noise = stateless.normal([k, 12, 3], SEED).numpy()
    of_classes = [bound_by_hand(model, x, c, noise, weight) for c in range(CLASSES)]
    found = model.labelled_bound(x, tf.one_hot(label, CLASSES), SEED, weight)
    np.testing.assert_allclose(found, np.choose(label, of_classes), rtol=1e-5)

    noise = stateless.normal([k, CLASSES, 12, 3], SEED).numpy()
    q = scipy.special.softmax(np.float64(model.classifier(x)), axis=1)
    expected = -(q * np.log(q)).sum(1)
    for c in range(CLASSES):
        expected += q[:, c] * bound_by_hand(model, x, c, noise[:, c], weight)
    found = model.unlabelled_bound(x, SEED, kl_weight=weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_importance_weighted_bounds_are_exact_by_exact_posteriors() -> None:
    """Each draw has the weight p(x, y), and U, summed over q(y|x) = p(y|x), is log p(x)."""
    exact = Exact()
    images, model = exact.images(20), exact.model
    joint = exact.log_joint(images)
    for k in (1, DRAWS):
        model.k, model.importance_weighted = k, True
        # float32 sums of some twenty terms, squares of distances over s^2 among them.
        found = model.unlabelled_bound(images, SEED)
        np.testing.assert_allclose(found, scipy.special.logsumexp(joint, axis=1), atol=2e-3)
        for label in range(CLASSES):
            of_label = tf.one_hot(tf.fill([20], label), CLASSES)
            found = model.labelled_bound(images, of_label, SEED)
            np.testing.assert_allclose(found, joint[:, label], atol=2e-3)


def test_more_samples_tighten_both_bounds() -> None:
    model, x = ready(importance_weighted=True), binary()
    found = []
    for k in (1, 5, 100):
        model.k = k
        of_u = np.mean([model.unlabelled_bound(x, SEED + i) for i in range(8)])
        labels = tf.one_hot(one_batch()["label"], CLASSES)
        of_l = np.mean([model.labelled_bound(x, labels, SEED + i) for i in range(8)])
        found.append((of_u, of_l))
    assert found == sorted(found)
    assert np.all(np.array(found[2]) > np.array(found[0]) + 0.05)


def loss_of(model) -> tuple[dict[str, float], dict[str, list[np.ndarray]]]:
    """Logs of a train step of M2, and how plain gradient descent moves its networks."""
    model.compile(**{player: keras.optimizers.SGD(1.0) for player in model.players()})
    parts = {
        "style": [*model.encoder.weights, *model.decoder.weights],
        "classifier": model.classifier.weights,
    }
    before = {name: [v.numpy() for v in weights] for name, weights in parts.items()}
    logs = model.train_step(model.as_batch(one_batch()))
    moved = {
        name: [v.numpy() - b for v, b in zip(weights, before[name], strict=True)]
        for name, weights in parts.items()
    }
    return {name: float(value) for name, value in logs.items()}, moved


PLAIN = {"binarize": "none", "weight_precision": 0.0}


@pytest.mark.parametrize("weighted", [True, False])
def test_loss_by_hand(weighted: bool) -> None:
    settings = {"k": DRAWS, "importance_weighted": weighted, "kl_weight": 0.4}
    model = ready(alpha=0.7, **PLAIN, **settings)
    images, labels = model.labelled.draw(12, model.noise_seed(0))
    (_, of_labelled), (_, of_others) = (
        tf.unstack(stateless.split(model.noise_seed(salt), 2)) for salt in (1, 2)
    )
    one_hot = tf.one_hot(labels, CLASSES)
    labelled = np.mean(model.labelled_bound(images, one_hot, of_labelled, 0.4))
    x = one_batch()["image"]
    unlabelled = np.mean(model.unlabelled_bound(x, of_others, kl_weight=0.4))
    log_q = model.class_log_probs(images)
    supervised = -np.mean(np.sum(one_hot * log_q, axis=1))
    style = model.style(images, one_hot)
    if weighted:
        z = style.sample(DRAWS, seed=of_labelled)
        prior = distributions.StandardGaussian(3)
        kl = np.mean(style.log_prob(z) - prior.log_prob(z))
    else:
        mean, spread = style.mean().numpy(), style.stddev().numpy()
        kl = np.mean(0.5 * np.sum(mean**2 + spread**2 - 1 - 2 * np.log(spread), axis=-1))
    share = model.labelled_share
    logs, _ = loss_of(model)
    expected = -share * labelled - (1 - share) * unlabelled + 0.7 * supervised
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["labelled_bound"] == pytest.approx(labelled, rel=1e-5)
    assert logs["unlabelled_bound"] == pytest.approx(unlabelled, rel=1e-5)
    assert logs["kl_z"] == pytest.approx(kl, rel=1e-4)


def same(one: dict, other: dict, part: str) -> bool:
    pairs = zip(one[part], other[part], strict=True)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("stack", ["m2", "supervised"])
def test_free_bits_stop_the_gradient_of_the_kl(stack: str, weighted: bool) -> None:
    settings = {"stack": stack, "k": 2, "importance_weighted": weighted, **PLAIN}
    logs, everything = loss_of(ready(**settings))
    free_logs, free = loss_of(ready(**settings, free_bits=100.0))
    assert free_logs == logs  # the values stay
    assert same(free, everything, "classifier")  # which weighs the classes by their whole bounds
    if weighted:  # the draws' weights, in which the KL is, stay too
        assert not same(free, everything, "style")
    else:
        without = loss_of(ready(**settings, kl_weight=0.0))[1]
        assert not same(everything, without, "style")
        assert same(free, without, "style")
    few = loss_of(ready(**settings, free_bits=1e-3))[1]
    assert same(few, everything, "style")


def test_free_bits_of_u_count_classes_by_their_probability() -> None:
    """The first class alone is probable and its KL large; that of the others is near 0."""
    model = ready(**PLAIN)
    encoder, decoder = model.encoder, model.decoder
    model.classifier.layers[-1].set_weights([np.zeros((8, CLASSES)), np.array([9.0, 0.0, 0.0])])
    for weight in (*encoder.weights, *decoder.weights):  # so that the KL alone has a gradient
        weight.assign(tf.zeros_like(weight))
    # Of the hidden units, softplus(4) for the first class and about 0 for others, a mean is made.
    encoder.of_label.kernel.assign(np.outer([4.0, -20.0, -20.0], np.ones(8)))
    last = encoder.dense[-1].kernel
    last.assign(np.concatenate([np.full((8, 1), 0.1), np.zeros((8, 5))], axis=1))
    kl = 0.5 * (0.8 * np.log1p(np.exp(4.0))) ** 2
    for factor, moving in ((0.9, True), (1.1, False)):
        model.free_bits = factor * kl
        with tf.GradientTape() as tape:
            bound = tf.reduce_mean(model.unlabelled_bound(binary(), SEED))
        moved = np.abs(tape.gradient(bound, encoder.dense[-1].bias)).max()
        assert (moved > 0.1) == moving


@pytest.mark.parametrize("weighted", [True, False])
def test_the_kl_weight_rises_from_0_in_each_stage(weighted: bool) -> None:
    settings = {"stack": "m1+m2", "k": 2, "importance_weighted": weighted, **PLAIN}
    rising, plain = ready(**settings, kl_weight=0.5, kl_warmup_steps=4), ready(**settings)
    for model in (rising, plain):
        assert model.stage_starts() == (4,)
        model.compile(m1=keras.optimizers.SGD(0.0), m2=keras.optimizers.SGD(0.0))
    for stage, start in ((0, 0), (1, 4)):
        for step, weight in ((0, 0.0), (2, 0.25), (4, 0.5), (9, 0.5)):
            found = []
            for model, own in ((rising, None), (plain, weight), (plain, 1.0)):
                if own is not None:
                    plain.kl_weight = plain.m1.kl_weight = own
                model.step.assign(start + step)
                model.stage = stage
                logs = model.train_step(model.as_batch(one_batch()))
                found.append({name: float(value) for name, value in logs.items()})
            assert found[0] != found[2]
            assert found[0] == found[1]
    alone = ready(stack="m2", kl_warmup_steps=4)
    assert float(alone._kl_weight()) == 0.0


@pytest.mark.parametrize("weighted", [True, False])
def test_m1_has_the_settings(weighted: bool) -> None:
    settings = {"k": DRAWS, "importance_weighted": weighted, "free_bits": 0.3, "kl_weight": 0.5}
    model = ready(stack="m1+m2", kl_warmup_steps=7, **settings, **PLAIN)
    m1 = model.m1
    assert (m1.k, m1.free_bits, m1.kl_weight, m1.kl_warmup_steps) == (DRAWS, 0.3, 0.5, 7)
    of_z1 = tf.unstack(stateless.split(model.noise_seed(3), 2))[1]
    image = one_batch()["image"]
    terms = m1.log_terms(image, m1.infer(image, DRAWS, of_z1))
    ratio = terms["prior"] - terms["posterior"]
    if not weighted:
        mean, spread = (
            f().numpy() for f in (m1.posterior(0, image).mean, m1.posterior(0, image).stddev)
        )
        ratio = -0.5 * np.sum(mean**2 + spread**2 - 1 - 2 * np.log(spread), axis=-1)
    log_w = np.float64(terms["likelihood"] + 0.5 * ratio)
    expected = scipy.special.logsumexp(log_w, axis=0) - np.log(DRAWS) if weighted else log_w.mean(0)
    model.step.assign(7)
    model_at_0 = ready(stack="m1+m2", **settings, **PLAIN)  # the same noise, the whole weight
    logs = model_at_0.train_step(model_at_0.as_batch(one_batch()))
    assert float(logs["m1_bound"]) == pytest.approx(expected.mean(), rel=1e-5)


# Evaluations.


def test_factors_are_given_the_most_probable_class() -> None:
    exact = Exact()
    images = exact.images(30)
    ((q, p),) = exact.model.factors(images, SEED)
    label = np.argmax(exact.log_joint(images), axis=1)
    assert len(set(label)) == CLASSES
    of_class = exact.model.style(images, tf.one_hot(label, CLASSES))
    np.testing.assert_array_equal(q.mean(), of_class.mean())
    np.testing.assert_array_equal(p.mean(), np.zeros(LATENTS))
    (kl,) = latents.mean_kl(exact.model, [{"image": images}], 0).values()
    mean, variance = q.mean().numpy(), exact.one.variance
    expected = 0.5 * (mean**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(kl, expected.mean(0), rtol=1e-4)
    (means,) = exact.model.posterior_means(images, SEED)
    np.testing.assert_array_equal(means, mean)


def test_factors_upon_m1_are_of_both_layers() -> None:
    model, image = ready(stack="m1+m2"), one_batch()["image"]
    model.z1_square.assign([1.0, 1.0, 0.001, 1.0])  # the third dimension is dead
    (q1, p1), (q2, p2) = model.factors(image, SEED)
    assert [d.event_shape[0] for d in (q1, p1, q2, p2)] == [4, 4, 3, 3]
    of_pixels, of_z1, of_z = tf.unstack(stateless.split(SEED, 3))
    pixels = model.draw_pixels(image, of_pixels)
    assert set(np.unique(pixels)) == {0.0, 1.0}
    np.testing.assert_array_equal(q1.mean(), model.m1.encode(pixels))
    label = tf.one_hot(tf.argmax(model.classify(pixels), axis=1), CLASSES)
    z1 = model.m1.infer(pixels, 1, of_z1).latents[0][0]
    style = model.style(z1, label)
    np.testing.assert_array_equal(q2.mean(), style.mean())
    above = model.observation(style.sample(seed=of_z), label)
    np.testing.assert_array_equal(p1.mean(), above.mean())
    np.testing.assert_array_equal(
        np.stack([p1.mean()[:, 2], p1.stddev()[:, 2] - 1]), np.zeros([2, 12])
    )
    found = latents.mean_kl(model, [{"image": image}], 0)
    assert {layer: len(kl) for layer, kl in found.items()} == {1: 4, 2: 3}
    for ours, q in zip(model.posterior_means(image, SEED), (q1, q2), strict=True):
        np.testing.assert_array_equal(ours, q.mean())


# As a whole.


@pytest.mark.parametrize("stack", ["m1", "m2", "m1+m2"])
def test_it_trains_with_importance_weights(stack: str) -> None:
    model = ready(stack=stack, k=2, importance_weighted=True, free_bits=0.5, kl_warmup_steps=2)
    assert isinstance(model.m1, iwae.IWAE) == ("m1" in stack)
    rows = train(model, 30)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["labelled_bound"] > rows[6]["labelled_bound"]
    assert model.diagnose({**rows[-1], "kl_z": 0.01}) == {
        "posterior collapse": "kl_z 0.01 nats, below 0.1"
    }


def test_stored_configs_without_the_settings_are_the_model_of_before() -> None:
    model = ready(stack="m1+m2")
    config = model.get_config()
    assert config.keys() >= NEW
    old = type(model).from_config({k: v for k, v in config.items() if k not in NEW})
    assert old.get_config() == config
    found = [getattr(old, name) for name in sorted(NEW)]
    assert found == [0.0, False, 1, 0, 1.0]
    given = {"k": 4, "importance_weighted": True, "free_bits": 0.2, "kl_weight": 0.5}
    config = ready(**given, kl_warmup_steps=3).get_config()
    assert {key: config[key] for key in NEW} == {**given, "kl_warmup_steps": 3}


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"k": 0}, "^--k must be more than 0. Received: --k=0$"),
        ({"free_bits": -0.1}, "^--free_bits must be 0 or more. Received: --free_bits=-0.1$"),
        ({"kl_weight": -1.0}, "^--kl_weight must be 0 or more. Received: --kl_weight=-1.0$"),
        ({"kl_warmup_steps": -1}, "^--kl_warmup_steps must be 0 or more. Received: .*=-1$"),
    ],
)
def test_wrong_settings_are_named(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        flags(**wrong)
    parts = (LabelledMLP((9,), 3, (4,), (4,)), LabelledMLP((2,), 3, (4,), (9,)))
    with pytest.raises(ValueError, match=match.replace("--", "")):
        semi_supervised.SemiSupervisedVAE(mlp((9,), (4,), (3,)), *parts, num_examples=100, **wrong)
