"""A run directory made in a second: a tiny IWAE that was not trained, and no data at all."""

import pathlib

import keras
import numpy as np

from tfgen import commands, hparams, run
from tfgen.data import DataSpec
from tfgen.models.vae import iwae
from tfgen.training import checkpoint

SHAPE = (8, 8, 1)


def make(path: pathlib.Path, **flags) -> run.RunDir:
    """Writes the run of an IWAE with 2 latents on 8x8 images, some flags set otherwise.

    Its live weights differ from their moving averages, which are what a user should get.
    """
    keras.utils.clear_session()
    defaults = {"data": "nowhere", "latent_dims": (2,), "hidden_units": (16,), "k": 3}
    hp = iwae.HParams(**{**defaults, "ema_decay": 0.9, **flags})
    spec = DataSpec(
        name=hp.data,
        shapes={"image": SHAPE, "label": ()},
        dtypes={"image": "float32", "label": "int32"},
        image_range=hp.image_range,
        num_classes=10,
        train_size=100,
        validation_size=20,
        test_size=20,
    )
    run_dir = run.RunDir(path)
    run_dir.create(hparams.to_flagfile("vae.iwae", hp))
    run.write_text(run_dir.data, spec.to_json())
    model = iwae.build(hp, spec)
    for index, average in enumerate(model.averages):
        average.assign(1.5 * average + 0.01 * index)
    checkpoint.save(run_dir.checkpoints, model, {}, keep=1)
    run.write_arrays(run_dir.batch, {"image": images(20), "label": np.arange(20, dtype=np.int32)})
    return run_dir


def images(count: int, seed: int = 0) -> np.ndarray:
    """float32 [count, 8, 8, 1] in {0, 1}."""
    return (np.random.default_rng(seed).random((count, *SHAPE)) > 0.5).astype(np.float32)


def load(run_dir: run.RunDir) -> iwae.IWAE:
    """The run's model, as a fresh process would load it."""
    keras.utils.clear_session()
    return commands.load_run(run_dir)[-1]


def call(main, **flags) -> int:
    """Runs a command as a fresh process would; its exit status."""
    keras.utils.clear_session()
    return commands.execute(main, ["command", *(f"--{k}={v}" for k, v in flags.items())])
