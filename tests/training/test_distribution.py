"""Several replicas in one process, and several workers on this machine."""

import functools
import json
import socket
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import runs
from tests.training.toys import Line, Tug, Waiting, batches, line_data, values
from tfgen import data as data_lib
from tfgen import run
from tfgen.errors import UserError
from tfgen.models.gan import gan
from tfgen.models.vae import vae
from tfgen.training import checkpoint, loop, strategies

HPARAMS = vae.HParams(
    batch_size=60, epochs=0.5, latent_dims=(3,), hidden_units=(8,), binarize="threshold"
)


@functools.cache
def replicas(count):
    """The strategy of so many replicas: one for all tests, for two must not be mixed."""
    if count == 1:
        return strategies.make("none")
    strategy = strategies.make("mirrored", devices=count)
    assert strategy.num_replicas_in_sync == count
    return strategy


def run_steps(model, strategy, data, size, steps):
    """Rows of logs; the global batch is `size` whatever the number of replicas."""
    with strategy.scope():
        dataset = strategy.experimental_distribute_dataset(batches(data, size, repeat=True))
        return model.run_steps(iter(dataset), steps)


def make(cls, strategy, *, optimizer=lambda: keras.optimizers.Adam(0.05), **options):
    with strategy.scope():
        model = cls()
        names = sorted(model.players())
        given = {n: optimizer() for n in names} if len(names) > 1 else {"optimizer": optimizer()}
        model.compile(**given, **options)
    return model


# Updates.


@pytest.mark.parametrize(
    "options",
    [{}, {"ema_decay": 0.8, "clip_norm": 0.05}, {"steps_per_execution": 3, "jit_compile": True}],
    ids=["plain", "ema and clipping", "jit, which is left off"],
)
@pytest.mark.parametrize("cls", [Line, Tug, Waiting])
def test_two_replicas_make_the_update_of_one(cls, options):
    models, logs = [], []
    for count in (1, 2):
        model = make(cls, replicas(count), **options)
        logs.append(run_steps(model, replicas(count), line_data(64), 8, 6))
        models.append(model)
    one, two = (values([*m.trainable_variables, *m.averages]) for m in models)
    assert len(one) == (2 if "ema_decay" in options else 1) * len(models[0].trainable_variables)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    for a, b in zip(*logs, strict=True):
        for name in set(a) - {"noise"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=1e-5)
    assert [int(m.step.numpy()) for m in models] == [6, 6]


def test_clipping_sees_the_gradient_of_the_global_batch():
    # The replicas' gradients nearly cancel: clipped one by one they would move the weights.
    x = np.ones((2, 3), np.float32)
    data = {"x": x, "y": np.array([100.0, -100.0], np.float32)}
    moved = []
    for count in (1, 2):
        model = make(
            Line, replicas(count), optimizer=lambda: keras.optimizers.SGD(1.0), clip_norm=1.0
        )
        before = values(model.trainable_variables)
        run_steps(model, replicas(count), data, 2, 1)
        after = values(model.trainable_variables)
        moved.append(np.concatenate([(a - b).ravel() for a, b in zip(after, before, strict=True)]))
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)
    assert np.linalg.norm(moved[1]) <= 1.0 + 1e-5


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_an_optimiser_that_clips_by_itself_clips_as_on_one_replica(precision):
    keras.config.set_dtype_policy(precision)

    def clipping():
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=0.1)
        if precision == "float32":
            return optimizer
        return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)

    model = make(Line, replicas(2), optimizer=clipping)
    before = values(model.trainable_variables)
    run_steps(model, replicas(2), line_data(8), 8, 1)
    after = values(model.trainable_variables)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True)))
    assert moved == pytest.approx(0.1, rel=1e-2)


def test_a_replica_without_an_example_is_refused():
    model = make(Line, replicas(2))
    with pytest.raises(ValueError, match=r"drop_remainder=True. Received: \[1, 0\] examples on 2"):
        model.fit(batches(line_data(5), 4), verbose=0)
    assert int(model.step.numpy()) == 1


def test_features_are_matched_over_all_replicas():
    features = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    gradients = []
    for count in (1, 2):
        strategy = replicas(count)
        with strategy.scope():
            weight = tf.Variable(0.5)

        def gradient(real, fake, weight=weight, count=count):
            with tf.GradientTape() as tape:
                distance = gan.feature_distance(real, weight * fake) / count
            return tape.gradient(distance, weight)

        def share(context, count=count):
            rows = slice(context.replica_id_in_sync_group * 4 // count, None)
            return tuple(tf.constant(f[rows][: 4 // count]) for f in features)

        parts = strategy.experimental_distribute_values_from_function(share)
        found = strategy.run(lambda p, gradient=gradient: gradient(*p), args=(parts,))
        gradients.append(float(strategy.reduce("SUM", found, axis=None)))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


def test_float16_under_replicas():
    keras.config.set_dtype_policy("mixed_float16")
    strategy = replicas(2)
    model = make(Line, strategy, optimizer=lambda: keras.optimizers.SGD(0.05), clip_norm=50.0)
    rows = run_steps(model, strategy, line_data(64), 8, 40)
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]
    for variable in model.trainable_variables:
        first, second = (v.numpy() for v in strategy.experimental_local_results(variable.value))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 50.0, "ema_decay": 0.9}])
