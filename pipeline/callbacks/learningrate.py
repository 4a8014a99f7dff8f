"""The learning rate of a run, from epoch to epoch and by hand."""

import logging
from collections.abc import Callable

import keras
import numpy as np

from pipeline.checkpoints.history import epochs_of, new_history
from pipeline.errors import InputError
from pipeline.nn.optimizer import base_learning_rate, last_learning_rate


class LearningRate(keras.callbacks.LearningRateScheduler):
    """Set the learning rate of each epoch, and record changes made by hand: the only owner of a run's rate.

    It starts from the rate that the optimizer is compiled with. In the history, `run.arguments.lr` is the present rate,
    or that at the start of a decay, and `run.learning_rate_changes` lists the changes by hand.

    Args:
        decay: function from completed epochs to the share of the rate that is left, 0 to 1. None leaves the
            optimizer's rate alone but for changes by hand.

    Attributes:
        history: the run so far (see `pipeline.checkpoints.history`); `fit` of a run sets it.
    """

    def __init__(self, decay: Callable[[int], float] | None = None) -> None:
        super().__init__(self.rate_of)
        self.decay = decay
        self.history = new_history()

    @property
    def _run(self) -> dict:
        return self.history["run"]

    def start(self) -> None:
        """Start a fresh run from the rate that the optimizer is compiled with."""
        arguments = self._run.setdefault("arguments", {})
        compiled = np.float32(base_learning_rate(self.model.optimizer))
        if np.float32(arguments.get("lr", np.nan)) != compiled:
            arguments["lr"] = float(str(compiled))  # the shortest decimals that name it
            logging.getLogger(__name__).info("learning rate %g, which the optimizer is compiled with", arguments["lr"])

    def differs(self, lr: float) -> bool:
        """Return whether `lr` is another rate, or start of a decay, than the present one."""
        if self.decay is None:  # where other callbacks may have set the optimizer's
            return np.float32(lr) != np.float32(base_learning_rate(self.model.optimizer))
        return lr != self._run["arguments"]["lr"]

    def rate_of(self, epoch: int, now: float | None = None) -> float:
        """The learning rate after `epoch` completed epochs."""
        return self._run["arguments"]["lr"] * self.share(epoch)

    def share(self, epoch: int) -> float:
        """The share of the rate that is left after `epoch` completed epochs, 0 to 1."""
        return 1.0 if self.decay is None else self.decay(epoch)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        changes = self._run.get("learning_rate_changes")
        if self.decay is not None or (changes and changes[-1][:2] >= [epoch, 0]):
            self.model.optimizer.learning_rate = self.rate_of(epoch)

    def resume(self, epoch: int, batch: int) -> None:
        """Set the rate inside `epoch` if it was changed just after `batch` batches."""
        changes = self._run.get("learning_rate_changes")
        if changes and changes[-1][:2] == [epoch, batch]:
            self.model.optimizer.learning_rate = self.rate_of(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = last_learning_rate(self.model.optimizer)

    def change(self, lr: float, epoch: int, batch: int = 0) -> float:
        """Change the rate, or the start of a decay, to `lr` after `epoch` epochs and `batch` batches.

        The optimizer gets it at the next `on_epoch_begin`.

        Returns:
            The learning rate at that point.

        Raises:
            InputError: the decay has reached 0 there.
        """
        if not self.share(epoch):
            raise InputError(f"`lr` {lr:g}: the rate has decayed to 0 after epoch {epoch}; leave it out")
        before = self.rate_of(epoch) if self.decay else base_learning_rate(self.model.optimizer)
        self._run["arguments"]["lr"] = lr
        rate = self.rate_of(epoch)
        later = f" from epoch {epoch + 1} on" if epoch > epochs_of(self.history) else ""
        logging.getLogger(__name__).info(f"learning rate {before:g} -> {rate:g}{later}")
        self._run.setdefault("learning_rate_changes", []).append([epoch, batch, rate])
        return rate
