"""A CycleGAN and a pix2pix by tfgen."""

from typing import Any

import keras

from tfgen.data import Data, DataSpec
from tfgen.data.pixels import Pixels
from tfgen.data.source import Key, Source, table
from tfgen.models.translation import cyclegan, pix2pix
from tools.bench import training, work
from tools.bench.work import Run


def tfgen(order: dict[str, Any], **flags: Any) -> tuple[Run, dict[str, Any]]:
    """A system with the paper's networks and batch size 1, on pictures of noise."""
    side = work.TRANSLATION_SIDES[order["system"]]
    shared = {"steps": 1_000_000, "steps_per_execution": 1, "resize": None, "crop": None, **flags}
    if order["system"] == "cyclegan":
        hp: Any = cyclegan.HParams(blocks=work.RESNET_BLOCKS, **shared)
        build, keys = cyclegan.build, ("a", "b")
    else:
        hp = pix2pix.HParams(**shared)
        build, keys = pix2pix.build, ("source", "target")
    keras.config.set_dtype_policy(hp.precision)
    data = _dataset(keys, side)
    model = build(hp, data.spec)
    batches = iter(data.train(hp.batch_size, seed=hp.seed))
    return training.runner(model, batches, hp, "generator_loss"), training.VERSIONS


def _dataset(keys: tuple[str, str], side: int) -> Data:
    shape = (side, side, 3)
    size = work.TRANSLATION_IMAGES
    pictures = dict(zip(keys, work.pictures(side), strict=True))
    spec = DataSpec(
        name="bench",
        shapes=dict.fromkeys(keys, shape),
        dtypes=dict.fromkeys(keys, "float32"),
        image_range="symmetric",
        num_classes=None,
        train_size=size,
        validation_size=size,
        test_size=size,
    )
    kinds = dict.fromkeys(keys, Key(shape, "uint8"))
    splits = dict.fromkeys(("train", "validation", "test"), size)
    source = Source(kinds, None, splits, lambda _: table(kinds, size, iter([pictures]), None))
    return Data(spec, source, Pixels("symmetric"))
