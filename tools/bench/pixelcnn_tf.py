"""A gated PixelCNN by tfgen."""

from typing import Any

from tfgen.models.vae import pixelcnn
from tools.bench import training
from tools.bench.work import IWAE_BATCH, LEARNING_RATE, PIXELCNN_FILTERS, PIXELCNN_LAYERS, Run


def hparams(**flags: Any) -> pixelcnn.HParams:
    """The sizes of `work.pixelcnn_step`."""
    return pixelcnn.HParams(
        batch_size=IWAE_BATCH,
        learning_rate=LEARNING_RATE,
        layers=PIXELCNN_LAYERS,
        filters=PIXELCNN_FILTERS,
        head_filters=PIXELCNN_FILTERS,
        **flags,
    )


def tfgen(order: dict[str, Any], **flags: Any) -> tuple[Run, dict[str, Any]]:
    """`vae.pixelcnn`."""
    return training.on_bits(pixelcnn.build, hparams(steps_per_execution=2, **flags), order)
