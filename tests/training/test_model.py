"""The base model: players, noise, clipping, moving averages, `fit`, precision, jit."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.toys import Line, Tug, Waiting, batches, line_data, values
from tfgen.training import optimizers
from tfgen.training.model import GenerativeModel, RunningMeans


def run(model: GenerativeModel, data: dict[str, np.ndarray], steps: int, size: int = 8):
    return model.run_steps(iter(batches(data, size, repeat=True)), steps)


# Players.


def test_every_variable_has_one_optimiser():
    model = Tug()
    model.compile(low="sgd", high=keras.optimizers.Adam(1e-2))
    assert list(model.optimizers) == ["low", "high"]
    assert isinstance(model.optimizers["high"], keras.optimizers.Adam)
    assert all(optimizer.built for optimizer in model.optimizers.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": "sgd"}, r"one optimiser for each player \['high', 'low'\].*Received: \['low'\]"),
        ({"low": "sgd", "hihg": "sgd"}, r"Received: \['hihg', 'low'\]"),
        ({}, r"Received: \[\]"),
    ],
)
def test_wrong_players_in_compile(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tug().compile(**arguments)


def test_one_player_takes_no_other_names():
    with pytest.raises(ValueError, match=r"player \['model'\]\. Received: \['critic', 'model'\]"):
        Line().compile("sgd", critic="sgd")


@pytest.mark.parametrize(
    ("players", "message"),
    [
        (lambda m: {"low": m.low.trainable_variables, "high": []}, "high/.* belongs to none"),
        (
            lambda m: {"low": m.trainable_variables, "high": m.high.trainable_variables},
            r"high/.* belongs to \['low', 'high'\]",
        ),
    ],
)
def test_a_variable_of_no_or_two_players(players, message):
    class Wrong(Tug):
        def players(self):
            return players(self)

    with pytest.raises(ValueError, match=message):
        Wrong().compile(low="sgd", high="sgd")


def test_networks_must_be_built():
    class Unbuilt(Line):
        def __init__(self):
            super().__init__()
            self.line = keras.Sequential([keras.layers.Dense(1)], name="late")

    with pytest.raises(ValueError, match=r"needs built networks\. Received: late.*keras\.Input"):
        Unbuilt().compile("sgd")


@pytest.mark.parametrize("mover", ["low", "high"])
def test_only_the_intended_player_moves(mover):
    model = Tug(moves=(mover,))
    model.compile(low=keras.optimizers.SGD(0.1), high=keras.optimizers.SGD(0.1))
    before = {player: values(v) for player, v in model.players().items()}
    run(model, line_data(16), 2)
    for player, variables in model.players().items():
        for old, new in zip(before[player], values(variables), strict=True):
            assert np.array_equal(old, new) == (player != mover)
    steps = {player: int(o.iterations.numpy()) for player, o in model.optimizers.items()}
    assert steps == {"low": 2 * (mover == "low"), "high": 2 * (mover == "high")}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("optimizer", [keras.optimizers.RMSprop, optimizers.Adam])
def test_a_player_that_waits_stays_and_so_does_its_optimiser(optimizer, jit):
    model = Waiting()
    model.compile(low=optimizer(0.1), high=optimizer(0.1), jit_compile=jit)
    everything = [
        values([*variables, *model.optimizers[player].variables])
        for player, variables in model.players().items()
    ]
    moved = []
    for _ in range(4):
        run(model, line_data(16), 1)
        before, everything = everything, [
            values([*variables, *model.optimizers[player].variables])
            for player, variables in model.players().items()
        ]  # fmt: skip
        moved.append(
            [
                [not np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
                for old, new in zip(before, everything, strict=True)
            ]
        )
    assert [any(low) for low, _ in moved] == [True, False, True, False]
    assert all(any(high) for _, high in moved)
    assert {p: int(o.iterations) for p, o in model.optimizers.items()} == {"low": 2, "high": 4}


def test_the_players_pull_apart():
    model = Tug()
    model.compile(low=keras.optimizers.SGD(0.0), high=keras.optimizers.SGD(0.1))
    logs = run(model, line_data(16), 20)
    assert logs[-1]["low"] > 2 * logs[0]["low"]  # `high` maximises what `low` minimises
    assert all(row["low"] == -row["high"] for row in logs)


# Noise.


def noise(model, step, salt=0, phase=0):
    with model._noise_of(phase, tf.constant(step, tf.int64)):
        return tuple(model.noise_seed(salt).numpy())


def test_noise_is_a_function_of_seed_step_salt_and_phase():
    model, twin, other = Line(), Line(), Line()
    model.compile("sgd", seed=1)
    twin.compile("sgd", seed=1)
    other.compile("sgd", seed=2)
    keys = [(step, salt, phase) for step in range(5) for salt in (0, 1, 7) for phase in (0, 1)]
    drawn = [noise(m, *key) for m in (model, other) for key in keys]
    assert len(set(drawn)) == 2 * len(keys)
    assert [noise(twin, *key) for key in keys] == drawn[: len(keys)]


def test_noise_of_a_step_does_not_depend_on_the_execution():
    data = line_data(64)
    logs = []
    for executions in ([6], [1, 2, 3]):
        model = Line()
        model.compile("sgd", seed=3)
        iterator = iter(batches(data, 8, repeat=True))
        logs.append([row for n in executions for row in model.run_steps(iterator, n)])
    assert logs[0] == logs[1]
    assert len({row["noise"] for row in logs[0]}) == 6


def test_the_current_step_in_test_step_is_the_training_step():
    class Clock(Line):
        def logs(self, loss, batch):
            return {"step": tf.cast(self.current_step, tf.float32)}

    model = Clock()
    model.compile("sgd")
    rows = run(model, line_data(16), 3)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert model.evaluate(batches(line_data(24), 8), verbose=0, return_dict=True) == {"step": 3.0}


# Clipping and moving averages.


@pytest.mark.parametrize("clip_norm", [None, 0.5, 1e6])
def test_clipping_to_a_global_norm(clip_norm):
    data = line_data(8)
    model = Line()
    model.compile(keras.optimizers.SGD(1.0), clip_norm=clip_norm)
    before = values(model.trainable_variables)
    with tf.GradientTape() as tape:
        loss = model.loss_of(data, training=True)
    gradients = values(map(tf.convert_to_tensor, tape.gradient(loss, model.trainable_variables)))
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > 0.5
    scale = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    run(model, data, 1)
    for old, new, gradient in zip(
        before, values(model.trainable_variables), gradients, strict=True
    ):
        np.testing.assert_allclose(new, old - scale * gradient, atol=1e-5)


def test_each_player_is_clipped_by_itself():
    model = Tug()
    model.compile(low=keras.optimizers.SGD(1.0), high=keras.optimizers.SGD(0.0), clip_norm=0.1)
    before = values(model.low.trainable_variables)
    run(model, line_data(8), 1)
    after = values(model.low.trainable_variables)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)))
    assert moved == pytest.approx(0.1, abs=1e-5)


def test_moving_averages_follow_their_formula():
    model = Line()
    model.compile(keras.optimizers.SGD(0.1), ema_decay=0.9)
    expected = values(model.trainable_variables)
    iterator = iter(batches(line_data(64), 8, repeat=True))
    for steps in (1, 1, 1):
        model.run_steps(iterator, steps)
        live = values(model.trainable_variables)
        expected = [0.9 * e + 0.1 * v for e, v in zip(expected, live, strict=True)]
        for average, value in zip(model.averages, expected, strict=True):
            np.testing.assert_allclose(average.numpy(), value, rtol=1e-6, atol=1e-7)
    with model.averaged_weights():
        for variable, value in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), value, rtol=1e-6, atol=1e-7)
    with contextlib.suppress(RuntimeError), model.averaged_weights():
        raise RuntimeError
    for variable, value in zip(model.trainable_variables, live, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_without_averages_the_live_weights_stay():
    model = Line()
    model.compile("sgd")
    before = values(model.variables)
    with model.averaged_weights():
        for old, new in zip(before, values(model.variables), strict=True):
            np.testing.assert_array_equal(old, new)


# Keras' own commands.


def test_test_step_changes_nothing():
    model = Line()
    model.compile("adam", ema_decay=0.9)
    run(model, line_data(16), 3)
    before = {name: np.array(v.numpy()) for name, v in model.state_variables().items()}
    model.evaluate(batches(line_data(20), 8), verbose=0)
    for name, variable in model.state_variables().items():
        np.testing.assert_array_equal(variable.numpy(), before[name], err_msg=name)


def as_arrays(data):
    return {"x": data["x"], "y": data["y"], "batch_size": 8}


def as_dict_of_arrays(data):
    return {"x": dict(data), "batch_size": 8}


def as_dataset_of_dicts(data):
    return {"x": batches(data, 8)}


def as_dataset_of_pairs(data):
    return {"x": tf.data.Dataset.from_tensor_slices((data["x"], data["y"])).batch(8)}


@pytest.mark.parametrize(
    "arguments", [as_arrays, as_dict_of_arrays, as_dataset_of_dicts, as_dataset_of_pairs]
)
def test_fit_takes_what_keras_takes(arguments):
    data = line_data(32)
    model, reference = Line(), Line()
    model.compile(keras.optimizers.SGD(0.05))
    reference.compile(keras.optimizers.SGD(0.05))
    history = model.fit(**arguments(data), epochs=2, shuffle=False, verbose=0)
    rows = run(reference, data, 8)
    expected = [np.mean([row["loss"] for row in rows[at : at + 4]]) for at in (0, 4)]
    np.testing.assert_allclose(history.history["loss"], expected, rtol=1e-6)
    for a, b in zip(model.variables, reference.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("steps_per_execution", [1, 3, 5, 100])
def test_history_is_the_mean_over_the_epoch(steps_per_execution):
    # 7 batches an epoch: 3 and 5 do not divide them, 100 is more than there are.
    data, validation = line_data(56), line_data(20, seed=1)
    model, reference = Line(), Line()
    model.compile(keras.optimizers.SGD(0.05), steps_per_execution=steps_per_execution)
    reference.compile(keras.optimizers.SGD(0.05))
    history = model.fit(
        batches(data, 8), validation_data=batches(validation, 8), epochs=2, verbose=0
    ).history
    expected = {"loss": [], "val_loss": [], "val_noise": []}
    for _ in range(2):
        rows = run(reference, data, 7)
        expected["loss"].append(np.mean([row["loss"] for row in rows]))
        whole = reference.evaluate(batches(validation, 20), verbose=0, return_dict=True)
        expected["val_loss"].append(whole["loss"])
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-5)
    assert int(model.step.numpy()) == 14
    assert history["val_noise"][0] == history["val_noise"][1]  # the same noise at each validation


@pytest.mark.parametrize("steps_per_execution", [1, 2, 10])
def test_evaluate_weighs_an_uneven_last_batch(steps_per_execution):
    data = line_data(21)
    model = Line()
    model.compile("sgd", steps_per_execution=steps_per_execution)
    logs = model.evaluate(batches(data, 8), verbose=0, return_dict=True)
    errors = (model.line(data["x"]).numpy()[:, 0] - data["y"]) ** 2
    assert logs["loss"] == pytest.approx(errors.mean(), rel=1e-6)
    assert logs["mean_y"] == pytest.approx(data["y"].mean(), rel=1e-6)


def test_a_missing_key_is_named():
    model = Line()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"needs the batch keys \['x', 'y'\]\. Received: \['x'\]"):
        model.fit({"x": line_data(8)["x"]}, verbose=0)


def test_running_means_do_not_depend_on_their_portions():
    # Sums of float32 values in float64 are exact here, in whatever portions they come.
    logs = [{"a": float(np.float32(v))} for v in np.random.default_rng(0).normal(size=1000)]
    means = RunningMeans()
    for row in logs:
        means.update(row)
    assert means.result()["a"] == pytest.approx(np.mean([row["a"] for row in logs]), abs=1e-15)
    means.reset()
    assert means.result() == {}
    means.update({"a": 1.0}, 3)
    means.update({"a": 5.0}, 1)
    assert means.result() == {"a": 2.0}


def test_keras_files_hold_no_optimisers():
    model = Line()
    model.compile("adam", ema_decay=0.9)
    assert model.get_compile_config() == {}
    model.compile_from_config({"optimizer": "sgd"})
    assert isinstance(model.optimizers["model"], keras.optimizers.Adam)


def test_weights_files_hold_step_and_averages(tmp_path):
    model, twin = Line(), Line()
    for each in (model, twin):
        each.compile(keras.optimizers.Adam(0.1), ema_decay=0.9)
    run(model, line_data(16), 5)
    model.save_weights(tmp_path / "x.weights.h5")
    twin.load_weights(tmp_path / "x.weights.h5")
    assert int(twin.step.numpy()) == 5
    for a, b in zip(model.averages, twin.averages, strict=True):
        np.testing.assert_array_equal(a, b)
    assert run(model, line_data(16), 3) == run(twin, line_data(16), 3)  # Adam's moments came along
    plain = Line()
    plain.compile()
    plain.load_weights(tmp_path / "x.weights.h5")
    assert int(plain.step.numpy()) == 5
    plain.save_weights(tmp_path / "plain.weights.h5")
    before = values(model.averages)
    model.load_weights(tmp_path / "plain.weights.h5", skip_mismatch=True)  # other optimisers
    np.testing.assert_array_equal(model.averages[0], before[0])


# What Keras' users do.


def test_a_model_that_logs_loss_alone_reports_it():
    class Bare(Line):
        def logs(self, loss, batch):
            return {"loss": loss}

    model = Bare()
    model.compile(keras.optimizers.SGD(0.0))
    found = model.evaluate(batches(line_data(8), 8), verbose=0, return_dict=True)["loss"]
    history = model.fit(batches(line_data(8), 8), verbose=0).history
    assert found > 1
    assert history["loss"] == pytest.approx([found])


def test_train_on_batch():
    models = Line(), Line()
    for model in models:
        model.compile(keras.optimizers.SGD(0.1))
    data = line_data(8)
    rows = run(models[0], data, 1)
    logs = models[1].train_on_batch(data, return_dict=True)
    assert logs == pytest.approx(rows[0])
    models[1].train_on_batch(data["x"], data["y"])
    assert int(models[1].step.numpy()) == 2


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_floating_point_data_of_any_kind_is_float32(dtype):
    batch = Line().as_batch({k: v.astype(dtype) for k, v in line_data(4).items()})
    assert {v.dtype for v in batch.values()} == {tf.float32}


def test_images_of_integers_are_refused():
    model = Line()
    data = {"x": np.zeros((2, 8, 8, 1), np.uint8), "y": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match=r"'x' must be floating-point .* Received: uint8"):
        model.as_batch(data)


def test_sample_weights_are_refused():
    model, data = Line(), line_data(8)
    model.compile()
    with pytest.raises(ValueError, match="takes no sample weights"):
        model.fit(data["x"], data["y"], sample_weight=np.ones(8), verbose=0)


@pytest.mark.parametrize("argument", [{"loss": "mse"}, {"metrics": ["mae"]}, {"run_eagerly": True}])
def test_arguments_of_keras_compile_that_have_no_meaning(argument):
    with pytest.raises(ValueError, match=f"takes no {next(iter(argument))}: .* Received: "):
        Line().compile("adam", **argument)


def test_players_do_not_share_an_optimiser():
    one = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="an optimiser of its own for each player"):
        Tug().compile(low=one, high=one)


def test_adapt_comes_after_compile_and_restarts_the_averages():
    class Adapting(Line):
        def adapt_to(self, batches):
            self.line.layers[-1].bias.assign([7.0])

    model = Adapting()
    with pytest.raises(ValueError, match=r"compiled before adapt"):
        model.adapt(batches(line_data(8), 8))
    model.compile(ema_decay=0.9)
    model.adapt(batches(line_data(8), 8))
    np.testing.assert_array_equal(model.averages[1], [7.0])


# Precision and jit.


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(precision):
    keras.config.set_dtype_policy(precision)
    model = Line()
    model.compile(keras.optimizers.SGD(0.05), clip_norm=100.0, ema_decay=0.5)
    wrapped = isinstance(model.optimizers["model"], keras.optimizers.LossScaleOptimizer)
    assert wrapped == (precision == "mixed_float16")
    assert model.line.layers[0].compute_dtype == precision.removeprefix("mixed_")
    rows = run(model, line_data(64), 60)
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    assert all(v.dtype == "float32" for v in model.trainable_variables)


def test_float16_wraps_every_optimiser_and_moves_both_players():
    keras.config.set_dtype_policy("mixed_float16")
    model = Tug()
    model.compile(low=keras.optimizers.SGD(0.1), high=keras.optimizers.SGD(0.1))
    for optimizer in model.optimizers.values():
        assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    keras.config.set_dtype_policy("float32")
    exact = Tug()
    exact.compile(low=keras.optimizers.SGD(0.1), high=keras.optimizers.SGD(0.1))
    run(model, line_data(16), 1)
    run(exact, line_data(16), 1)
    for a, b in zip(model.trainable_variables, exact.trainable_variables, strict=True):
        # float16 has 11 bits: a relative error of 5e-4 in each of some ten operations.
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=5e-3)


def test_float16_networks_in_a_model_of_float32_have_their_losses_scaled():
    keras.config.set_dtype_policy("mixed_float16")
    network = Line().line
    keras.config.set_dtype_policy("float32")
    model = Line()
    model.line = network
    model.compile(keras.optimizers.SGD(0.1))
    assert isinstance(model.optimizers["model"], keras.optimizers.LossScaleOptimizer)


def test_a_given_loss_scale_optimiser_is_not_wrapped_again():
    keras.config.set_dtype_policy("mixed_float16")
    model = Line()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=64.0)
    model.compile(optimizer, clip_norm=0.1)
    before = values(model.trainable_variables)
    run(model, line_data(8), 1)
    after = values(model.trainable_variables)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)))
    assert moved == pytest.approx(0.1, rel=1e-2)
    assert not hasattr(model.optimizers["model"].inner_optimizer, "inner_optimizer")


def test_jit_gives_the_same_update():
    models = []
    for jit in (False, True):
        model = Tug()
        model.compile(
            low=keras.optimizers.Adam(1e-2),
            high=keras.optimizers.SGD(1e-2),
            jit_compile=jit,
            ema_decay=0.9,
        )
        run(model, line_data(64), 10)
        models.append(model)
    for a, b in zip(models[0].trainable_variables, models[1].trainable_variables, strict=True):
        # XLA fuses and reorders float32 sums: an error of 1e-7 a step in values of about 1.
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
