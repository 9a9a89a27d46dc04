"""What every system answers; discovered, so that a new system needs no entry here.

A system is tried with its first config whose data needs no files, made small by
configs/common/smoke.cfg.
"""

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import ordering
from tfgen import commands, data, export, hparams, listing, run, sample
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.layers.spectral_normalization import SpectralNormalization
from tfgen.layers.virtual_batch_normalization import ReferenceBatch
from tfgen.metrics.images import to_bytes
from tfgen.metrics.measure import Settings
from tfgen.models.gan import gan
from tfgen.training import checkpoint, strategies
from tfgen.training.model import GenerativeModel

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 6  # In the last stage of a training that has several.
RANGES = {"unit": (0, 1), "binary": (0, 1), "symmetric": (-1, 1), "uint8": (0, 255)}


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No options."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One system, ready to be tried."""

    name: str
    hparams: hparams.HParams
    data: data.Data

    def build(self, strategy=None):
        strategy = strategy or tf.distribute.get_strategy()
        with strategy.scope():
            model = hparams.load_system(self.name).build(self.hparams, self.data.spec)
            model.adapt(self.data.batches("train", 200, limit=200))
        return model

    def stream(self, start_step=0):
        seed = self.hparams.seed
        return iter(self.data.train(self.hparams.batch_size, seed=seed, start_step=start_step))

    def batch(self, size=8):
        return next(iter(self.data.batches("validation", size)))


def configs_without_files(name):
    """Parsed configs of a system whose data is made in code or comes along."""
    found = []
    for path in listing.configs_by_system(ROOT / "configs").get(name, []):
        flagfiles = [f"--flagfile={path}", f"--flagfile={ROOT}/configs/common/smoke.cfg"]
        hp = hparams.parse(["", *flagfiles], Nothing)[1]
        if hp.data in data.names() and not hp.data.endswith("_mnist"):
            found.append(hp)
    return found


@functools.cache
def make_case(name, data_dir):
    hp = configs_without_files(name)[0]
    return Case(name, hp, commands.load_data(hp, data_dir, "skip"))


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=hparams.systems())
def case(request, digits_dir):
    return make_case(request.param, digits_dir)


trained: dict[str, tuple[GenerativeModel, list]] = {}


@pytest.fixture
def model(case):
    """One model for each system, trained for some steps; tests leave it as it is."""
    if case.name not in trained:
        new = case.build()
        before = [np.array(v.numpy()) for v in new.trainable_variables]
        steps = max((0, *new.stage_starts())) + STEPS
        rows: list = []
        graphs = ordering.graphs_of(lambda: rows.extend(new.run_steps(case.stream(), steps)))
        trained[case.name] = new, [before, rows, graphs]
    return trained[case.name][0]


# The tricks of Salimans et al. 2016, a penalty and spectral normalisation, in every system that
# derives from the GAN: name -> flags.
TRICKS = {
    "feature_matching": {"feature_matching_layer": ""},  # some layer of D
    "historical_averaging": {"historical_average_weight": 0.1},
    "label_smoothing": {"positive_label": 0.9},
    "minibatch_discrimination": {"minibatch_kernels": 2},
    "penalty": {"penalty": "r1"},  # and no batch norm in D
    "spectral_normalization": {"discriminator_norm": "spectral"},
    "virtual_batch_norm": {"norm": "virtual", "reference_size": 4},
}
# What cannot be: losses without labels, one example's gradient, features matched otherwise, real
# and fake examples in one batch.
REFUSED = {
    ("gan.began", "label_smoothing"),
    ("gan.began", "penalty"),
    ("gan.began", "spectral_normalization"),
    ("gan.ebgan", "label_smoothing"),
    ("gan.ebgan", "penalty"),
    ("gan.improved", "spectral_normalization"),
    ("gan.unrolled", "penalty"),
    ("gan.wgan", "label_smoothing"),
    ("gan.wgan_gp", "label_smoothing"),
    ("gan.wgan_gp", "minibatch_discrimination"),
    ("vae.vae_gan", "feature_matching"),
    ("vae.vae_gan", "minibatch_discrimination"),
}
GAMES = [
    name for name in hparams.systems() if issubclass(hparams.load_system(name).HParams, gan.HParams)
]


def state(model):
    return {name: np.array(v.numpy()) for name, v in model.state_variables().items()}


def assert_equal(a, b):
    """Two nests of arrays are equal to the bit."""
    tf.nest.map_structure(
        lambda x, y: np.testing.assert_array_equal(np.array(x), np.array(y)), a, b
    )


# Around the code.


@pytest.mark.parametrize("name", hparams.systems())
def test_has_a_config_without_files_and_a_test(name):
    assert configs_without_files(name), f"{name} needs a config whose data needs no download"
    family, system = name.split(".")
    assert (ROOT / "tests" / "models" / family / f"test_{system}.py").is_file()


