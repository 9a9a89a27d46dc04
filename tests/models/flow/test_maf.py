"""MAF: what is made of images, batch norm's statistics, classes, learning, wrong arguments."""

import math
import types

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests.training.runs import train_here
from tfgen import commands, data, hparams, run
from tfgen.bijectors.flow import AutoregressiveFlow
from tfgen.metrics import density
from tfgen.metrics.measure import Settings
from tfgen.models.flow import maf
from tfgen.training import loop


def make(event_shape=(2,), num_classes: int = 0, **arguments) -> maf.MAF:
    flow = AutoregressiveFlow(
        math.prod(event_shape), hidden_units=(70,), context=num_classes, **arguments
    )
    return maf.MAF(flow, event_shape)


def images(count: int = 32) -> tf.Tensor:
    levels = tf.random.stateless_uniform([count, 8, 8, 1], [1, 2], 0, 256, tf.int32)
    return tf.cast(levels, tf.float32) / 255.0


def test_images_come_back_from_their_vectors() -> None:
    model, x = make((8, 8, 1)), images()
    y, _ = model.to_vectors(x, tf.constant([3, 4]))
    difference = np.abs(model.to_examples(y) - x) * 255
    # float32 rounds a draw within 1e-5 of the border of a level over it.
    assert (difference > 0.5).mean() < 1e-3
    assert difference.max() < 1.5


def test_log_det_is_that_of_the_logit() -> None:
    model, x = make((8, 8, 1)), images()
    y, log_det = model.to_vectors(x, tf.constant([3, 4]))
    z = (1 / (1 + np.exp(-np.float64(y))) - 1e-6) / (1 - 2e-6)
    s = 1e-6 + (1 - 2e-6) * z
    expected = np.log((1 - 2e-6) / (s * (1 - s))).sum(1)
    np.testing.assert_allclose(log_det, expected, rtol=1e-4)


class Uniform(maf.MAF):
    """A model whose images have every level alike: p(z) = 1."""

    def vector_log_prob(self, y: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.math.log_sigmoid(y) + tf.math.log_sigmoid(-y), -1)


def test_a_uniform_density_takes_eight_bits(digits_dir) -> None:
    model = Uniform(AutoregressiveFlow(64, hidden_units=(70,)), (8, 8, 1))
    digits = data.load("digits", data_dir=digits_dir)
    found = density.nll(model, digits, Settings(limit=50))
    # The draws begin alpha above 0, which costs a level of 0 a fraction of alpha * 256.
    assert found["bits_per_dimension"].value == pytest.approx(8.0, abs=1e-3)
    assert found["nll"].value != found["bits_per_dimension"].value


def test_the_gaussian_baseline_is_scipys() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(7, 3))
    fitted = scipy.stats.multivariate_normal(train.mean(0), np.cov(train.T, bias=True))
    np.testing.assert_allclose(density.gaussian_log_prob(train, test), fitted.logpdf(test))
    with pytest.raises(ValueError, match="of 3 dimensions needs more examples.* Received: 2"):
        density.gaussian_log_prob(train[:2], test)


def test_learns_a_gaussian_with_a_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [-0.5, 1.0, 0.5]])
    x = (rng.normal(size=(4000, 3)) @ mixing.T + [1.0, -2.0, 0.5]).astype(np.float32)
    model = make((3,), blocks=1)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 400)),
        steps_per_execution=10,
    )
    model.fit(x, batch_size=200, epochs=20, verbose=0)
    entropy = 1.5 * math.log(2 * math.pi * math.e) + np.log(np.abs(np.diag(mixing))).sum()
    assert -float(tf.reduce_mean(model.log_prob(x))) == pytest.approx(entropy, abs=0.05)
    drawn = model.sample(4000, 0).numpy()
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.15)


def test_the_density_over_classes_is_their_mean() -> None:
    model = make((2,), num_classes=3, blocks=2)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.3 * tf.random.stateless_normal(variable.shape, [index, 1]))
    y = tf.random.stateless_normal([5, 2], [1, 2])
    each = [np.exp(model.density(tf.fill([5], c)).log_prob(y)) for c in range(3)]
    np.testing.assert_allclose(np.exp(model.log_prob(y)), np.mean(each, 0), rtol=1e-5)
    assert model.needs == ("point", "label")
    chosen = model.sample(4, 0, label=tf.fill([4], 1))
    assert not np.allclose(chosen, model.sample(4, 0, label=tf.fill([4], 2)))


