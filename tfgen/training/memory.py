"""What a training keeps in memory, as far as it is known before the first step."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfgen.hparams import HParams
from tfgen.training.model import GenerativeModel


def estimate(model: GenerativeModel) -> dict[str, int]:
    """Bytes that stay for the whole run on each device, by what they hold."""
    trainable = _nbytes(model.trainable_variables)
    slots = sum(_nbytes(o.variables) for o in model.optimizers.values())
    return {
        "weights": _nbytes(model.variables),
        "gradients": trainable,
        "optimiser slots": slots,
        "moving averages": _nbytes(model.averages),
    }


def describe(model: GenerativeModel, hparams: HParams) -> str:
    """The estimate as lines of text, with what it leaves out."""
    parts = estimate(model)
    parameters = sum(int(np.prod(v.shape)) for v in model.variables)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    state = sum(parts.values()) - parts["gradients"]
    lines = [f"parameters: {parameters:,}, of which {trainable:,} are trained"]
    for player, variables in model.players().items():
        count = sum(int(np.prod(v.shape)) for v in variables)
        lines.append(f"  {player}: {count:,} by {model.optimizers[player].name}")
    lines.append(f"memory on each device: {sum(parts.values()) / 2**20:.1f} MiB")
    lines += [f"  {name}: {nbytes / 2**20:.1f} MiB" for name, nbytes in parts.items()]
    lines.append(f"a checkpoint: about {state / 2**20:.1f} MiB on the disk")
    lines.append(
        f"Not counted: activations of a step of {hparams.batch_size} examples, the data set where "
        "it is held in memory, and some 0.5 GiB of TensorFlow itself"
    )
    return "\n".join(lines)


def _nbytes(variables: Iterable[Any]) -> int:
    return sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables)