@pytest.mark.parametrize("name", hparams.systems())
def test_docstring_names_the_paper_and_the_differences(name):
    doc = hparams.load_system(name).__doc__
    assert "\nReference:" in doc
    assert "\nDiffers from the paper:\n  * " in doc
    assert listing.paper(name)


@pytest.mark.parametrize("name", hparams.systems())
def test_hparams_are_frozen_and_typed(name):
    cls = hparams.load_system(name).HParams
    assert issubclass(cls, hparams.HParams)
    assert cls.__dataclass_params__.frozen
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().seed = 1
    assert not {f.name for f in dataclasses.fields(cls)} - set(hparams.field_help(cls))


# The contract.


def test_build(case, model):
    assert isinstance(model, GenerativeModel)
    assert tuple(model.needs) == tuple(case.hparams.needs)
    assert set(model.needs) <= set(case.data.spec.shapes)
    assert model.evaluations
    for name in model.evaluations:
        module, function = name.split(".")
        assert callable(getattr(importlib.import_module(f"tfgen.metrics.{module}"), function))


def test_training_moves_every_variable_and_logs_finite_numbers(case, model):
    before, rows, _ = trained[case.name][1]
    assert len(rows) >= STEPS
    assert rows[0]
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.isfinite(variable.numpy()).all(), variable.path
        assert not np.array_equal(variable.numpy(), old), f"{variable.path} got no gradient"
    assert int(model.step.numpy()) == len(rows)


def test_every_variable_is_read_before_it_moves(case, model):
    graphs = trained[case.name][1][2]
    assert any("Assign" in node.op for graph in graphs for node in graph.node)
    assert [pair for graph in graphs for pair in ordering.unordered(graph)] == []


def test_every_sum_has_one_order(case, model):
    graphs = trained[case.name][1][2]
    assert [name for graph in graphs for name in ordering.sums_by_chance(graph)] == []


def test_every_variable_has_one_optimiser(model):
    owned = [v.path for variables in model.players().values() for v in variables]
    assert sorted(owned) == sorted(v.path for v in model.trainable_variables)
    assert set(model.optimizers) == set(model.players())


def test_its_summary_is_that_of_a_dry_run(case, model):
    lines = []
    model.summary(expand_nested=True, print_fn=lines.append)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert f" Trainable params: {trained:,} " in "\n".join(lines)


def test_diagnoses_its_own_logs(case, model):
    *_, last = rows = trained[case.name][1][1]
    rows = [row for row in rows if row.keys() == last.keys()]  # of the last stage
    means = {name: float(np.mean([row[name] for row in rows])) for name in last}
    for finding, numbers in model.diagnose(means).items():
        assert finding
        assert numbers
    if isinstance(model, gan.GAN):
        assert "mode collapse" in model.diagnose({**means, "spread": 0.01})
        assert "mode collapse" not in model.diagnose({**means, "spread": 1.0})


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("name", GAMES)
def test_trains_with_a_trick_or_names_its_flag(name, trick, digits_dir):
    case, flags = make_case(name, digits_dir), dict(TRICKS[trick])
    flag = next(iter(flags))
    if flag == "feature_matching_layer":
        layers = hparams.load_system(name).build(case.hparams, case.data.spec).discriminator.layers
        flags[flag] = next(x.name for x in layers if x.name in ("features", "code"))
    if (name, trick) in REFUSED:
        with pytest.raises(ValueError, match=flag) as refusal:
            dataclasses.replace(case.hparams, **flags)
        assert "\n" not in str(refusal.value)
        return
    if trick == "penalty":
        flags["discriminator_norm"] = "none"
    own = dataclasses.replace(case.hparams, **flags)
    model = dataclasses.replace(case, hparams=own).build()
    logs = model.train_step(next(case.stream()))
    assert all(np.isfinite(value) for value in logs.values())
    layers = {type(x) for x in model._flatten_layers()}
    assert {
        "feature_matching": "feature_distance" in logs,
        "historical_averaging": {f"{p}_past_distance" for p in model.players()} <= set(logs),
        "label_smoothing": model.positive_label == 0.9,
        "minibatch_discrimination": MinibatchDiscrimination in layers,
        "penalty": "penalty" in logs,
        "spectral_normalization": SpectralNormalization in layers,
        "virtual_batch_norm": ReferenceBatch in layers,
    }[trick]
    if trick == "historical_averaging":
        for player, variables in model.players().items():
            watched = [mean.shape for mean in model.past[player].means]
            assert watched == [v.shape for v in variables], player
    if trick == "minibatch_discrimination":
        assert np.isfinite(model.score(case.batch(1)["image"])).all()
        alone = case.data.batches("validation", 1, limit=1)
        logs = model.evaluate(alone, verbose=0, return_dict=True)
        assert all(np.isfinite(value) for value in logs.values())


