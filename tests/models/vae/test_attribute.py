"""Attribute2Image: objective by hand and by integration, what each part may see, progressions."""

import json

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfgen import stateless
from tfgen.data import DataSpec
from tfgen.models.vae import attribute
from tfgen.networks.conv_vae import decoder, encoder
from tfgen.networks.mlp import mlp

SEED = tf.constant([5, 6])
SHAPE, ATTRIBUTES = (4, 4, 1), 3


def spec(shape: tuple[int, ...] = SHAPE) -> DataSpec:
    shapes = {"image": shape, "attributes": (ATTRIBUTES,), "mask": (*shape[:2], 1)}
    dtypes = dict.fromkeys(shapes, "float32")
    return DataSpec("nowhere", shapes, dtypes, "unit", None, 100, 20, 20)


def flags(**others) -> attribute.HParams:
    small = {
        "foreground_dim": 1, "background_dim": 1, "foreground_filters": (4,),
        "background_filters": (3,), "foreground_units": 5, "background_units": 4,
    }  # fmt: skip
    return attribute.HParams(**{**small, "batch_size": 6, **others})


def batch(size: int = 6, seed: int = 0) -> dict[str, tf.Tensor]:
    random = np.random.RandomState(seed)
    return {
        "image": tf.constant(np.float32(random.uniform(0, 1, (size, *SHAPE)))),
        "attributes": tf.constant(np.float32(random.uniform(-3, 5, (size, ATTRIBUTES)))),
        "mask": tf.constant(np.float32(random.uniform(0, 1, (size, *SHAPE)) > 0.5)),
    }


def ready(cls: type | None = None, layered: bool = True, **others) -> attribute.AttributeCVAE:
    """A model whose weights, biases too, are far from their start."""
    model = attribute.build(flags(layered=layered, **others), spec())
    if cls is not None:
        model = cls.from_config(model.get_config())
        model.compile()
    model.adapt(tf.data.Dataset.from_tensor_slices(batch(50, 1)).batch(20))
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(variable + 0.4 * tf.random.stateless_normal(variable.shape, [index, 1]))
    return model


# The objective.


def gaussian(x: np.ndarray, mean: np.ndarray, sigma: float) -> np.ndarray:
    terms = -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    return terms.reshape(len(x), -1).sum(1)


