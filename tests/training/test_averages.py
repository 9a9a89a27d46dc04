"""Moving averages of weights begin where the training does."""

import numpy as np

from tests.training import runs
from tfgen import commands, run


def test_they_begin_at_what_adapt_set(tmp_path, digits_dir):
    flags = (
        "--system=vae.vae", "--latent_dims=2", "--hidden_units=4", "--steps=1",
        "--ema_decay=0.999", f"--data_dir={digits_dir}",
    )  # fmt: skip
    assert runs.train_here(tmp_path / "run", *flags) == 0
    model = commands.load_run(run.RunDir(tmp_path / "run"))[-1]
    # The averages: the output's bias is the logit of the mean image, not yet at the initial 0.
    bias = model.decoders[-1].trainable_variables[-1].numpy()
    assert np.median(bias) < -0.5
    assert bias.min() < -6.0
