"""What the commands share: the process' environment, one-line errors, loading a run."""

import dataclasses
import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfgen import hparams as hparams_lib
from tfgen import run
from tfgen.errors import UserError, one_line, one_line_of

if TYPE_CHECKING:
    from tfgen.data import Data, DataSpec
    from tfgen.training.model import GenerativeModel

RANGES = {  # Of `DataSpec.image_range`, in words.
    "unit": "[0, 1]",
    "symmetric": "[-1, 1]",
    "binary": "{0, 1}",
    "uint8": "0..255, as uint8",
}


def execute(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs a command: a `UserError` is one line on standard error and exit status 1.

    Sets defaults of TensorFlow's environment first, where the user set none: the BFC allocator,
    which keeps large tensors' memory instead of taking page faults at every step; oneDNN's kernels,
    which TensorFlow leaves off on processors without AVX-512 and which make a GAN's convolutions
    faster there; and quiet logs.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return main(argv) or 0
    except UserError as error:
        print(f"FATAL: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # Who read the output, such as `head`, has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if type(error).__name__ != "DataLossError":  # TensorFlow's, which may not be imported
            raise
        print(f"FATAL: a file of the data is damaged: {one_line_of(error)}", file=sys.stderr)
        return 1


def load_data(hparams: hparams_lib.HParams, data_dir: str | None, on_bad_image: str) -> "Data":
    """The data that the hyperparameters name, in the form that the system wants."""
    from tfgen import data

    return data.load(
        hparams.data,
        data_dir=data_dir,
        image_range=hparams.image_range,
        binarization=hparams.binarization,
        image_size=hparams.image_size,
        needs=hparams.needs,
        on_bad_image=on_bad_image,
        seed=hparams.seed,
        jitter=hparams.jitter,
    )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of every command that works on a run that was trained."""

    run_dir: str | None = None  # The directory of the run.
    help: bool = False  # Print all flags, and stop.

    def __post_init__(self) -> None:
        if self.run_dir is None and not self.help:
            raise ValueError("--run_dir is missing: name the directory of a run")


@dataclasses.dataclass(frozen=True)
class _NoOptions:
    """A run's flags.cfg holds hyperparameters only."""


def load_run(
    run_dir: run.RunDir,
) -> tuple[types.ModuleType, hparams_lib.HParams, "DataSpec", "GenerativeModel"]:
    """The trained model of a run directory, without its data; EMA weights where there are any.

    Its networks compute in float32, whatever precision they were trained in.

    Returns:
        The system's module, the run's hyperparameters, the data's spec and the model.

    Raises:
        UserError: if no run is there, or it has no checkpoint that can be read.
    """
    import keras

    from tfgen.data import DataSpec
    from tfgen.training import checkpoint

    run_dir.require()
    name, hparams, _ = hparams_lib.parse(["", f"--flagfile={run_dir.flags}"], _NoOptions)
    module = hparams_lib.load_system(name)
    if not run_dir.data.is_file():
        raise UserError(f"no checkpoint in {run_dir.checkpoints} yet: the run has not begun")
    spec = DataSpec.from_json(run_dir.data.read_text(encoding="utf-8"))
    keras.config.set_dtype_policy("float32")
    with one_line():
        model: Any = module.build(hparams, spec)
    if checkpoint.restore(run_dir.checkpoints, model, weights_only=True) is None:
        raise UserError(f"no checkpoint in {run_dir.checkpoints} yet: train for longer")
    for variable, average in zip(model.trainable_variables, model.averages, strict=False):
        variable.assign(average)
    return module, hparams, spec, model
