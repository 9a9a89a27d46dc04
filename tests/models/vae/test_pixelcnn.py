"""PixelCNN as a model of images and as the likelihood of a VAE."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tests.networks.test_pixelcnn import make
from tfgen import data, distributions, stateless
from tfgen.losses import bounds
from tfgen.metrics import density, likelihood
from tfgen.metrics.measure import Settings
from tfgen.models.vae import draw, iwae, pixelcnn, vae

FLAGS = {"layers": 2, "filters": 8, "first_kernel_size": 5, "head_filters": 8}
SPEC = data.DataSpec(
    name="x", shapes={"image": (8, 8, 1)}, dtypes={"image": "float32"}, image_range="binary",
    num_classes=3, train_size=100, validation_size=10, test_size=10,
)  # fmt: skip
SEED = tf.constant([5, 6])


def digits() -> np.ndarray:
    from sklearn.datasets import load_digits

    return (load_digits().images[..., None] > 8).astype(np.float32)


def of_neighbours(train: np.ndarray, test: np.ndarray) -> float:
    """Mean log p(x) by a table: a pixel at its place given the four next to it that come before."""

    def values(x: np.ndarray) -> np.ndarray:
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1)])
        corners = ((1, 0), (0, 0), (0, 1), (0, 2))  # left, and three above
        return sum(padded[:, r : r + 8, c : c + 8] << n for n, (r, c) in enumerate(corners))

    rows, columns = np.indices((8, 8))
    counts = np.ones((8, 8, 16, 2))  # one more of each, so that nothing has probability 0
    np.add.at(counts, (rows, columns, values(train), train), 1)
    p = counts / counts.sum(-1, keepdims=True)
    return float(np.log(p[rows, columns, values(test), test]).sum((1, 2)).mean())


def test_learns_more_of_digits_than_a_table_of_neighbours() -> None:
    x = digits()
    hp = pixelcnn.HParams(learning_rate=5e-3, schedule="linear", decay_from=0.3, epochs=40, **FLAGS)
    model = pixelcnn.build(hp, dataclasses.replace(SPEC, train_size=1400))
    model.fit(x[:1400], batch_size=100, epochs=40, verbose=0)
    table = of_neighbours(*(part[..., 0].astype(int) for part in (x[:1400], x[1400:])))
    assert float(tf.reduce_mean(model.log_prob(x[1400:]))) > table


def test_256_levels_and_their_bits(digits_dir) -> None:
    hp = pixelcnn.HParams(likelihood="categorical", **FLAGS)
    found = data.load("digits", data_dir=digits_dir, image_range=hp.image_range)
    model = pixelcnn.build(hp, found.spec)
    for variable in model.network.head[-1].trainable_variables:
        variable.assign(tf.zeros_like(variable))
    measured = density.image_nll(model, found, Settings(limit=20))
    assert measured["bits_per_dimension"].value == pytest.approx(8.0, abs=1e-5)
    assert measured["nll"].value == pytest.approx(64 * np.log(256), rel=1e-5)
    levels = model.sample(4, 0).numpy() * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    assert len(np.unique(levels.round())) > 50


def test_given_the_label() -> None:
    model = pixelcnn.build(pixelcnn.HParams(conditional=True, **FLAGS), SPEC)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.2 * tf.random.stateless_normal(variable.shape, [index, 1]))
    x = tf.cast(tf.random.stateless_uniform([4, 8, 8, 1], [1, 2]) > 0.5, tf.float32)
    values = tf.cast(x, tf.int32)
    each = [model.network.log_prob(values, tf.one_hot(tf.fill([4], c), 3)) for c in range(3)]
    expected = scipy.special.logsumexp(np.float64(each), axis=0) - np.log(3)
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-5)
    assert model.needs == ("image", "label")
    one, other = (model.sample(4, 0, label=tf.fill([4], label)) for label in (1, 2))
    assert not np.array_equal(one, other)


# As the likelihood of a VAE.


def _vae(cls=vae.VAE, hparams=vae.HParams, **flags) -> vae.VAE:
    hp = hparams(
        latent_dims=(3,), hidden_units=(16,), likelihood="pixelcnn", pixelcnn_layers=1,
        pixelcnn_filters=8, pixelcnn_kernel=3, pixelcnn_context=4, **flags,
    )  # fmt: skip
    names = ("k", "dreg") if cls is iwae.IWAE else ("k", "analytic_kl")
    model = cls(**vae.slots(hp, (4, 4, 1)), **{name: getattr(hp, name) for name in names})
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.1 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


def test_few_images_go_through_it_at_once() -> None:
    """A PixelCNN has hundreds of maps where a small decoder has one: memory must not follow k."""
    model, seen = _vae(), []
    image = tf.cast(tf.random.stateless_uniform([5, 4, 4, 1], [1, 2]) > 0.5, tf.float32)
    assert model.likelihood.rows_at_once == 2500 // 8
    model.likelihood.rows_at_once = 10
    terms = model.importance_terms
    model.importance_terms = lambda image, k, seed: seen.append(k) or terms(image, k, seed)
    found = likelihood.estimate(model, [{"image": image}], k=5, seed=0)
    assert seen == [2, 1]
    assert np.isfinite(found.log_prob).all()
    seeds = tf.unstack(stateless.split(tf.constant([0, 0]), 3))
    one_by_one = tf.concat([terms(image, 1, seed)["log_weight"] for seed in seeds], 0)
    np.testing.assert_allclose(model.log_prob(image, 0, k=3), bounds.iwae(one_by_one), rtol=1e-5)


def test_the_distribution_is_the_networks() -> None:
    network = make(shape=(4, 4, 1), context=3)
    condition = tf.random.stateless_normal([2, 5, 4, 4, 3], [0, 1])
    p = distributions.Autoregressive(network, condition)
    x = tf.cast(tf.random.stateless_uniform([5, 4, 4, 1], [1, 2]) > 0.5, tf.float32)
    found = p.log_prob(x)
    assert found.shape == (2, 5)
    for k, b in itertools.product(range(2), range(5)):
        one = network.log_prob(tf.cast(x[b : b + 1], tf.int32), condition[k, b : b + 1])
        np.testing.assert_allclose(found[k, b], one[0], rtol=1e-5)
    drawn = p.sample(3, seed=[1, 2])
    assert drawn.shape == (3, 2, 5, 4, 4, 1)
    assert np.isin(drawn, [0.0, 1.0]).all()


def test_the_decoder_speaks_to_every_pixel_and_the_pixels_to_those_after() -> None:
    model = _vae()
    x = tf.cast(tf.random.stateless_uniform([6, 4, 4, 1], [1, 2]) > 0.5, tf.float32)
    latent = tf.random.stateless_normal([6, 3], [1, 3])
    terms = model.log_terms(x, model.infer(x, 1, SEED))
    assert terms["likelihood"].shape[-1] in (None, 6)
    independent = distributions.bernoulli(model.likelihood.network(
        model.likelihood.network.embed(tf.zeros_like(x, tf.int32)), model.decoders[-1](latent)
    ))  # fmt: skip
    assert not np.allclose(model.observation(latent).log_prob(x), independent.log_prob(x))
    other = model.observation(latent + 1.0).log_prob(x)
    assert not np.allclose(model.observation(latent).log_prob(x), other)


def test_images_are_draws_by_their_seed() -> None:
    model = _vae()
    for images in (model.sample(20, 0), model.decode(tf.zeros([20, 3]))):
        assert np.isin(images, [0.0, 1.0]).all()
    x = tf.zeros([20, 4, 4, 1])
    assert not np.array_equal(model.reconstruct(x, 0), model.reconstruct(x, 1))
    np.testing.assert_array_equal(model.reconstruct(x, 0), model.reconstruct(x, 0))


def test_saved_and_reloaded(tmp_path) -> None:
    model = _vae()
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin.sample(4, 7), model.sample(4, 7))


def test_other_likelihoods_are_said_by_name() -> None:
    model = vae.VAE(*vae.networks((8, 8, 1), vae.HParams(likelihood="gaussian")),
                    likelihood="gaussian")  # fmt: skip
    assert model.get_config()["likelihood"] == "gaussian"


@pytest.mark.parametrize(
    "flags",
    [
        {"posterior": "iaf", "analytic_kl": False, "flow_hidden_units": (8,)},
        {"prior": "maf", "analytic_kl": False, "flow_hidden_units": (8,)},
        {"posterior": "categorical"},
        {"cls": iwae.IWAE, "hparams": iwae.HParams, "k": 3, "dreg": True},
    ],
    ids=lambda flags: "/".join(str(value) for value in flags.values() if isinstance(value, str)),
)
def test_with_every_posterior_prior_and_bound(flags) -> None:
    if flags.get("posterior") == "categorical":
        flags = {**flags, "categories": 3}
    model = _vae(**flags)
    model.compile(keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in model.trainable_variables]
    x = tf.cast(tf.random.stateless_uniform([6, 4, 4, 1], [1, 2]) > 0.5, tf.float32)
    rows = model.run_steps(iter(tf.data.Dataset.from_tensors({"image": x})), 1)
    assert all(np.isfinite(value) for value in rows[0].values())
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable, old), variable.path


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="--conditional needs the gated form"):
        pixelcnn.HParams(conditional=True, gated=False)
    with pytest.raises(ValueError, match="--kernel_size must be odd. Received: --kernel_size=4"):
        pixelcnn.HParams(kernel_size=4)
    with pytest.raises(ValueError, match="--first_kernel_size must be odd and 3 or more"):
        pixelcnn.HParams(first_kernel_size=1)
    with pytest.raises(ValueError, match="--pixelcnn_kernel must be odd and 3 or more"):
        vae.HParams(pixelcnn_kernel=2)
    with pytest.raises(ValueError, match="a PixelCNN has none. Received: --likelihood=pixelcnn"):
        draw.HParams(likelihood="pixelcnn")
