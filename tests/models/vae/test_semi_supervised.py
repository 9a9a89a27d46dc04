"""M1, M2 and M1+M2: bounds by hand and by enumeration, who learns from what, stages, pictures."""

import functools
import math

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tests.linear_gaussian import LATENTS, PIXELS, SIDE, SIGMA, LinearGaussian
from tests.training import runs
from tfgen import stateless
from tfgen.data import DataError, DataSpec
from tfgen.layers.labelled_mlp import LabelledMLP
from tfgen.losses import bounds
from tfgen.metrics import likelihood
from tfgen.models.vae import semi_supervised, vae
from tfgen.networks.mlp import mlp
from tfgen.training import strategies

CLASSES, PER_CLASS, EXAMPLES = 3, 2, 24
SEED = tf.constant([5, 6])


def flags(**others) -> semi_supervised.HParams:
    small = {"hidden_units": (8,), "latent_dim": 3, "m1_latent_dim": 4, "m1_hidden_units": (8, 8)}
    rest = {"labels_per_class": PER_CLASS, "batch_size": 12, "steps": 8, "m1_part": 0.5}
    return semi_supervised.HParams(**{**small, **rest, "learning_rate": 1e-2, **others})


def spec(classes: int | None = CLASSES, size: int = EXAMPLES) -> DataSpec:
    shapes = {"image": (4, 4, 1), "label": ()}
    dtypes = {"image": "float32", "label": "int32"}
    return DataSpec("x", shapes, dtypes, "unit", classes, size, 9, 9)


def examples(count: int = EXAMPLES) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    image = random.uniform(0, 1, (count, 4, 4, 1)).astype(np.float32)
    return {"image": image, "label": np.int32(random.permutation(count) % CLASSES)}


def one_batch(size: int = 12) -> dict[str, tf.Tensor]:
    return {k: tf.constant(v[:size]) for k, v in examples().items()}


def ready(**others) -> semi_supervised.SemiSupervisedVAE:
    """A model whose weights, biases too, are far from their start."""
    model = semi_supervised.build(flags(**others), spec())
    model.adapt(tf.data.Dataset.from_tensor_slices(examples()).batch(7))
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.3 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


def train(model: semi_supervised.SemiSupervisedVAE, steps: int, batch=None) -> list[dict]:
    return model.run_steps(iter(tf.data.Dataset.from_tensors(batch or one_batch()).repeat()), steps)


# The bounds.


def by_hand(model, x: np.ndarray, label: int, noise: np.ndarray) -> np.ndarray:
    """-L(x, y) of one class for all images, of Bernoulli pixels, float64 [B]."""
    one_hot = np.tile(np.eye(CLASSES, dtype=np.float32)[label], (len(x), 1))
    mean, log_std = np.split(np.float64(model.encoder(x, one_hot)), 2, axis=-1)
    z = mean + np.exp(log_std) * noise
    logits = np.float64(model.decoder(np.float32(z), one_hot))
    pixels = x * -np.logaddexp(0, -logits) + (1 - x) * -np.logaddexp(0, logits)
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) - 1 - 2 * log_std).sum(-1)
    return pixels.sum((1, 2, 3)) - math.log(CLASSES) - kl


def test_labelled_bound_by_hand() -> None:
    model, batch = ready(), one_batch()
    x = np.float32(batch["image"].numpy() > 0.5)
    noise = stateless.normal([12, 3], SEED).numpy()
    found = model.labelled_bound(x, tf.one_hot(batch["label"], CLASSES), SEED)
    of_classes = [by_hand(model, x, k, noise) for k in range(CLASSES)]
    expected = np.choose(batch["label"].numpy(), of_classes)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_unlabelled_bound_by_enumeration() -> None:
    model = ready()
    x = np.float32(one_batch()["image"].numpy() > 0.5)
    noise = stateless.normal([CLASSES, 12, 3], SEED).numpy()
    logits = np.float64(model.classifier(x))
    q = scipy.special.softmax(logits, axis=1)
    expected = -(q * np.log(q)).sum(1)
    for k in range(CLASSES):
        expected += q[:, k] * by_hand(model, x, k, noise[k])
    np.testing.assert_allclose(model.unlabelled_bound(x, SEED), expected, rtol=1e-5)


