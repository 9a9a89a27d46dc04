"""tfgen's contenders: the data pipeline and train loop that `python -m tfgen.train` has."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen.data import Data, DataSpec
from tfgen.data.pixels import Pixels
from tfgen.data.source import Key, Source, table
from tfgen.hparams import HParams
from tfgen.training.model import GenerativeModel
from tools.bench.work import Run

VERSIONS = {"tensorflow": tf.__version__, "keras": keras.__version__}


def dataset(images: np.ndarray, image_range: str) -> Data:
    """Images, uint8 [N, H, W, C], as a tfgen data set; binary ones are drawn at each use."""
    keys = {"image": Key(images.shape[1:], "uint8")}
    size = len(images)
    spec = DataSpec(
        name="bench",
        shapes={"image": images.shape[1:]},
        dtypes={"image": "float32"},
        image_range=image_range,
        num_classes=None,
        train_size=size,
        validation_size=size,
        test_size=size,
    )
    splits = dict.fromkeys(("train", "validation", "test"), size)
    source = Source(
        keys, None, splits, lambda _: table(keys, size, iter([{"image": images}]), None)
    )
    return Data(spec, source, Pixels(image_range, "dynamic"))


def on_bits(
    build: Callable[[Any, DataSpec], GenerativeModel], hparams: HParams, order: dict[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """A system by its `build`, trained by its own train function from its own pipeline.

    Its images are binarised anew at each use.
    """
    keras.config.set_dtype_policy(hparams.precision)
    data = dataset(np.load(order["images"]), "binary")
    model = build(hparams, data.spec)
    stream = data.train(hparams.batch_size, seed=hparams.seed)
    return runner(model, iter(stream), hparams, "loss"), VERSIONS


def runner(model: GenerativeModel, batches: Iterator, hparams: HParams, loss: str) -> Run:
    """Trains so many steps and returns their seconds and the last loss."""

    def run(steps: int) -> dict[str, Any]:
        with model.distribute_strategy.scope():
            begun = time.perf_counter()
            for _ in range(steps // hparams.steps_per_execution):
                logs = model.run_steps(batches, hparams.steps_per_execution)[-1]
            seconds = time.perf_counter() - begun
        return {"seconds": seconds, "loss": float(logs[loss])}

    return run
