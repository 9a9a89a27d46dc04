"""A VQ-VAE by tfgen, in the stage before its prior."""

from typing import Any

from tfgen.models.vae import vqvae
from tools.bench import training, work
from tools.bench.work import IWAE_BATCH, LEARNING_RATE, Run


def hparams(**flags: Any) -> vqvae.HParams:
    """The sizes of `work.vqvae_step`."""
    return vqvae.HParams(
        steps=1_000_000,
        batch_size=IWAE_BATCH,
        learning_rate=LEARNING_RATE,
        filters=work.VQVAE_FILTERS,
        residual_blocks=work.VQVAE_BLOCKS,
        num_codes=work.VQVAE_CODES,
        code_dim=work.VQVAE_SIZE,
        codebook_decay=work.VQVAE_DECAY,
        commitment=work.VQVAE_COMMITMENT,
        likelihood="bernoulli",
        **flags,
    )


def tfgen(order: dict[str, Any], **flags: Any) -> tuple[Run, dict[str, Any]]:
    """`vae.vqvae`."""
    return training.on_bits(vqvae.build, hparams(steps_per_execution=5, **flags), order)