class Affine(keras.layers.Layer):
    """x A + y C + c, without weights of its own."""

    def __init__(self, of_x, of_label, shape):
        super().__init__()
        self.of_x, self.of_label, self.shape_out = np.float32(of_x), np.float32(of_label), shape
        self.built = True

    def call(self, inputs, label):
        events = inputs if inputs.shape[-1] == len(self.of_x) else None
        if events is None:
            events = tf.reshape(inputs, [-1, len(self.of_x)])
        outputs = events @ self.of_x + label @ self.of_label
        return tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], self.shape_out], 0))


class Exact:
    """p(x|y,z) = N(W z + b_y, s^2): q(z|x,y), q(y|x) and p(x) in closed form."""

    def __init__(self):
        self.one = LinearGaussian()
        w = self.one.weights
        self.offsets = np.random.default_rng(3).normal(size=(CLASSES, PIXELS))
        self.covariance = w @ w.T + SIGMA**2 * np.eye(PIXELS)
        inverse = np.linalg.inv(self.covariance)
        layers = [keras.Input((SIDE, SIDE, 1)), keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        classifier = keras.Sequential(layers)
        bias = -0.5 * np.einsum("ki,ij,kj->k", self.offsets, inverse, self.offsets)
        classifier.layers[-1].set_weights([inverse @ self.offsets.T, bias])
        of_x = np.concatenate([w * self.one.variance / SIGMA**2, np.zeros((PIXELS, LATENTS))], 1)
        of_label = -self.offsets @ of_x
        of_label[:, LATENTS:] = 0.5 * np.log(self.one.variance)
        means = np.stack([w.T, np.zeros_like(w.T)], -1).reshape(LATENTS, -1)
        parameters = np.stack([self.offsets, np.full_like(self.offsets, np.log(SIGMA))], -1)
        self.model = semi_supervised.SemiSupervisedVAE(
            classifier,
            Affine(of_x, of_label, [2 * LATENTS]),
            Affine(means, parameters.reshape(CLASSES, -1), [SIDE, SIDE, 2]),
            num_examples=100,
            likelihood="gaussian",
        )

    def images(self, count: int) -> np.ndarray:
        centred = self.one.images(count).reshape(count, PIXELS) - self.one.offset
        x = centred + self.offsets[np.arange(count) % CLASSES]
        return x.reshape(count, SIDE, SIDE, 1).astype(np.float32)

    def log_joint(self, images: np.ndarray) -> np.ndarray:
        """log p(x, y) of each class, [B, K]."""
        flat = images.reshape(len(images), PIXELS)
        normal = scipy.stats.multivariate_normal
        found = [normal(b, self.covariance).logpdf(flat) for b in self.offsets]
        return np.stack(found, 1) - math.log(CLASSES)


def test_every_draw_has_the_exact_weight_by_exact_posteriors() -> None:
    exact = Exact()
    images = exact.images(20)
    expected = scipy.special.logsumexp(exact.log_joint(images), axis=1)
    terms = exact.model.importance_terms(images, 4, SEED)
    # float32 sums of some twenty terms, squares of distances over s^2 among them.
    np.testing.assert_allclose(terms["log_weight"], np.tile(expected, (4, 1)), atol=2e-3)
    found = terms["likelihood"] - terms["kl"]
    np.testing.assert_allclose(found, terms["log_weight"], atol=1e-5)


def test_both_bounds_are_tight_by_exact_posteriors() -> None:
    exact = Exact()
    images, draws = exact.images(3), 4000
    joint = exact.log_joint(images)
    expected = scipy.special.logsumexp(joint, axis=1)
    repeated = np.repeat(images, draws, axis=0)
    of_label = tf.one_hot(tf.fill([len(repeated)], 1), CLASSES)
    for values, wanted in (
        (exact.model.unlabelled_bound(repeated, SEED), expected),
        (exact.model.labelled_bound(repeated, of_label, SEED), joint[:, 1]),
    ):
        values = np.reshape(values, (3, draws))
        error = values.std(1) / math.sqrt(draws)
        assert error.max() < 0.05
        assert (abs(values.mean(1) - wanted) < 4 * error).all()


def tiny_stack() -> semi_supervised.SemiSupervisedVAE:
    """M1+M2 of 9 pixels, two z1, the second of them dead, one z2."""
    m1 = vae.VAE(
        mlp((3, 3, 1), (6,), (4,), seed=1, name="m1_encoder"),
        mlp((2,), (6,), (3, 3, 1), seed=2, name="m1_decoder"),
    )
    model = semi_supervised.SemiSupervisedVAE(
        mlp((2,), (4,), (CLASSES,), seed=3, name="classifier"),
        LabelledMLP((2,), CLASSES, (4,), (2,), seed=4),
        LabelledMLP((1,), CLASSES, (4,), (4,), seed=5),
        num_examples=100,
        m1=m1,
    )
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.3 * tf.random.stateless_normal(variable.shape, [index, 1]))
    for network in (m1.encoders[0], model.classifier, model.encoder):
        for variable in network.weights:  # q is near the prior: importance weights with thin tails
            variable.assign(0.4 * variable)
    model.z1_square.assign([1.0, 0.001])
    return model


