"""A VAE with an IAF posterior by tfgen."""

from typing import Any

from tfgen.models.vae import iaf
from tools.bench import training
from tools.bench.work import IAF_BLOCKS, IAF_CONTEXT, IAF_HIDDEN, IWAE_BATCH, LEARNING_RATE, Run


def hparams(**flags: Any) -> iaf.HParams:
    """The sizes of `work.iaf_step`."""
    return iaf.HParams(
        batch_size=IWAE_BATCH,
        learning_rate=LEARNING_RATE,
        flow_blocks=IAF_BLOCKS,
        flow_hidden_units=IAF_HIDDEN,
        flow_context=IAF_CONTEXT,
        **flags,
    )


def tfgen(order: dict[str, Any], **flags: Any) -> tuple[Run, dict[str, Any]]:
    """`vae.iaf`."""
    return training.on_bits(iaf.build, hparams(**flags), order)