def test_a_run_ends_with_the_statistics_of_the_training_set(tmp_path, digits_dir) -> None:
    hp = maf.HParams(hidden_units=(64,), steps=3, steps_per_execution=1, blocks=2)
    digits = data.load("digits", data_dir=digits_dir)
    model = maf.build(hp, digits.spec)
    run_dir = run.RunDir(tmp_path / "run")
    run_dir.create(hparams.to_flagfile("flow.maf", hp))
    loop.train(model, digits, hp, run_dir, intervals=loop.Intervals())
    got = [norm.mean.numpy() for norm in model.flow.norms]
    total = [
        model.to_vectors(b["image"], tf.constant([hp.seed, i]))[0].numpy()
        for i, b in enumerate(digits.batches("train", 1000, seed=hp.seed))
    ]
    y = np.concatenate(total)
    model.flow.bijector(training=True).inverse(y)  # follows by 1 % of what was expected
    for norm, before in zip(model.flow.norms, got, strict=True):
        np.testing.assert_allclose(norm.mean, before, atol=1e-4)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="need a masked flow of 4 dimensions. Received: masked, 2"):
        maf.MAF(AutoregressiveFlow(2, hidden_units=(4,)), (4,))
    with pytest.raises(ValueError, match="--alpha must be above 0 and below 0.5"):
        maf.HParams(alpha=0.5)
    with pytest.raises(ValueError, match="--blocks must be more than 0"):
        maf.HParams(blocks=0)
    spec = types.SimpleNamespace(shapes={"image": (8, 8, 1)}, num_classes=10, train_size=100)
    with pytest.raises(ValueError, match=r"at least 63 for 64 dimensions.* Received: \(32,\)"):
        maf.build(maf.HParams(hidden_units=(32,)), spec)
    assert hparams.load_system("flow.maf") is maf


def test_in_bfloat16_it_settles_samples_and_judges() -> None:
    """Networks compute in bfloat16, all that the density is made of in float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make(blocks=2, batch_norm=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.flow.networks[0].compute_dtype == "bfloat16"
    y = 3.0 + 2.0 * tf.random.stateless_normal([500, 2], [1, 2])
    model.settle(lambda: [{"point": y}])
    base = model.flow.bijector().inverse(y).numpy()  # of which the last norm has the moments
    np.testing.assert_allclose(base.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(base.std(0), 1.0, atol=0.05)
    for value in (model.log_prob(y), model.sample(7, 1), model.density().log_prob(y)):
        assert value.dtype == tf.float32
        assert np.isfinite(value).all()
    # A sample is what the inverse takes back to where it came from, within bfloat16.
    u = tf.random.stateless_normal([50, 2], [3, 4])
    bijector = model.flow.bijector()
    np.testing.assert_allclose(bijector.inverse(bijector.forward(u) + 0.0), u, atol=0.1)


def test_what_a_stopped_run_leaves_has_settled(tmp_path, digits_dir) -> None:
    """Its statistics are those of the training set, as at the end of a whole run."""
    flags = (
        "--system=flow.maf", "--data=ring8", "--blocks=2", "--hidden_units=8", "--batch_norm",
        "--epochs=1", "--batch_size=50", f"--data_dir={digits_dir}",
    )  # fmt: skip
    path = tmp_path / "run"
    assert train_here(path, *flags, "--stop_at_step=7") in (0, 3)
    model = commands.load_run(run.RunDir(path))[-1]
    found = [norm.variance.numpy() for norm in model.flow.norms]
    hp = commands.load_run(run.RunDir(path))[1]
    loaded = commands.load_data(hp, digits_dir, "skip")
    model.settle(lambda: loaded.batches("train", 1000, seed=hp.seed))
    for variance, norm in zip(found, model.flow.norms, strict=True):
        np.testing.assert_allclose(variance, norm.variance, rtol=1e-3)
