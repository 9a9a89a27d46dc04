"""Early stopping: training ends when the validation loss has stopped to fall, at its best weights.

The state of the best epoch lies in the run's checkpoints as `best-<n>.npz`. When the run is over
that becomes its newest checkpoint and the later ones go, so that whatever reads the run reads the
best weights. Every checkpoint before knows which epoch was the best, so that a resumed run ends
where it would have ended.
"""

import math
from collections.abc import Mapping
from typing import Any

from tfgen.data import Data
from tfgen.errors import UserError
from tfgen.hparams import HParams
from tfgen.training.model import GenerativeModel


class EarlyStopping:
    """Watches the validation loss once an epoch.

    Args:
        criterion: name of the loss among the logs of a validation.
        interval: steps of an epoch.
        patience: epochs without a lower loss after which training is over.

    Attributes:
        best_step: the step after which it was lowest; 0 before the first look.
        best_loss: what it was there.
    """

    def __init__(self, criterion: str, interval: int, patience: int):
        self.criterion, self.interval, self.patience = criterion, interval, patience
        self.best_step = 0
        self.best_loss: float | None = None

    def improves(self, step: int, logs: Mapping[str, float]) -> bool:
        """Whether the loss after a step is the lowest yet; if so it is the one to beat."""
        loss = logs[self.criterion]
        found = loss < (math.inf if self.best_loss is None else self.best_loss)
        if found:
            self.best_step, self.best_loss = step, loss
        return found

    def over(self, step: int) -> bool:
        """Whether the patience is at its end."""
        return step - self.best_step >= self.patience * self.interval

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: JSON."""
        return {"best_step": self.best_step, "best_loss": self.best_loss}

    def restore(self, state: dict[str, Any]) -> None:
        """Sets what `state` gave."""
        self.best_step, self.best_loss = state["best_step"], state["best_loss"]


def watch(model: GenerativeModel, data: Data, hparams: HParams) -> EarlyStopping | None:
    """The early stopping that the flags ask for; None if they do not.

    Raises:
        UserError: if the model has no validation loss, or learns in stages, whose losses cannot be
            compared.
    """
    patience = hparams.early_stopping_epochs
    if patience is None:
        return None
    received = f"Received: --early_stopping_epochs={patience}"
    if model.criterion is None:
        raise UserError(
            f"{type(model).__name__} has no validation loss that tells when to stop: "
            f"leave --early_stopping_epochs=none. {received}"
        )
    if model.stage_starts():
        raise UserError(
            f"{type(model).__name__} learns in stages, whose losses cannot be compared: "
            f"leave --early_stopping_epochs=none. {received}"
        )
    epoch = data.steps_per_epoch(hparams.batch_size) / hparams.batches_per_step
    return EarlyStopping(model.criterion, max(1, round(epoch)), patience)