def test_m1_and_m2_together_tend_to_log_p_by_quadrature() -> None:
    model = tiny_stack()
    images = np.float32(np.random.default_rng(0).random((4, 3, 3, 1)) > 0.5)
    line = np.linspace(-9, 9, 181, dtype=np.float32)
    log_cell = math.log(line[1] - line[0])
    normal = scipy.stats.norm.logpdf(line)
    z1 = np.stack([line, np.zeros_like(line)], 1)
    of_z1 = []  # log p(z1) of the first dimension, summed over y and z2
    for one_hot in np.eye(CLASSES, dtype=np.float32):
        given = model.observation(line[:, None], np.tile(one_hot, (len(line), 1)))
        density = given.log_prob(z1[:, None]) - scipy.stats.norm.logpdf(0.0)
        joint = density + normal + log_cell - math.log(CLASSES)
        of_z1.append(scipy.special.logsumexp(joint, axis=1))
    log_prior = scipy.special.logsumexp(of_z1, axis=0)[:, None] + normal  # the second is N(0, 1)
    assert scipy.special.logsumexp(log_prior) + 2 * log_cell == pytest.approx(0.0, abs=1e-3)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 1, 2)
    likelihood = np.float64(model.m1.observation(grid).log_prob(images))
    joint = likelihood + log_prior.reshape(-1, 1) + 2 * log_cell
    expected = scipy.special.logsumexp(joint, axis=0)
    weights = model.importance_terms(images, 20_000, SEED)["log_weight"]
    parts = bounds.normalized_weights(weights)
    error = np.sqrt(tf.reduce_sum(parts**2, 0) - 1 / 20_000)  # by the delta method
    assert error.max() < 0.1
    assert (abs(bounds.iwae(weights) - expected) < 4 * error).numpy().all()
    assert (tf.reduce_mean(weights, 0) < expected).numpy().all()


def test_dead_dimensions_of_z1_are_not_seen_and_are_standard() -> None:
    model = tiny_stack()
    np.testing.assert_array_equal(model.alive(), [1.0, 0.0])
    label = tf.one_hot([0], CLASSES)
    one, other = tf.constant([[0.5, -1.0]]), tf.constant([[0.5, 2.0]])
    np.testing.assert_array_equal(model.class_log_probs(one), model.class_log_probs(other))
    np.testing.assert_array_equal(model.style(one, label).mean(), model.style(other, label).mean())
    given = model.observation(tf.constant([[0.3]]), label)
    ratio = given.log_prob(one) - given.log_prob(other)
    np.testing.assert_allclose(ratio, [(2.0**2 - 1.0**2) / 2], rtol=1e-5)
    moved = tf.constant([[0.6, -1.0]])
    assert not np.array_equal(model.class_log_probs(one), model.class_log_probs(moved))


# The objective.


