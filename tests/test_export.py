"""`tfgen.export`: a SavedModel that answers like the model, where neither tfgen nor Keras is."""

import errno
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from tfgen import export, run
from tfgen.data import DataSpec
from tfgen.errors import UserError
from tfgen.models.vae import iwae

# Answers every signature of the SavedModel argv[1] to the inputs of argv[2], an .npz with names
# signature/input, into argv[3], then runs the Python of argv[4]. With Grappler's remapping, which
# fuses MatMul, BiasAdd and Tanh to other roundings than those of single operations, and without.
_SERVER = """
import importlib.machinery, sys

class Nothing:
    "Found, but cannot be imported: TensorFlow itself asks whether there is a Keras."

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfgen", "keras", "tf_keras", "tensorflow_probability"):
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        raise ImportError(f"{spec.name} is not installed here")

    def exec_module(self, module):
        raise AssertionError("never reached")

sys.meta_path.insert(0, Nothing())
for name in ("tfgen", "keras"):
    try:
        __import__(name)
        raise AssertionError(f"{name} could be imported")
    except ImportError:
        pass
import numpy as np
import tensorflow as tf

folder, inputs, outputs, python = sys.argv[1:]
inputs = dict(np.load(inputs))
answers = {}
for remapping in (True, False):
    tf.config.optimizer.set_experimental_options({"remapping": remapping})
    served = tf.saved_model.load(folder)
    for name, function in served.signatures.items():
        given = {k.split("/")[1]: v for k, v in inputs.items() if k.split("/")[0] == name}
        for attempt in range(2):
            for key, value in function(**{k: tf.constant(v) for k, v in given.items()}).items():
                answers[f"{remapping}/{attempt}/{name}/{key}"] = value.numpy()
np.savez(outputs, **answers)
with open(python) as file:
    exec(file.read())
called = [name for name in served.signatures if name in globals()]
print({name: {k: v.shape.as_list() for k, v in globals()[name].items()} for name in called})
print([m for m in sys.modules if m.split(".")[0] in ("tfgen", "keras", "tf_keras")])
"""

