"""Exports a trained run as a SavedModel: `python -m tfgen.export --run_dir=runs/iwae_digits`.

Writes export/<n>/ as TensorFlow Serving wants it, whole or not at all, and model.keras. Neither
needs the data; the SavedModel needs only TensorFlow, no tfgen and no Keras.

Its signatures are the model's endpoints (`signatures()`); the first one is `serving_default` as
well. Inputs have the names of the endpoint's arguments and any batch size; noise comes from the
input "seed", int32: the same seed gives the same answer on every server. Outputs have names too:
"image" (float32) of sample, decode, reconstruct and translate, "latent" of encode, else
the endpoint's own name, e.g. "log_prob". Scalar inputs make REST requests columnar:
{"signature_name": "sample", "inputs": {"num": 4, "seed": 0}}.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfgen import commands, hparams, run
from tfgen.errors import UserError

if TYPE_CHECKING:
    from tfgen.training.model import GenerativeModel

_OUTPUTS = {  # The output's name by endpoint, where it is not the endpoint's own.
    "sample": "image",
    "decode": "image",
    "reconstruct": "image",
    "translate": "image",
    "translate_back": "image",
    "encode": "latent",
}


@dataclasses.dataclass(frozen=True)
class Options(commands.RunOptions):
    """Options of the command."""

    # Where <n>/ and model.keras go; default: export/ of the run, and the run itself.
    out: str | None = None


def main(argv: Sequence[str]) -> int:
    """Exports; returns the exit status."""
    options = hparams.parse_options(argv, Options)
    if options.help:
        print(hparams.options_help(Options, __doc__))
        return 0
    run_dir = run.RunDir(options.run_dir)
    run_dir.require()
    out = pathlib.Path(options.out).expanduser() if options.out else run_dir.exports
    keras_file = out / run_dir.keras.name if options.out else run_dir.keras
    with run.writing(out):
        out.mkdir(parents=True, exist_ok=True)
    *_, spec, model = commands.load_run(run_dir)

    with run.atomic_path(keras_file) as path:
        model.save(path)
    folder = run.next_version(out)
    signatures = save(model, folder)
    _print_table(signatures, f"{folder}, step {int(model.step.numpy())}")
    if any("image" in _inputs(function) for function in signatures.values()):
        print(f"Images go in as in training: {commands.RANGES[spec.image_range]}.")
    print(f"Keras users: import {type(model).__module__}, then")
    print(f"    keras.saving.load_model({str(keras_file)!r})\n")
    print("From Python, with nothing but TensorFlow:\n")
    print(snippet(folder, signatures))
    return 0


def save(model: "GenerativeModel", folder: pathlib.Path) -> dict[str, Any]:
    """Writes a model's endpoints as a SavedModel, whole or not at all.

    It holds the variables that the endpoints use, each once: of a GAN the generator alone.

    Args:
        model: the model, with the weights that shall be served.
        folder: the SavedModel; its parent exists.

    Returns:
        The concrete function of each endpoint by name, "serving_default" left out.

    Raises:
        UserError: if it cannot be written.
    """
    import tensorflow as tf

    signatures = {
        name: _endpoint(name, function, specs)
        for name, (function, specs) in model.signatures().items()
    }
    used = {id(v): v for f in signatures.values() for v in f.graph.variables}
    module = tf.Module()  # And no Keras model, which would bring its variables a second time.
    module.parameters = list(used.values())
    default = signatures[next(iter(signatures))]
    with run.atomic_path(folder) as path:
        try:
            tf.saved_model.save(module, path, signatures={"serving_default": default, **signatures})
        except tf.errors.OpError as error:
            raise UserError(f"cannot write {folder}: {error.message}") from error
    return signatures


def _endpoint(name: str, function: Callable, specs: Mapping[str, Any]) -> Any:
    """The concrete function of an endpoint, which returns a dict of named tensors."""
    import tensorflow as tf

    def endpoint(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        result = function(**inputs)
        return dict(result) if isinstance(result, Mapping) else {_OUTPUTS.get(name, name): result}

    endpoint.__name__ = name
    named = {key: tf.TensorSpec(spec.shape, spec.dtype, key) for key, spec in specs.items()}
    return tf.function(endpoint, autograph=False).get_concrete_function(**named)


def snippet(folder: pathlib.Path, signatures: Mapping[str, Any]) -> str:
    """Python that loads the SavedModel and calls each endpoint with inputs of the right shape."""
    lines = [
        "import tensorflow as tf",
        "",
        f"served = tf.saved_model.load({str(folder.resolve())!r})",
    ]
    for name, function in signatures.items():
        inputs = []
        for key, spec in _inputs(function).items():
            shape = [1 if size is None else size for size in spec.shape]
            inputs.append(f"{key}=tf.ones({shape}, tf.{spec.dtype.name})")
        outputs = ", ".join(function.structured_outputs)
        lines.append(f"{name} = served.signatures[{name!r}]({', '.join(inputs)})  # has: {outputs}")
    return "\n".join(lines)


def _print_table(signatures: Mapping[str, Any], title: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for column in ("signature", "inputs", "outputs"):
        table.add_column(column)
    for index, (name, function) in enumerate(signatures.items()):
        label = f"{name}\nserving_default" if index == 0 else name
        outputs = function.structured_outputs
        table.add_row(label, Text(_describe(_inputs(function))), Text(_describe(outputs)))
    Console().print(table)


def _inputs(function: Any) -> dict[str, Any]:
    """Specs of a concrete function's arguments by name."""
    return function.structured_input_signature[1]


def _describe(tensors: Mapping[str, Any]) -> str:
    """One line a tensor: name, dtype and shape, "?" being any size."""
    lines = []
    for key, tensor in tensors.items():
        shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
        lines.append(f"{key}: {tensor.dtype.name} [{shape}]")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(commands.execute(main, sys.argv))