@pytest.mark.parametrize("name", GAMES)
def test_only_the_player_whose_loss_it_is_moves(name, digits_dir):
    case = make_case(name, digits_dir)
    model = case.build()
    batch = next(case.stream())
    moved = []
    for player in model.players():
        loss_of = getattr(model, f"{player}_loss", None)
        if loss_of is None or (name, player) == ("vae.vae_gan", "generator"):
            continue  # which moves with the encoder alone
        before = {v.path: v.numpy() for v in model.trainable_variables}
        model.move(player, loss_of, batch)
        changed = {
            v.path
            for v in model.trainable_variables
            if not np.array_equal(v.numpy(), before[v.path])
        }
        assert changed == {v.path for v in model.players()[player]}, player
        moved.append(player)
    assert "discriminator" in moved


def test_players_move_as_often_as_the_model_says(case, model):
    """The step size's schedule counts on it; a player that may stand still moves no more often."""
    if not isinstance(model, gan.GAN):
        pytest.skip("has one player, or stages")
    steps = int(model.step.numpy())
    for player, optimizer in model.optimizers.items():
        moves, said = int(optimizer.iterations), model.updates(player, steps)
        assert 0 < moves <= said
        if not model.moves({"cost_real": 0.0, "cost_fake": 0.0}):
            assert moves == said, player


# Posterior x prior x likelihood x bound, by flagfile alone or with flags: of VAEs, any with any.
COMBINATIONS = [
    ("iwae_iaf_digits", {}),
    ("af_prior_pixelcnn_digits", {}),
    (
        "iwae_digits",
        {"prior": "maf", "likelihood": "discretized_logistic", "flow_hidden_units": (60,)},
    ),
    ("iaf_digits", {"prior": "maf", "k": 3, "free_bits": 0.1}),
    ("vae_digits", {"likelihood": "logistic_mixture", "binarize": "none", "kl_warmup_steps": 5}),
    ("cvae_digits", {"importance_weighted": True, "k": 3, "posterior": "iaf"}),
    ("draw_digits", {"importance_weighted": True, "k": 3, "kl_warmup_steps": 5}),
    ("iaf_digits", {"importance_weighted": True, "k": 3, "free_bits": 0.1}),
]


@pytest.mark.parametrize(("name", "flags"), COMBINATIONS)
def test_a_combination_trains_saves_and_samples(name, flags, digits_dir, tmp_path):
    flagfiles = [f"--flagfile={ROOT}/configs/{f}.cfg" for f in (name, "common/smoke")]
    system, hp, _ = hparams.parse(["", *flagfiles], Nothing)
    hp = dataclasses.replace(hp, **{"analytic_kl": False, **flags})
    case = Case(system, hp, commands.load_data(hp, digits_dir, "skip"))
    model = case.build()
    steps = max((0, *model.stage_starts())) + 3
    rows = model.run_steps(case.stream(), steps)
    assert len(rows) == steps
    assert all(np.isfinite(value) for row in rows for value in row.values())
    # The logarithm of the mean of k weights lies above the mean of their logarithms (Jensen).
    logs = model.evaluate(case.data.batches("validation", 8, limit=8), verbose=0, return_dict=True)
    assert (-logs["loss"] > logs["elbo"] + 1e-3) == (hp.importance_weighted and hp.k > 1)
    assert np.isfinite(model.log_prob(case.batch(2)["image"], seed=0, k=2)).all()
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(twin.sample(2, 7), model.sample(2, 7))


def test_test_step_changes_nothing(case, model):
    before = state(model)
    logs = model.evaluate(case.data.batches("validation", 8, limit=20), verbose=0, return_dict=True)
    assert logs
    assert all(np.isfinite(value) for value in logs.values())
    assert_equal(state(model), before)


def test_sample(case, model, tmp_path):
    images, again, other = (model.sample(5, seed).numpy() for seed in (0, 0, 1))
    assert_equal(images, again)
    assert not np.array_equal(images, other)
    if "image" in model.needs:
        low, high = RANGES[case.data.spec.image_range]
        assert images.shape == (5, *case.data.spec.image_shape)
        assert images.dtype == np.float32
        assert images.min() >= low
        assert images.max() <= high
    sample.save_random(model, 5, 0, tmp_path, case.data.spec.image_range)
    (written,) = run.read_arrays(tmp_path / "random-seed0.npz").values()
    if model.needs == ("point",):
        np.testing.assert_array_equal(written, images)
    else:
        expected = to_bytes(images, case.data.spec.image_range)
        np.testing.assert_allclose(255 * written, expected, atol=0.51)
        with Image.open(tmp_path / "random-seed0.png") as picture:
            levels = set(np.asarray(picture).ravel())
        assert levels >= set(expected[:4].ravel())  # all grey levels, none clipped