def test_loss_by_hand() -> None:
    model = ready(stack="m2", alpha=0.7, weight_precision=2.0, binarize="none")
    images, labels = model.labelled.draw(12, model.noise_seed(0))
    (_, z_of_labelled), (_, z_of_others) = (
        tf.unstack(stateless.split(model.noise_seed(salt), 2)) for salt in (1, 2)
    )
    one_hot = tf.one_hot(labels, CLASSES)
    labelled = np.mean(model.labelled_bound(images, one_hot, z_of_labelled))
    unlabelled = np.mean(model.unlabelled_bound(one_batch()["image"], z_of_others))
    style = model.style(images, one_hot)
    mean, spread = (f().numpy() for f in (style.mean, style.stddev))
    kl = np.mean(0.5 * np.sum(mean**2 + spread**2 - 1 - 2 * np.log(spread), axis=-1))
    log_q = model.class_log_probs(images).numpy()
    supervised = -np.mean(log_q[np.arange(6), labels.numpy()])
    kernels = [v.numpy() for v in model.trainable_variables if v.path.endswith("kernel")]
    prior = 0.5 * 2.0 * sum((k**2).sum() for k in kernels) / EXAMPLES
    share = 6 / EXAMPLES
    (logs,) = train(model, 1)
    expected = -share * labelled - (1 - share) * unlabelled + 0.7 * supervised + prior
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["labelled_bound"] == pytest.approx(labelled, rel=1e-5)
    assert logs["unlabelled_bound"] == pytest.approx(unlabelled, rel=1e-5)
    assert logs["supervised_loss"] == pytest.approx(supervised, rel=1e-5)
    assert logs["kl_z"] == pytest.approx(kl, rel=1e-5)
    wrong = np.mean(log_q.argmax(1) != labels.numpy())
    assert logs["labelled_error"] == pytest.approx(wrong, rel=1e-5)


def moves(batch=None, **others) -> list[np.ndarray]:
    """How one step of gradient descent moves the classifier."""
    model = ready(weight_precision=0.0, binarize="none", **others)
    model.compile(m2=keras.optimizers.SGD(1.0))
    before = [v.numpy() for v in model.classifier.trainable_variables]
    train(model, 1, batch)
    return [v.numpy() - b for v, b in zip(model.classifier.weights, before, strict=True)]


def test_only_labelled_examples_feel_alpha() -> None:
    model = ready(binarize="none")
    images, labels = model.labelled.images.value, model.labelled.labels.value
    with tf.GradientTape() as tape:
        log_q = model.class_log_probs(images)
        loss = -tf.reduce_mean(tf.reduce_sum(tf.one_hot(labels, CLASSES) * log_q, axis=1))
    gradient = tape.gradient(loss, model.classifier.trainable_variables)
    for one, zero, g in zip(moves(alpha=1.0), moves(alpha=0.0), gradient, strict=True):
        np.testing.assert_allclose(zero - one, g, atol=1e-5)
        assert np.abs(zero).max() > 1e-3  # U's
    other = {**one_batch(), "image": one_batch()["image"][::-1] * 0.5}
    for a, b, none in zip(
        moves(stack="supervised"),
        moves(other, stack="supervised"),
        moves(stack="supervised", alpha=0.0),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)  # the other images do not matter, nor does L:
        assert not none.any()


def test_labels_of_the_batch_are_not_used() -> None:
    other = {**one_batch(), "label": (one_batch()["label"] + 1) % CLASSES}
    for stack in ("m2", "m1+m2"):
        assert train(ready(stack=stack), 6) == train(ready(stack=stack), 6, other)


def test_pixels_are_drawn_anew_at_each_use_unless_they_are_binary() -> None:
    model = ready(stack="m2")
    grey = tf.fill([200, 4, 4, 1], 0.3)
    one, other = (model.draw_x(grey, tf.constant([seed, 0])).numpy() for seed in (0, 1))
    assert set(np.unique(one)) == {0.0, 1.0}
    assert not np.array_equal(one, other)
    assert one.mean() == pytest.approx(0.3, abs=0.03)  # 3200 draws
    binary = np.float32(grey.numpy() * 0 + (np.arange(200) % 2)[:, None, None, None])
    np.testing.assert_array_equal(model.draw_x(binary, SEED), binary)
    for how, wanted in (("fixed", "binary"), ("threshold", "binary"), ("none", "unit")):
        hparams = flags(binarize=how)
        assert (hparams.image_range, hparams.draws_pixels) == (wanted, False)


def test_an_estimate_is_of_one_draw_of_the_pixels_whatever_its_chunks() -> None:
    """Else the weights of other images are added up, which no bound allows."""
    model = ready(stack="m2")
    grey = tf.random.stateless_uniform([6, 4, 4, 1], [1, 2])
    drawn = model.draw_pixels(grey, tf.constant([3, -1]))
    ours, given = (
        likelihood.estimate(model, [{"image": image}], k=5000, seed=3) for image in (grey, drawn)
    )
    np.testing.assert_array_equal(ours.log_prob, given.log_prob)
    assert not np.array_equal(drawn, grey)