@pytest.mark.parametrize("where", [0, -1])
def test_an_overflow_on_any_replica_skips_the_step_on_all(options, where):
    keras.config.set_dtype_policy("mixed_float16")
    strategy, data = replicas(2), line_data(8)
    model = make(Line, strategy, optimizer=lambda: keras.optimizers.SGD(0.05), **options)
    (optimizer,) = model.optimizers.values()
    optimizer.build(model.trainable_variables)
    before, scale = values(model.trainable_variables), float(optimizer.dynamic_scale.value)
    averages = values(model.averages)
    data["x"][where] = 1e4  # its square is no float16
    run_steps(model, strategy, data, 8, 1)
    for old, new in zip(before, values(model.trainable_variables), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(averages, values(model.averages), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-6)
    assert float(optimizer.dynamic_scale.value) == scale / 2


def test_noise_differs_between_replicas():
    strategy = replicas(2)
    model = make(Line, strategy, seed=5)

    @tf.function
    def seeds():
        return strategy.run(model.noise_seed)

    first, second = (s.numpy() for s in strategy.experimental_local_results(seeds()))
    assert not np.array_equal(first, second)
    alone = make(Line, replicas(1), seed=5)
    np.testing.assert_array_equal(first, alone.noise_seed().numpy())


def test_fit_and_evaluate_under_replicas():
    data, histories = line_data(56), []
    for count in (1, 2):
        model = make(Line, replicas(count), steps_per_execution=3)
        histories.append(
            model.fit(
                batches(data, 8),
                validation_data=batches(line_data(21, seed=1), 8),
                epochs=2,
                verbose=0,
            ).history
        )
    for name in ("loss", "mean_y", "val_loss", "val_mean_y"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-5)


class FixedNoise(vae.VAE):
    """A VAE whose noise is a function of the image, so that it is the same on any replica."""

    def infer(self, image, k, seed, training=False):
        q = self.posterior(0, image, training)
        pixels = tf.reshape(image, [tf.shape(image)[0], 64])
        waves = tf.reshape(tf.range(64.0 * 3), [64, 3])
        latent = (q.mean() + q.stddev() * tf.sin(pixels @ waves))[tf.newaxis]
        return vae.Inference([latent], [q], [q.log_prob(latent)])


def train_vae(cls, count, data, path, **options):
    """A run by `loop.train`; returns the model and the directory."""
    strategy = replicas(count)
    with strategy.scope():
        model = cls(*vae.networks(data.spec.image_shape, HPARAMS), k=1)
        settings = {**HPARAMS.compile_options(), "steps_per_execution": 4, **options}
        model.compile(keras.optimizers.Adam(1e-2), **settings)
        run_dir = run.RunDir(path)
        run_dir.create("")
        loop.train(
            model, data, HPARAMS, run_dir, intervals=loop.Intervals(log=3, validate=5, pictures=7)
        )
    return model, run_dir


@pytest.fixture(scope="module")
def digits(digits_dir):
    return data_lib.load(
        "digits", data_dir=digits_dir, image_range="binary", binarization="threshold"
    )


def test_a_vae_with_its_noise_held_fixed(tmp_path, digits):
    # 12 steps of a run as the command does it: data, EMA, clipping, validation, pictures. The 100
    # validation images make a batch of 60 and one of 40, which is 30 and 10 on two replicas.
    models, dirs = [], []
    for count in (1, 2):
        model, run_dir = train_vae(
            FixedNoise, count, digits, tmp_path / str(count), ema_decay=0.8, clip_norm=1.0
        )
        models.append(model)
        dirs.append(run_dir)
    one, two = (m.state_variables() for m in models)
    for name, variable in one.items():
        np.testing.assert_allclose(
            variable.numpy(), two[name].numpy(), rtol=1e-5, atol=1e-5, err_msg=name
        )
    lines = [run.read_jsonl(d.metrics) for d in dirs]
    assert [line["step"] for line in lines[0]] == [3, 5, 6, 9, 10, 12]
    assert any("validation_loss" in line for line in lines[0])
    for a, b in zip(*lines, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert len(list(dirs[1].samples.glob("*.png"))) == len(list(dirs[0].samples.glob("*.png"))) > 0


def test_a_run_goes_on_with_another_number_of_replicas(tmp_path, digits):
    one, run_dir = train_vae(FixedNoise, 1, digits, tmp_path / "one")
    strategy = replicas(2)
    with strategy.scope():
        two = FixedNoise(*vae.networks(digits.spec.image_shape, HPARAMS), k=1)
        two.compile(keras.optimizers.Adam(1e-2), **HPARAMS.compile_options())
        checkpoint.restore(run_dir.checkpoints, two)
    for a, b in zip(one.state_variables().values(), two.state_variables().values(), strict=True):
        live = b.value if isinstance(b, keras.Variable) else b
        for replica in strategy.experimental_local_results(live):
            np.testing.assert_array_equal(np.array(a.numpy()), np.array(replica))


def test_replicas_of_a_vae_have_their_own_noise(tmp_path, digits):
    # With one noise for both, two replicas with the same images would agree to the bit.
    strategy = replicas(2)
    with strategy.scope():
        model = vae.VAE(*vae.networks(digits.spec.image_shape, HPARAMS), k=1, analytic_kl=False)
        model.compile("sgd")
    image = next(iter(digits.batches("validation", 8)))["image"]

    @tf.function
    def losses():
        return strategy.run(lambda: model.train_step({"image": image})["loss"])

    first, second = (float(v) for v in strategy.experimental_local_results(losses()))
    assert first != second


# Validation.


class Sizes(Line):
    """Counts the examples of each replica's batch: mean_size * 2 is a batch's, if none is lost."""

    def test_step(self, batch):
        tf.debugging.assert_positive(tf.shape(batch["y"])[0], "some kernels take no batch of none")
        return {"mean_y": tf.reduce_mean(batch["y"]), "one": tf.constant(1.0)}


class FakeData:
    """What `loop.validate` needs of a data set."""

    def __init__(self, count):
        self.arrays = line_data(count)
        self.spec = data_lib.DataSpec("fake", {}, {}, "unit", None, count, count, count)

    def batches(self, split, batch_size, seed=None):
        return batches(self.arrays, min(batch_size, self.spec.validation_size))


@pytest.mark.parametrize("steps_per_execution", [1, 3])
@pytest.mark.parametrize("count", [5, 8, 9, 16, 23])
def test_validation_weighs_every_example_once(count, steps_per_execution):
    # Batches of 8 over two replicas: of 9 examples the second batch gives 1 and 0, of 5 the only
    # one 4 and 1.
    data = FakeData(count)
    for number in (1, 2):
        strategy = replicas(number)
        model = make(Sizes, strategy, steps_per_execution=steps_per_execution)
        with strategy.scope():
            logs = loop.validate(model, data, vae.HParams(batch_size=8))
        assert logs["mean_y"] == pytest.approx(data.arrays["y"].mean(), rel=1e-5)
        assert logs["one"] == pytest.approx(1.0, rel=1e-6)


def test_validation_leaves_the_training_means(tmp_path):
    model = make(Sizes, replicas(1))
    model.means.update({"loss": 3.0})
    before = json.dumps(vars(model.means))
    loop.validate(model, FakeData(9), vae.HParams(batch_size=8))
    assert json.dumps(vars(model.means)) == before


# Several workers: processes on this machine that reach each other over TCP.

WORKER_FLAGS = (
    "--system=vae.iwae",
    "--data=digits",
    "--k=5",
    "--latent_dims=5",
    "--hidden_units=32",
    "--batch_size=20",
    "--epochs=4",
    "--ema_decay=0.9",
    "--clip_norm=10",
    "--steps_per_execution=5",
    "--log_every_steps=10",
    "--validate_every_steps=50",
    "--checkpoint_every_steps=20",
    "--strategy=multiworker",
)


def start_workers(arguments):
    """Two processes; `arguments` is a function of the worker's number."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    return [
        runs.start_script(
            arguments(index),
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            CUDA_VISIBLE_DEVICES="",
        )
        for index in range(2)
    ]


def finish(workers, seconds=300):
    """The outputs of all workers, which must end well."""
    outputs = []
    try:
        for worker in workers:
            output, _ = worker.communicate(timeout=seconds)
            outputs.append(output)
            assert worker.returncode == 0, output
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return outputs


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory, digits_dir):
    """The folder of an unbroken run by two workers, with the weights that each ended with."""
    folder = tmp_path_factory.mktemp("workers")
    script = str(runs.ROOT / "tests" / "training" / "worker.py")
    flags = (*WORKER_FLAGS, f"--data_dir={digits_dir}", f"--run_dir={folder / 'run'}")
    finish(start_workers(lambda index: [script, str(folder / f"weights-{index}.npz"), *flags]))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_end_with_equal_weights(two_workers):
    first, second = (dict(np.load(two_workers / f"weights-{i}.npz")) for i in range(2))
    assert set(first) == set(second)
    assert len(first) > 20
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    saved = runs.last_checkpoint(two_workers / "run")
    for name, value in first.items():
        np.testing.assert_array_equal(value, saved[name], err_msg=name)
    steps = [line["step"] for line in run.read_jsonl(two_workers / "run" / "metrics.jsonl")]
    assert steps == sorted([*range(10, 271, 10), 276, *range(50, 251, 50)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker(two_workers, tmp_path, digits_dir):
    flags = (*WORKER_FLAGS, f"--data_dir={digits_dir}", f"--run_dir={tmp_path}")
    workers = start_workers(lambda index: ["-m", "tfgen.train", *flags])
    try:
        end = time.monotonic() + 300
        while runs.last_metrics_step(tmp_path) < 60:
            for worker in workers:
                assert worker.poll() is None, worker.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
        workers[1].kill()
        # Its peer cannot go on alone; it ends by itself within TensorFlow's time limit.
        output, _ = workers[0].communicate(timeout=200)
        assert workers[0].returncode == 1
        assert "FATAL: another worker died or cannot be reached. Start all workers again" in output
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    stopped = checkpoint.all_steps(tmp_path / "checkpoints")[-1]
    assert 0 < stopped < 276
    outputs = finish(start_workers(lambda index: ["-m", "tfgen.train", *flags]))
    assert "step 276, " in outputs[0]
    runs.assert_same_run(two_workers / "run", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_stop_early_together(tmp_path, digits_dir):
    early = ("--early_stopping_epochs=1", "--epochs=60", "--learning_rate=2e-2")
    flags = (*WORKER_FLAGS, *early, f"--data_dir={digits_dir}", f"--run_dir={tmp_path}")
    finish(start_workers(lambda index: ["-m", "tfgen.train", *flags]))
    lines = run.read_jsonl(tmp_path / "metrics.jsonl")
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    of_epochs = {step: loss for step, loss in losses.items() if step % 69 == 0}
    best = min(of_epochs, key=of_epochs.get)
    assert max(of_epochs) == best + 69 < 60 * 69
    assert checkpoint.all_steps(tmp_path / "checkpoints")[-1] == best


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_of_other_folders(two_workers, tmp_path, digits_dir):
    """The second sees a finished run, the first an empty folder."""
    flags = (*WORKER_FLAGS, f"--data_dir={digits_dir}")
    folders = (tmp_path, two_workers / "run")
    workers = start_workers(lambda i: ["-m", "tfgen.train", *flags, f"--run_dir={folders[i]}"])
    for worker, step in zip(workers, (0, 276), strict=True):
        output, _ = worker.communicate(timeout=300)
        assert worker.returncode == 1
        assert f"same step: this one at {step}, the mean is 138. All need" in output


# What cannot be distributed.


def test_a_batch_that_the_replicas_cannot_share(tmp_path, digits):
    strategy = replicas(2)
    hparams = vae.HParams(batch_size=61)
    with strategy.scope():
        model = vae.build(hparams, digits.spec)
        with pytest.raises(UserError, match=r"divide by the number of replicas, 2\. .*=61"):
            loop.train(model, digits, hparams, _run_dir(tmp_path), intervals=loop.Intervals(log=3))


def _run_dir(path):
    run_dir = run.RunDir(path)
    run_dir.create("")
    return run_dir


def test_too_few_devices():
    with pytest.raises(UserError, match=r"3 devices needs .*Found: 2"):
        strategies.make("mirrored", devices=3)


def test_multiworker_needs_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match=r"--strategy=multiworker needs .*TF_CONFIG"):
        strategies.make("multiworker")


@pytest.mark.parametrize(
    "config", ["{bad", '{"cluster": {"worker": ["localhost:1"]}}'], ids=["no JSON", "no task"]
)
def test_a_wrong_tf_config_is_one_line(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match="TF_CONFIG must hold .* Received: TF_CONFIG=.*"):
        strategies.make("auto")


def test_auto_is_one_device_without_gpus(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategies.make("auto").num_replicas_in_sync == 1


def test_the_mean_over_replicas():
    strategy = replicas(2)
    with strategy.scope():
        found = strategy.run(
            lambda: strategies.mean_over_replicas(
                tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            )
        )
    assert [float(v) for v in strategy.experimental_local_results(found)] == [0.5, 0.5]
    assert float(strategies.mean_over_replicas(tf.constant(3.0))) == 3.0