def test_pictures(case, model):
    grids, again = (model.pictures(case.batch(), seed=3) for _ in range(2))
    assert grids
    assert_equal(grids, again)
    for name, grid in grids.items():
        assert isinstance(grid, np.ndarray), name
        assert grid.ndim == 5, name
        assert grid.shape[-1] in (1, 3), name
        assert grid.min() >= 0, name
        assert grid.max() <= 1, name
    moving, again = (model.animations(case.batch(), seed=3) for _ in range(2))
    assert_equal(moving, again)
    assert not moving.keys() & grids.keys()
    for name, frames in moving.items():
        assert isinstance(frames, np.ndarray), name
        assert frames.ndim == 6, name
        assert 0 <= frames.min() <= frames.max() <= 1, name


def example(spec, size):
    shape = [size if side is None else side for side in spec.shape]
    return tf.cast(tf.fill(shape, 2), spec.dtype) if spec.dtype.is_integer else tf.zeros(shape)


def test_signatures(model):
    endpoints = model.signatures()
    assert "sample" in endpoints
    for name, (function, specs) in endpoints.items():
        concrete = tf.function(function).get_concrete_function(**specs)
        for size in (1, 3):
            inputs = {key: example(spec, size) for key, spec in specs.items()}
            for output in tf.nest.flatten(concrete(**inputs)):
                assert np.isfinite(output.numpy()).all(), name


def test_exported_it_answers_alike(model, tmp_path):
    export.save(model, tmp_path / "export")
    served = tf.saved_model.load(str(tmp_path / "export"))
    for name, (function, specs) in model.signatures().items():
        inputs = {key: example(spec, 3) for key, spec in specs.items()}
        expected = tf.nest.flatten(tf.function(function)(**inputs))
        answers = served.signatures[name](**inputs)
        assert len(answers) == len(expected)
        for answer, right in zip(answers.values(), expected, strict=True):
            np.testing.assert_allclose(answer, right, rtol=1e-3, atol=1e-4, err_msg=name)


def test_config_round_trip(model):
    config = model.get_config()
    named = inspect.signature(type(model).__init__).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert {p.name for p in named if p.kind not in kinds} - {"self"} <= set(config)
    twin = type(model).from_config(config)
    assert twin.get_config() == config
    assert [v.shape for v in twin.variables] == [v.shape for v in model.variables]


def test_keras_file_round_trip(model, tmp_path):
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    assert type(twin) is type(model)
    assert_equal(twin.sample(4, 7), model.sample(4, 7))
    # JSON has no tuples.
    assert json.dumps(twin.get_config()) == json.dumps(model.get_config())


def test_restored_from_a_checkpoint_it_goes_on_alike(case, tmp_path):
    first = case.build()
    first.run_steps(case.stream(), 3)
    checkpoint.save(tmp_path, first, {}, keep=1)
    second = case.build()
    checkpoint.restore(tmp_path, second)
    assert_equal(state(second), state(first))
    assert_equal(second.sample(4, 7), first.sample(4, 7))
    rows = [m.run_steps(case.stream(start_step=3), 2) for m in (first, second)]
    assert rows[0] == rows[1]
    assert_equal(state(second), state(first))


def test_every_evaluation_measures_finite_numbers(case, model):
    few = Settings(limit=40, k=4, num_samples=48, features="random")
    for name in model.evaluations:
        module, function = name.split(".")
        evaluate = getattr(importlib.import_module(f"tfgen.metrics.{module}"), function)
        for measure, found in evaluate(model, case.data, few).items():
            assert np.isfinite(found.value), measure
            assert found.note, measure


@pytest.mark.slow
def test_compiled_by_xla(case):
    compiled = dataclasses.replace(case, hparams=dataclasses.replace(case.hparams, jit=True))
    model = compiled.build()
    steps = max((0, *model.stage_starts())) + 2
    rows = model.run_steps(compiled.stream(), steps)
    assert len(rows) == steps
    assert all(np.isfinite(value) for row in rows for value in row.values())


def test_two_replicas_train(case):
    strategy = strategies.make("mirrored", devices=2)
    model = case.build(strategy)
    seed, size = case.hparams.seed, case.hparams.batch_size // 2
    with strategy.scope():
        stream = strategy.distribute_datasets_from_function(
            lambda context: case.data.train(size, seed=seed, replicas=2)
        )
        rows = model.run_steps(iter(stream), 3)
    assert all(np.isfinite(value) for row in rows for value in row.values())
    for variable in model.variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(np.array(first), np.array(second), err_msg=variable.path)
