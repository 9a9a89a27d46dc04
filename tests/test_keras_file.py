"""`.keras` files of the VAE family: what is loaded is what was saved, networks and all."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from tests import tiny_run
from tests.training import runs
from tfgen import commands, run
from tfgen.models.vae import iwae, vae

LAYERS = {
    1: {"latent_dims": (3,), "hidden_units": (8,)},
    2: {"latent_dims": (4, 3), "hidden_units": (8, 6)},
}
# Every argument at another value than its default.
ARGUMENTS = {
    vae.VAE: {
        "k": 4,
        "importance_weighted": True,
        "likelihood": "gaussian",
        "analytic_kl": False,
        "kl_weight": 0.5,
        "kl_warmup_steps": 7,
    },
    iwae.IWAE: {
        "k": 4,
        "likelihood": "gaussian",
        "dreg": True,
        "kl_weight": 0.5,
        "kl_warmup_steps": 7,
    },
}


def make(cls, layers):
    networks = vae.networks(tiny_run.SHAPE, vae.HParams(likelihood="gaussian", **LAYERS[layers]))
    model = cls(*networks, name="mine", **ARGUMENTS[cls])
    for index, variable in enumerate(model.variables):
        variable.assign(variable + 0.01 * (index + 1))
    return model


def same(one, two):
    assert type(one) is type(two)
    assert json.dumps(one.get_config()) == json.dumps(two.get_config())
    assert [v.name for v in one.variables] == [v.name for v in two.variables]
    for mine, other in zip(one.variables, two.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), other.numpy())
        assert mine.trainable == other.trainable


@pytest.mark.parametrize("cls", [vae.VAE, iwae.IWAE])
@pytest.mark.parametrize("layers", [1, 2])
class TestRoundTrip:
    def test_file(self, tmp_path, cls, layers):
        model = make(cls, layers)
        model.compile("adam", seed=3)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        same(model, loaded)
        for name, value in {**ARGUMENTS[cls], "name": "mine"}.items():
            assert loaded.get_config()[name] == value
        image = tiny_run.images(2)
        np.testing.assert_array_equal(model.sample(5, 1), loaded.sample(5, 1))
        np.testing.assert_array_equal(model.log_prob(image, 1, k=3), loaded.log_prob(image, 1, k=3))
        for mine, other in zip(
            model.infer(image, 2, [1, 2]).latents,
            loaded.infer(image, 2, [1, 2]).latents,
            strict=True,
        ):
            np.testing.assert_array_equal(mine, other)

    def test_config(self, cls, layers):
        model = make(cls, layers)
        config = json.loads(json.dumps(model.get_config()))
        again = cls.from_config(config)
        assert json.dumps(again.get_config()) == json.dumps(model.get_config())
        assert [v.shape for v in again.variables] == [v.shape for v in model.variables]
        assert len(again.encoders) == len(again.decoders) == layers
        assert {id(v) for v in again.variables}.isdisjoint(id(v) for v in model.variables)
        assert json.loads(json.dumps(model.get_config())) == config  # from_config left it alone


@pytest.mark.parametrize("cls", [vae.VAE, iwae.IWAE])
def test_a_config_from_before_the_importance_weighted_bound_was_a_setting(cls):
    model = make(cls, 1)
    config = model.get_config()
    assert config.pop("importance_weighted", None) == (True if cls is vae.VAE else None)
    assert cls.from_config(config).importance_weighted == (cls is iwae.IWAE)


def test_a_loaded_model_trains_on(tmp_path):
    model = make(iwae.IWAE, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for each in (model, loaded):
        each.compile("adam", seed=3)
        each.step.assign(3)  # At step 0 the warm-up leaves the prior's networks alone.
        each.train_step({"image": tiny_run.images(4)})
    same(model, loaded)
    before = make(iwae.IWAE, 2).variables
    assert not any(np.array_equal(v, w) for v, w in zip(loaded.variables, before, strict=True))


def test_networks_of_the_user(tmp_path):
    """A functional graph with a skip connection and batch statistics."""
    images = keras.Input(tiny_run.SHAPE)
    hidden = keras.layers.Dense(6, "tanh", name="first")(keras.layers.Flatten()(images))
    more = keras.layers.BatchNormalization(name="normal")(hidden)
    both = keras.layers.Concatenate()([hidden, more])
    encoder = keras.Model(images, keras.layers.Dense(4)(both), name="my_encoder")
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(64), keras.layers.Reshape(tiny_run.SHAPE)]
    )
    model = vae.VAE(encoder, decoder)
    model.compile("adam")
    model.train_step({"image": tiny_run.images(4)})
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    same(model, loaded)
    assert loaded.encoders[0].name == "my_encoder"
    image = tiny_run.images(3)
    np.testing.assert_array_equal(model.encode(image), loaded.encode(image))
    assert len(loaded.non_trainable_variables) == 2
    moved = loaded.encoders[0].get_layer("normal").moving_mean
    assert np.abs(moved).max() > 0


def test_a_run_in_mixed_precision_leaves_a_file_in_float32(tmp_path, digits_dir):
    flags = (
        "--system=vae.vae", "--latent_dims=2", "--hidden_units=4", "--steps=2",
        "--precision=mixed_bfloat16", f"--data_dir={digits_dir}",
    )  # fmt: skip
    assert runs.train_here(tmp_path / "run", *flags) == 0
    run_dir = run.RunDir(tmp_path / "run")
    loaded = keras.saving.load_model(run_dir.keras, safe_mode=True)
    model = commands.load_run(run_dir)[-1]
    assert loaded.encoders[0].dtype_policy.name == "float32"
    np.testing.assert_array_equal(loaded.sample(4, 1), model.sample(4, 1))


def test_a_file_holds_no_optimisers(tmp_path):
    """Keras would write Adam's moments beside the weights, twice as many numbers again."""
    model = make(iwae.IWAE, 1)
    model.compile(keras.optimizers.Adam(1e-3))
    optimizers = dict(model.optimizers)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        sizes = []
        file.visititems(lambda _, x: sizes.append(x.size) if isinstance(x, h5py.Dataset) else None)
    weights = sum(int(np.prod(v.shape)) for v in model.variables)
    assert sum(sizes) == weights + 1  # and the step
    # And the model trains on.
    assert model.optimizers == optimizers
    assert model.optimizer is next(iter(optimizers.values()))