INPUTS = {
    "serving_default": {"num": np.int32(2), "seed": np.int32(9)},
    "sample": {"num": np.int32(300), "seed": np.int32(4)},
    "encode": {"image": tiny_run.images(5)},
    "decode": {"latent": np.array([[0.5, -1], [2, 0], [0, 0]], np.float32)},
    "reconstruct": {"image": tiny_run.images(5), "seed": np.int32(4)},
    "log_prob": {"image": tiny_run.images(5), "seed": np.int32(4)},
}
OUTPUTS = {
    "sample": "image",
    "encode": "latent",
    "decode": "image",
    "reconstruct": "image",
    "log_prob": "log_prob",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run whose training was compiled by XLA; 2 stochastic layers make the decoder draw too."""
    path = tmp_path_factory.mktemp("run")
    return tiny_run.make(path, jit=True, latent_dims=(3, 2), hidden_units=(16, 12))


@pytest.fixture(scope="module")
def printed(run_dir):
    """What the command prints; afterwards export/1 is there."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert tiny_run.call(export.main, run_dir=run_dir.path) == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def model(run_dir):
    return tiny_run.load(run_dir)


@pytest.fixture(scope="module")
def server(run_dir, printed, tmp_path_factory):
    """The answers of a process without tfgen and Keras by remapping/attempt/signature/output."""
    path = tmp_path_factory.mktemp("server")
    flat = {f"{name}/{key}": v for name, given in INPUTS.items() for key, v in given.items()}
    np.savez(path / "in.npz", **flat)
    (path / "snippet.py").write_text(printed[printed.index("import tensorflow") :])
    files = [run_dir.exports / "1", path / "in.npz", path / "out.npz", path / "snippet.py"]
    command = [sys.executable, "-c", _SERVER, *map(str, files)]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=path, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return run.read_arrays(path / "out.npz"), done.stdout.splitlines()


def test_a_process_without_tfgen_and_keras_answers_every_endpoint(server):
    answers, lines = server
    assert {name.split("/", 2)[2] for name in answers} == {
        "serving_default/image",
        *(f"{name}/{key}" for name, key in OUTPUTS.items()),
    }
    assert lines[-1] == "[]"


def test_the_printed_python_runs(server):
    _, lines = server
    shapes = {
        "sample": {"image": [1, 8, 8, 1]},
        "encode": {"latent": [1, 2]},
        "decode": {"image": [1, 8, 8, 1]},
        "reconstruct": {"image": [1, 8, 8, 1]},
        "log_prob": {"log_prob": [1]},
    }
    assert eval(lines[-2]) == shapes


@pytest.mark.parametrize("name", list(INPUTS))
def test_answers_are_the_models(server, model, name):
    answers, _ = server
    endpoint = "sample" if name == "serving_default" else name
    expected = getattr(model, endpoint)(**INPUTS[name]).numpy()
    given = {k.split("/", 1)[0]: v for k, v in answers.items() if f"/0/{name}/" in k}
    # To the bit, but for the last one of a float32 where many terms are added up.
    np.testing.assert_array_max_ulp(given["False"], expected, maxulp=1 if name == "log_prob" else 0)
    # Fused operations round otherwise, and exp(log sigma) of two layers enlarges it: 2e-6 was seen.
    np.testing.assert_allclose(given["True"], expected, atol=5e-6, rtol=1e-6)


def test_the_same_seed_gives_the_same_answer_and_another_another(server, run_dir):
    answers, _ = server
    for name, answer in answers.items():
        np.testing.assert_array_equal(answer, answers[name.replace("/1/", "/0/")])
    loaded = tf.saved_model.load(run_dir.exports / "1")
    one, two = (
        loaded.signatures["sample"](num=tf.constant(8), seed=tf.constant(s))["image"]
        for s in (4, 5)
    )
    assert not np.isclose(one, two).all(axis=(1, 2, 3)).any()


def test_the_keras_file_gives_the_same_samples(run_dir, printed, model):
    loaded = keras.saving.load_model(run_dir.keras, safe_mode=True)
    np.testing.assert_array_equal(loaded.sample(300, 4), model.sample(300, 4))
    assert not np.array_equal(loaded.sample(8, 4), loaded.sample(8, 5))


def test_the_table_names_endpoints_inputs_and_outputs(printed):
    cells = [[c.strip() for c in line.split("│")[1:-1]] for line in printed.splitlines()]
    assert [c for c in cells if c] == [
        ["sample", "num: int32 []", "image: float32 [?, 8, 8, 1]"],
        ["serving_default", "seed: int32 []", ""],
        ["encode", "image: float32 [?, 8, 8, 1]", "latent: float32 [?, 2]"],
        ["decode", "latent: float32 [?, 2]", "image: float32 [?, 8, 8, 1]"],
        ["reconstruct", "image: float32 [?, 8, 8, 1]", "image: float32 [?, 8, 8, 1]"],
        ["", "seed: int32 []", ""],
        ["log_prob", "image: float32 [?, 8, 8, 1]", "log_prob: float32 [?]"],
        ["", "seed: int32 []", ""],
    ]
    assert "Images go in as in training: {0, 1}." in printed


def test_the_layout_is_tensorflow_servings(run_dir, printed, model):
    assert os.listdir(run_dir.exports) == ["1"]
    found = set(os.listdir(run_dir.exports / "1"))
    assert (
        {"saved_model.pb", "variables"}
        <= found
        <= {"saved_model.pb", "variables", "assets", "fingerprint.pb"}
    )


def test_there_are_only_operations_of_tensorflow_and_none_of_xla(run_dir, printed):
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((run_dir.exports / "1" / "saved_model.pb").read_bytes())
    functions = proto.meta_graphs[0].graph_def.library.function
    nodes = [*proto.meta_graphs[0].graph_def.node, *(n for f in functions for n in f.node_def)]
    assert "StatelessRandomNormalV2" in {n.op for n in nodes}
    assert not [n.op for n in nodes if n.op.startswith(("Xla", "PyFunc", "EagerPyFunc"))]
    stateful = {n.op for n in nodes if n.op.startswith("Random")}
    assert not stateful
    attributes = [a for owner in (*functions, *nodes) for a in owner.attr.items()]
    assert not [value for key, value in attributes if key == "_XlaMustCompile" and value.b]


def bytes_of_variables(folder):
    return sum(p.stat().st_size for p in (folder / "variables").iterdir())


def test_variables_are_stored_once(tmp_path):
    keras.utils.clear_session()
    spec = DataSpec("mnist", {"image": (28, 28, 1)}, {"image": "float32"}, "binary", 10, 9, 9, 9)
    model = iwae.build(iwae.HParams(latent_dims=(50,), hidden_units=(200,), batch_size=1), spec)
    export.save(model, tmp_path / "1")
    parameters = sum(v.numpy().nbytes for v in model.variables)
    assert parameters > 1.5e6
    ratio = bytes_of_variables(tmp_path / "1") / parameters
    print(f"variables' files / parameters: {ratio:.4f}")
    assert 1 <= ratio <= 1.1


class OnlyDecodes:
    """The least that can be exported: one endpoint of a model, with outputs of its own names."""

    def __init__(self, model):
        self.model = model

    def signatures(self):
        specs = {"latent": tf.TensorSpec([None, 2])}
        named = lambda latent: {"mean": self.model.decode(latent), "twice": 2 * latent}  # noqa: E731
        return {"paint": (named, specs), "norm": (lambda latent: tf.norm(latent, axis=1), specs)}


def test_only_the_variables_of_the_endpoints_are_stored(model, tmp_path):
    export.save(OnlyDecodes(model), tmp_path / "1")
    loaded = tf.saved_model.load(tmp_path / "1")
    used = {v.shape.as_list() and v.numpy().tobytes() for v in loaded.parameters}
    decoders = {v.numpy().tobytes() for d in model.decoders for v in d.variables}
    assert used == decoders
    assert len(loaded.parameters) == 12
    latent = tf.constant([[3.0, 4.0]])
    paint = loaded.signatures["paint"](latent=latent)
    assert set(paint) == {"mean", "twice"}
    np.testing.assert_allclose(paint["mean"], model.decode(latent), atol=1e-6)
    assert set(loaded.signatures["norm"](latent=latent)) == {"norm"}
    assert set(loaded.signatures) == {"serving_default", "paint", "norm"}
    assert set(loaded.signatures["serving_default"](latent=latent)) == {"mean", "twice"}


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, ""), tf.errors.ResourceExhaustedError(None, None, "no space")]
)
def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch, failure):
    def fails(module, path, signatures):
        (path / "variables").mkdir(parents=True)
        (path / "saved_model.pb").write_text("half")
        raise failure

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(UserError, match=r"^cannot write .*no space"):
        export.save(model, tmp_path / "1")
    assert os.listdir(tmp_path) == []


