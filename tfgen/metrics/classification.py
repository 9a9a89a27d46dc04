"""How well a model that has learnt to classify does so: evaluations (model, data, settings)."""

from typing import Any

import numpy as np

from tfgen.data import Data
from tfgen.metrics.measure import Measure, Settings

_BATCH = 500


def error(model: Any, data: Data, settings: Settings) -> dict[str, Measure]:
    """Share of examples whose most probable class by `model.classify` is not their label."""
    batches = data.batches(settings.split, _BATCH, limit=settings.limit)
    wrong = np.concatenate(
        [
            np.argmax(model.classify(batch["image"]), axis=1) != batch["label"].numpy()
            for batch in batches
        ]
    )
    note = f"{int(wrong.sum())} of {len(wrong)} {settings.split} examples"
    return {"classification_error": Measure.mean(wrong, "share", note)}