def posterior(network: keras.Model, inputs: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, log sigma and KL to N(0, I) of what an encoder tells."""
    mean, log_std = np.split(np.float64(network(inputs, training=False)), 2, axis=-1)
    kl = 0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std
    return mean, log_std, kl.sum(-1)


def by_hand(model: attribute.DisCVAE, seed: tf.Tensor, rows: dict) -> dict[str, float]:
    """The logs of a test step whose noise is of `seed`, in float64 but for the networks."""
    x, y, m = (rows[key].numpy() for key in ("image", "attributes", "mask"))
    low, high = model.lowest.numpy(), model.highest.numpy()
    scaled = np.float32(2 * (y - low) / (high - low) - 1)
    of_f, of_b = tf.unstack(stateless.split(seed, 2))
    mean, log_std, kl_f = posterior(model.encoder, [m * x, scaled])
    z_f = np.float32(mean + np.exp(log_std) * stateless.normal([1, len(x), 1], of_f).numpy()[0])
    mean, log_std, kl_b = posterior(model.background_encoder, [x, scaled, z_f])
    z_b = np.float32(mean + np.exp(log_std) * stateless.normal([1, len(x), 1], of_b).numpy()[0])
    logits = np.float64(model.decoder([z_f, scaled], training=False))
    x_f, gate = scipy.special.expit(logits[..., :1]), logits[..., 1:]
    x_b = scipy.special.expit(np.float64(model.background_decoder(z_b, training=False)))
    g = scipy.special.expit(gate)
    likelihood = gaussian(x, x_f + g * x_b, model.sigma).mean()
    foreground = gaussian(m * x, x_f, model.sigma).mean()
    of_gate = ((1 - m) * np.log(g) + m * np.log(1 - g)).sum((1, 2, 3)).mean()
    kl = kl_f.mean() + kl_b.mean()
    return {
        "loss": kl - likelihood - foreground - model.gate_weight * of_gate,
        "elbo": likelihood - kl,
        "likelihood": likelihood,
        "foreground": foreground,
        "gate": of_gate,
        "kl": kl,
        "kl_background": kl_b.mean(),
    }


def test_layered_objective_by_hand() -> None:
    model, rows = ready(sigma=0.3, gate_weight=0.7), batch()
    expected = by_hand(model, model.noise_seed(), rows)
    found = model.test_step(rows)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), name


@keras.saving.register_keras_serializable("test")
class SeesBackground(attribute.DisCVAE):
    def infer(self, batch, seed, training=False, k=1):
        return super().infer({**batch, "mask": tf.ones_like(batch["mask"])}, seed, training, k)


@keras.saving.register_keras_serializable("test")
class GateOfForeground(attribute.DisCVAE):
    def terms(self, painted, batch):
        return {
            **super().terms(painted, batch),
            "gate": super().terms(painted, {**batch, "mask": 1.0 - batch["mask"]})["gate"],
        }


@keras.saving.register_keras_serializable("test")
class Ungated(attribute.DisCVAE):
    def paint(self, latents, attributes, training=False):
        painted = super().paint(latents, attributes, training)
        return {**painted, "image": painted["foreground"] + painted["background"]}


@keras.saving.register_keras_serializable("test")
class WholeAsForeground(attribute.DisCVAE):
    def terms(self, painted, batch):
        of_whole = self.log_density(batch["image"], painted["foreground"])
        return {**super().terms(painted, batch), "foreground": of_whole}


@pytest.mark.parametrize("wrong", [SeesBackground, GateOfForeground, Ungated, WholeAsForeground])
def test_wrong_objectives_are_caught(wrong: type) -> None:
    model, rows = ready(wrong, sigma=0.3), batch()
    expected = by_hand(model, model.noise_seed(), rows)
    found = {name: float(value) for name, value in model.test_step(rows).items()}
    assert abs(found["loss"] - expected["loss"]) > 0.1


def log_prob(model: attribute.AttributeCVAE, rows: dict[str, tf.Tensor]) -> float:
    """log p(x|y) of one example by integration over two latents, from -6 to 6 by 0.1."""
    axis = np.arange(-6, 6.05, 0.1, np.float32)
    latent = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    attributes = tf.repeat(rows["attributes"], len(latent), 0)
    latents = tf.split(tf.constant(latent), model.latent_dims, axis=-1)
    means = model.paint(latents, attributes)["image"].numpy()
    of_image = gaussian(np.repeat(rows["image"].numpy(), len(latent), 0), means, model.sigma)
    of_latent = -0.5 * (latent**2).sum(1) - np.log(2 * np.pi)
    return scipy.special.logsumexp(of_image + of_latent) + 2 * np.log(0.1)


@pytest.mark.parametrize("layered", [True, False])
def test_elbo_bounds_log_p(layered: bool) -> None:
    model, count = ready(layered=layered, sigma=1.0), 4000
    rows = batch(1, seed=2)
    for network in [model.encoder, *([model.background_encoder] if layered else [])]:
        last = network.layers[-1]  # wide posteriors, so that no few weights have it all
        last.kernel.assign(0.1 * last.kernel)
        last.bias.assign(np.repeat([0.0, 0.3], last.units // 2))
    many = {key: tf.repeat(value, count, axis=0) for key, value in rows.items()}
    latents, posteriors = model.infer(many, SEED)
    likelihood = model.terms(model.paint(latents, many["attributes"]), many)["likelihood"]
    log_q = tf.add_n([q.log_prob(z) for q, z in zip(posteriors, latents, strict=True)])
    log_p = tf.add_n([-0.5 * tf.reduce_sum(z**2 + np.log(2 * np.pi), 1) for z in latents])
    weights = np.float64(likelihood + log_p - log_q)
    exact = log_prob(model, rows)
    ratio = np.exp(weights - exact)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(count)
    assert ratio.std() < 2  # else the mean says little
    elbo = float(model.test_step(many)["elbo"])
    assert elbo < exact
    error = 4 * weights.std() / np.sqrt(count)
    assert elbo == pytest.approx(weights.mean(), abs=2 * error)


# What each part may see.


def test_the_background_knows_nothing_of_attributes() -> None:
    model, rows = ready(), batch()
    latents = [tf.ones([6, 1]), tf.ones([6, 1])]
    one, other = (model.paint(latents, rows["attributes"] + shift) for shift in (0.0, 1.0))
    np.testing.assert_array_equal(one["background"], other["background"])
    for name in ("image", "foreground", "gate_logits"):
        assert not np.allclose(one[name], other[name]), name


def test_posteriors_see_what_they_may() -> None:
    model, rows = ready(), batch()
    behind = {**rows, "image": rows["image"] + (1.0 - rows["mask"]) * 0.3}
    before = {**rows, "image": rows["image"] + rows["mask"] * 0.3}
    asked = {**rows, "attributes": rows["attributes"] + 1.0}
    means = [[z.numpy() for z in model.infer(r, None)[0]] for r in (rows, behind, before, asked)]
    np.testing.assert_array_equal(means[0][0], means[1][0])
    assert not np.allclose(means[0][1], means[1][1])
    for others in means[2:]:
        assert not np.allclose(means[0][0], others[0])
        assert not np.allclose(means[0][1], others[1])
    seeds = [tf.constant([5, n]) for n in (6, 7)]
    drawn = [model.infer(rows, seed)[1][1].mean().numpy() for seed in seeds]
    assert not np.allclose(*drawn)  # q(z_B|z_F,x,y) is given the draw of z_F


def test_without_layers_no_mask_is_needed() -> None:
    model, rows = ready(layered=False), batch()
    assert type(model) is attribute.AttributeCVAE
    assert model.needs == flags(layered=False).needs == ("image", "attributes")
    assert model.latent_dims == (2,)
    del rows["mask"]
    found = model.test_step(model.as_batch(rows))
    assert list(found) == ["loss", "elbo", "likelihood", "kl"]
    assert float(found["loss"]) == -float(found["elbo"])
    layered = attribute.build(flags(), spec())
    assert layered.needs == flags().needs == ("image", "attributes", "mask")
    with pytest.raises(ValueError, match="needs the batch keys .*'mask'"):
        layered.as_batch(rows)


# Attributes.


def test_adapt_keeps_limits_and_examples() -> None:
    model, rows = ready(), batch(50, 1)["attributes"].numpy()
    np.testing.assert_array_equal(model.lowest, rows.min(0))
    np.testing.assert_array_equal(model.highest, rows.max(0))
    drawn = model.draw_attributes(500, 3).numpy()
    assert {row.tobytes() for row in drawn} == {row.tobytes() for row in rows}
    scaled = model.scaled(rows).numpy()
    np.testing.assert_allclose(scaled.min(0), -1)
    np.testing.assert_allclose(scaled.max(0), 1)
    model.highest.assign(model.lowest)
    np.testing.assert_array_equal(model.scaled(rows), -np.ones_like(rows))


def test_an_attribute_moves_from_least_to_largest_and_nothing_else() -> None:
    model, latent = ready(), tf.constant([[0.5, -1.0], [1.0, 2.0]])
    attributes = batch(2)["attributes"]
    found = model.interpolate(latent, attributes, 1, 5).numpy()
    assert found.shape == (2, 5, *SHAPE)
    low, high = float(model.lowest[1]), float(model.highest[1])
    for column, a in enumerate((0, 0.25, 0.5, 0.75, 1)):
        y = attributes.numpy().copy()
        y[:, 1] = (1 - a) * low + a * high
        np.testing.assert_allclose(found[:, column], model.decode(latent, y), atol=1e-6)
    assert not np.allclose(found[:, 0], found[:, -1])


def test_samples_have_attributes_of_examples() -> None:
    model = ready()
    attributes = model.draw_attributes(7, 4)
    np.testing.assert_array_equal(model.sample(7, 4), model.generate(attributes, 4))
    latent = model.draw_latents(7, 4)
    np.testing.assert_array_equal(model.sample(7, 4), model.decode(latent, attributes))


def test_codes_are_of_both_layers() -> None:
    model, rows = ready(), batch()
    latents, _ = model.infer(rows, None)
    np.testing.assert_array_equal(model.encode(**rows), tf.concat(latents, -1))
    painted = model.paint(latents, rows["attributes"])["image"]
    rebuilt = model.decode(model.encode(**rows), rows["attributes"])
    np.testing.assert_array_equal(rebuilt, np.clip(painted, 0, 1))


def test_pictures_have_a_row_for_each_attribute() -> None:
    model, rows = ready(), batch()
    grids = model.pictures(rows, 3)
    assert grids["progressions"].shape == (ATTRIBUTES, 10, *SHAPE)
    usual = tf.reduce_mean(model.examples, 0, keepdims=True)
    latent = model.encode(**{key: value[:1] for key, value in rows.items()})
    second = model.interpolate(latent, usual, 1, 10)
    np.testing.assert_array_equal(grids["progressions"][1:2], second)
    assert grids["layers"].shape == (4, 8, *SHAPE)
    foreground, gate, background, image = grids["layers"]
    expected = np.clip(foreground + gate * background, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    assert "layers" not in ready(layered=False).pictures(rows, 3)


# Training.


def squares(count: int, seed: int) -> dict[str, np.ndarray]:
    """A square of 4x4 on 8x8, whose brightness is the attribute, upon any grey."""
    random = np.random.RandomState(seed)
    mask = np.zeros((count, 8, 8, 1), np.float32)
    mask[:, 2:6, 2:6] = 1
    level, grey = (random.uniform(0, 1, (count, 1, 1, 1)) for _ in range(2))
    image = np.float32(mask * level + (1 - mask) * grey)
    return {"image": image, "attributes": np.float32(level[:, 0, 0]), "mask": mask}


@pytest.mark.parametrize("layered", [True, False])
def test_learns_to_draw_what_is_asked_for(layered: bool) -> None:
    hp = flags(
        layered=layered, foreground_filters=(8,), foreground_units=16, background_units=16,
        sigma=0.1, learning_rate=1e-2, steps=300, steps_per_execution=50,
    )  # fmt: skip
    shapes = {"image": (8, 8, 1), "attributes": (1,), "mask": (8, 8, 1)}
    of_data = DataSpec("x", shapes, dict.fromkeys(shapes, "float32"), "unit", None, 1000, 9, 9)
    model = attribute.build(hp, of_data)
    data = tf.data.Dataset.from_tensor_slices(squares(1000, 0))
    model.adapt(data.batch(100))
    rows = model.run_steps(iter(data.shuffle(1000, seed=1).repeat().batch(50)), 300)
    assert rows[-1]["elbo"] > rows[0]["elbo"] + 10
    asked = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    images = model.generate(np.repeat(asked, 40)[:, np.newaxis], 5).numpy()
    inside = images[:, 3:5, 3:5].mean((1, 2, 3)).reshape(9, 40)
    # In tests: off by 0.02 on average, where asking for nothing is off by 0.22.
    assert np.abs(inside.mean(1) - asked).max() < 0.12
    if layered:
        assert rows[-1]["gate"] > -10  # -44 where it knows nothing
        latents = tf.split(model.draw_latents(1, 2), model.latent_dims, axis=-1)
        gate = tf.sigmoid(model.paint(latents, [[0.5]])["gate_logits"]).numpy()[0, ..., 0]
        np.testing.assert_array_equal(gate > 0.5, squares(1, 0)["mask"][0, ..., 0] < 0.5)


def test_collapse_is_named() -> None:
    model = ready()
    assert model.diagnose({"kl": 3.0, "kl_background": 2.0, "loss": 0.0}) == {}
    found = model.diagnose({"kl": 3.0, "kl_background": 0.02})
    assert found == {"posterior collapse": "kl_background 0.02 nats, below 0.1"}
    assert "kl 0.01, kl_background 0.01" in str(model.diagnose({"kl": 0.01, "kl_background": 0.01}))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_without_layers_it_is_saved_and_trains_in_any_precision(precision: str, tmp_path) -> None:
    keras.config.set_dtype_policy(precision)
    model, rows = ready(layered=False), batch()
    del rows["mask"]
    found = model.run_steps(iter(tf.data.Dataset.from_tensors(rows).repeat()), 3)
    assert all(np.isfinite(value) for row in found for value in row.values())
    assert model.sample(2, 0).dtype == tf.float32
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert type(twin) is attribute.AttributeCVAE
    assert json.dumps(twin.get_config()) == json.dumps(model.get_config())  # without tuples
    np.testing.assert_array_equal(twin.sample(4, 7), model.sample(4, 7))


# Bad input.


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"sigma": 0.0}, "--sigma must be more than 0. Received: --sigma=0.0"),
        ({"gate_weight": -1.0}, "--gate_weight must be 0 or more. Received: --gate_weight=-1.0"),
        ({"foreground_dim": 0}, "--foreground_dim must be more than 0"),
        ({"background_filters": (8, 0)}, "--background_filters must be more than 0"),
    ],
)
def test_wrong_flags_are_named(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        flags(**wrong)


def test_wrong_networks_are_named() -> None:
    right = {
        "encoder": encoder(SHAPE, [3], (4,), 5, 2),
        "decoder": decoder([2, 3], (4, 4, 2), (4,), 5),
        "background_encoder": encoder(SHAPE, [3, 2], (4,), 5, 1),
        "background_decoder": decoder([1], SHAPE, (4,), 5),
    }
    attribute.DisCVAE(**right)
    with pytest.raises(ValueError, match="given images and attributes. Received: 1 inputs"):
        attribute.DisCVAE(**{**right, "encoder": mlp(SHAPE, (4,), (4,))})
    message = (
        r"decoder must map inputs of shapes \[\(2,\), \(3,\)\] to \(4, 4, 2\). "
        r"Received: \[\(2,\), \(3,\)\] to \(4, 4, 1\)"
    )
    without_gate = decoder([2, 3], SHAPE, (4,), 5)
    with pytest.raises(ValueError, match=message):
        attribute.DisCVAE(**{**right, "decoder": without_gate})
    attribute.AttributeCVAE(right["encoder"], without_gate)
    wrong = encoder(SHAPE, [3], (4,), 5, 1, name="background_encoder")
    with pytest.raises(ValueError, match=r"background_encoder must .*Received: .* to \(2,\)"):
        attribute.DisCVAE(**{**right, "background_encoder": wrong})
    with pytest.raises(ValueError, match="sigma must be more than 0. Received: -1"):
        attribute.DisCVAE(**right, sigma=-1)


def test_sides_that_cannot_be_halved_are_named() -> None:
    with pytest.raises(ValueError, match="images of 4x4, filters .8, 8, 8.. Set --foreground_fil"):
        attribute.build(flags(foreground_filters=(8, 8, 8)), spec())