def test_each_export_has_the_next_number(tmp_path):
    assert run.next_version(tmp_path / "none").name == "1"
    for name in ("1", "3", "10", ".writing-7-11", "notes", "12.tmp"):
        (tmp_path / name).mkdir()
    assert run.next_version(tmp_path) == tmp_path / "11"


def test_elsewhere(run_dir, tmp_path, model, capsys):
    before = sorted(os.listdir(run_dir.path))
    stamp = run_dir.keras.stat().st_mtime_ns if run_dir.keras.exists() else None
    out = tmp_path / "a" / "b"
    for number in (1, 2):
        assert tiny_run.call(export.main, run_dir=run_dir.path, out=out) == 0
        assert sorted(os.listdir(out)) == [*map(str, range(1, number + 1)), "model.keras"]
    assert sorted(os.listdir(run_dir.path)) == before
    assert (run_dir.keras.stat().st_mtime_ns if stamp else None) == stamp


def error_of(capsys, **flags):
    assert tiny_run.call(export.main, **flags) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("FATAL")]
    assert len(lines) == 1
    return lines[0].removeprefix("FATAL: ")


def test_what_a_user_can_get_wrong(run_dir, tmp_path, capsys):
    assert error_of(capsys) == "--run_dir is missing: name the directory of a run"
    assert error_of(capsys, run_dir=tmp_path).startswith(f"no run in --run_dir={tmp_path}: ")
    (tmp_path / "file").write_text("")
    message = error_of(capsys, run_dir=run_dir.path, out=tmp_path / "file")
    assert message.startswith(f"cannot write {tmp_path / 'file'}: a file is in the way")