# Stages.


def test_m1_learns_first_and_then_stands_still() -> None:
    model = ready(stack="m1+m2")
    upper = [model.classifier, model.encoder, model.decoder]
    of = {"m1": model.m1.variables, "upper": [v for part in upper for v in part.weights]}
    for moving, resting, logs in (
        ("m1", "upper", {"loss", "m1_bound"}),
        ("upper", "m1", {"labelled_bound", "unlabelled_bound"}),
    ):
        before = {name: [v.numpy() for v in variables] for name, variables in of.items()}
        moments = model.z1_mean.numpy()
        assert logs <= set(train(model, 4)[-1])
        for new, old in zip(of[resting], before[resting], strict=True):
            np.testing.assert_array_equal(new.numpy(), old)
        for new, old in zip(of[moving], before[moving], strict=True):
            assert not np.array_equal(new.numpy(), old), new.path
        assert np.array_equal(model.z1_mean.numpy(), moments) == (moving == "upper")


def test_a_collapse_is_named_in_each_stage() -> None:
    model = ready(stack="m1+m2")
    for name, encoder in (("kl_z1", model.m1.encoders[0]), ("kl_z", model.encoder)):
        assert model.diagnose(train(model, 1)[-1]) == {}
        for weight in encoder.weights:  # q is the standard Gaussian
            weight.assign(tf.zeros_like(weight))
        found = model.diagnose(train(model, 1)[-1])
        assert found["posterior collapse"].startswith(f"{name} ")
        train(model, 2)  # The first stage has four steps.


def test_dimensions_that_m1_leaves_alone_die() -> None:
    model = ready(stack="m1", m1_part=0.9, steps=1000, binarize="none")
    kernel, bias = model.m1.encoders[0].layers[-1].weights
    kernel.assign(tf.concat([kernel[:, :3], tf.zeros([8, 1]), kernel[:, 4:]], axis=1))
    model.compile(m1=keras.optimizers.SGD(0.0), m2="sgd")
    train(model, 1)
    np.testing.assert_array_equal(model.alive(), np.ones(4))  # until it is known
    train(model, 800)
    means = model.m1.encode(one_batch()["image"]).numpy()
    np.testing.assert_array_equal(model.alive(), np.float32(means.std(0) > 0.1))
    assert model.alive()[3] == 0.0
    assert model.alive().numpy().sum() > 0
    del bias


@pytest.mark.parametrize("stack", ["supervised", "m1", "m2", "m1+m2"])
def test_stacks(stack) -> None:
    model = ready(stack=stack)
    assert model.stage_starts() == ((4,) if "m1" in stack else ())
    assert set(model.players()) == ({"m1", "m2"} if "m1" in stack else {"m2"})
    assert ("unlabelled_bound" in train(model, 6)[-1]) == ("m2" in stack)
    np.testing.assert_allclose(np.sum(model.classify(one_batch()["image"]), 1), 1.0, rtol=1e-5)
    images = model.sample(5, 1, tf.constant([0, 1, 2, 0, 1])).numpy()
    assert images.shape == (5, 4, 4, 1)
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("stack", ["m2", "m1+m2"])
def test_by_xla_and_in_bfloat16(stack) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = ready(stack=stack, jit=True)
    rows = train(model, 6)
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("stack", ["m2", "m1+m2"])
def test_two_replicas_stay_equal(stack) -> None:
    strategy = strategies.make("mirrored", devices=2)
    with strategy.scope():
        model = ready(stack=stack)
        data = tf.data.Dataset.from_tensors(one_batch()).repeat()
        rows = model.run_steps(iter(strategy.experimental_distribute_dataset(data)), 6)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for variable in model.variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(np.array(first), np.array(second), err_msg=variable.path)


@pytest.mark.parametrize("stack", ["m2", "m1+m2"])
def test_keras_file(stack, tmp_path) -> None:
    model = ready(stack=stack, likelihood="gaussian", alpha=0.3, weight_precision=0.5)
    train(model, 6)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    image = one_batch()["image"]
    for function in (lambda m: m.sample(4, 7), lambda m: m.classify(image),
                     lambda m: m.log_prob(image, 1, k=3), lambda m: m.labelled.images):  # fmt: skip
        np.testing.assert_array_equal(function(twin), function(model))
    for name in ("alpha", "weight_precision", "likelihood", "num_examples", "m1_steps"):
        assert getattr(twin, name) == getattr(model, name)


def test_a_run_resumes_across_its_stages_to_the_bit(tmp_path, digits_dir) -> None:
    system = (
        "--system=vae.semi_supervised", "--stack=m1+m2", "--hidden_units=8", "--latent_dim=3",
        "--m1_hidden_units=8", "--m1_latent_dim=4", "--m1_part=0.5", "--steps=12",
        "--steps_per_execution=5", "--log_every_steps=4", "--validate_every_steps=6",
        "--checkpoint_every_steps=3", f"--data_dir={digits_dir}",
    )  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert runs.train_here(whole, *system) == 0
    for stop in (4, 8):
        assert runs.train_here(parts, *system, f"--stop_at_step={stop}") == 0
    assert runs.train_here(parts, *system) == 0
    runs.assert_same_run(whole, parts)


# What it is for.


def rows_of_light(count: int) -> dict[str, np.ndarray]:
    """Three classes, each a bright row under noise."""
    random = np.random.RandomState(1)
    label = np.int32(np.arange(count) % CLASSES)
    image = random.uniform(0, 0.4, size=(count, 4, 4, 1))
    image[np.arange(count), label] += random.uniform(0, 0.6, size=(count, 4, 1))
    return {"image": image.astype(np.float32), "label": label}


@pytest.mark.parametrize("stack", ["supervised", "m2", "m1", "m1+m2"])
def test_all_but_m1_begin_with_small_weights(stack) -> None:
    wide = {"stack": stack, "hidden_units": (60,), "m1_hidden_units": (60, 60)}
    for stddev in (1e-3, None):
        model = semi_supervised.build(flags(init_stddev=stddev, **wide), spec())
        for variable in model.players()["m2"]:
            if len(variable.shape) > 1:
                assert (np.std(variable) < 2e-3) == (stddev is not None), variable.path
        for variable in model.players().get("m1", []):
            assert len(variable.shape) < 2 or np.std(variable) > 0.05, variable.path
    assert flags().init_stddev == 1e-3


def test_it_learns_classes_from_few_labels() -> None:
    data = rows_of_light(600)
    errors = {}
    # By the default's small weights M2 finds parts of these data that are no classes before one
    # label of each can name them: its error is 0.29 here, and stays.
    rest = {"labels_per_class": 1, "hidden_units": (32,), "init_stddev": None}
    for stack in ("supervised", "m2"):
        hparams = flags(stack=stack, batch_size=60, steps=400, **rest)
        model = semi_supervised.build(hparams, spec(size=600))
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(60)
        model.adapt(dataset)
        model.run_steps(iter(dataset.repeat()), 400)
        logs = model.evaluate(dataset, verbose=0, return_dict=True)
        assert logs["elbo"] == pytest.approx(logs["likelihood"] - logs["kl"], rel=1e-5)
        predicted = model.classify(data["image"]).numpy().argmax(1)
        assert logs["error"] == pytest.approx(np.mean(predicted != data["label"]), abs=1e-6)
        errors[stack] = logs["error"]
    assert errors["m2"] < 0.5 * errors["supervised"]


def noisy_templates(count: int) -> dict[str, np.ndarray]:
    """Three classes, each a binary template of which a fifth of the pixels are flipped."""
    random = np.random.RandomState(1)
    label = np.int32(np.arange(count) % CLASSES)
    templates = random.rand(CLASSES, 4, 4, 1) < 0.5
    image = templates[label] ^ (random.rand(count, 4, 4, 1) < 0.2)
    return {"image": image.astype(np.float32), "label": label}


@pytest.mark.parametrize("seed", [0, 1])
def test_unlabelled_images_help(seed) -> None:
    data = noisy_templates(600)
    errors = {}
    for stack in ("supervised", "m2"):
        hparams = flags(
            stack=stack, alpha=1.0, latent_dim=1, hidden_units=(32,), batch_size=60, seed=seed
        )
        model = semi_supervised.build(hparams, spec(size=600))
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(60)
        model.adapt(dataset)
        model.run_steps(iter(dataset.repeat()), 400)
        logs = model.evaluate(dataset, verbose=0, return_dict=True)
        assert logs["elbo"] == pytest.approx(logs["likelihood"] - logs["kl"], rel=1e-5)
        predicted = model.classify(data["image"]).numpy().argmax(1)
        assert logs["error"] == pytest.approx(np.mean(predicted != data["label"]), abs=1e-6)
        errors[stack] = logs["error"]
    # Over six seeds: 0.17 to 0.34 by the labelled ones alone, 0.08 to 0.10 by M2.
    assert errors["m2"] < 0.12
    assert errors["supervised"] > 0.15


@pytest.mark.parametrize("stack", ["m2", "m1+m2"])
def test_analogies_keep_the_style_and_change_the_class(stack) -> None:
    model, image = ready(stack=stack, latent_dim=2), one_batch()["image"]
    grid = model.analogies(image)
    assert grid.shape == (12, 1 + CLASSES, 4, 4, 1)
    np.testing.assert_array_equal(grid[:, 0], image)
    style = model.encode(image)
    for k in range(CLASSES):
        made = model.decode(style, tf.fill([12], k))
        np.testing.assert_allclose(grid[:, 1 + k], made, atol=1e-5)
    most = tf.one_hot(tf.argmax(model.classify(image), axis=1), CLASSES)
    x = image if stack == "m2" else model.m1.encode(image)
    np.testing.assert_allclose(style, model.style(x, most).mean(), atol=1e-5)


def test_styles_of_a_class_lie_at_quantiles() -> None:
    model = ready(stack="m2", latent_dim=2)
    grid = model.styles(2, 4)
    assert grid.shape == (4, 4, 4, 4, 1)
    low, high = scipy.stats.norm.ppf([1 / 8, 7 / 8])
    corner = model.decode(tf.constant([[low, high]], tf.float32), tf.constant([2]))
    np.testing.assert_allclose(grid[0, 0], corner[0], atol=1e-5)
    assert "styles_of_class_2" in model.pictures(one_batch(), 0)
    assert not any("styles" in name for name in ready(stack="m2").pictures(one_batch(), 0))


# What can be wrong.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels_per_class": 0}, "--labels_per_class must be more than 0. Received.*=0"),
        ({"alpha": -1.0}, "--alpha must be 0 or more"),
        ({"m1_part": 1.0}, "--m1_part must be between 0 and 1. Received: --m1_part=1.0"),
    ],
)
def test_wrong_flags_are_named(wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        semi_supervised.HParams(**wrong)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(DataError, match=r"below 8, 24 examples over 3 classes. Received: .*=8"):
        semi_supervised.build(flags(labels_per_class=8), spec())
    with pytest.raises(ValueError, match="must have labels. Received: 'x' without classes"):
        semi_supervised.build(flags(), spec(classes=None))
    parts = (LabelledMLP((9,), 3, (4,), (4,)), LabelledMLP((2,), 3, (4,), (9,)))
    make = functools.partial(semi_supervised.SemiSupervisedVAE, num_examples=100)
    with pytest.raises(ValueError, match=r"2 classes or more. Received: output \(1,\)"):
        make(mlp((9,), (4,), (1,)), *parts)
    with pytest.raises(ValueError, match="likelihood must be one of .*'normal'"):
        make(mlp((9,), (4,), (3,)), *parts, likelihood="normal")
    m1 = vae.VAE(mlp((3, 3, 1), (4,), (4,)), mlp((2,), (4,), (3, 3, 1)))
    with pytest.raises(ValueError, match=r"layer of \(9,\) latents.*Received: latents \(2,\)"):
        make(mlp((9,), (4,), (3,)), *parts, m1=m1)


def test_labels_of_all_are_one_line(tmp_path, digits_dir, capsys) -> None:
    for count, message in ((140, "some training examples must be without"), (139, "at most 1")):
        system = ("--system=vae.semi_supervised", f"--labels_per_class={count}", "--steps=1")
        run_dir = tmp_path / str(count)
        assert runs.train_here(run_dir, *system, f"--data_dir={digits_dir}") == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("FATAL: ")
        assert message in line
