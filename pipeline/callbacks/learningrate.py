"""The learning rate of a run: decay, and changes by hand."""

import logging
from collections.abc import Callable

import keras
import numpy as np

from pipeline.checkpoints.history import MAX_CHANGES, epochs_of, new_history
from pipeline.errors import InputError
from pipeline.nn.optimizer import base_learning_rate, last_learning_rate


class LearningRate(keras.callbacks.LearningRateScheduler):
    """Set the learning rate of each epoch, and record changes by hand.

    The rate starts at the optimizer's. In the history, `run.arguments.lr` is the current rate, or the initial rate of a
    decay, and `run.learning_rate_changes` lists the changes by hand.

    Args:
        decay: maps completed epochs to a factor of the rate, 0 to 1. None leaves the optimizer's rate as it is between
            changes by hand, so that other callbacks may set it.

    Attributes:
        history: the run's history (see `pipeline.checkpoints.history`), set by `training.fit`.
        overruled_by: name of another callback that sets the rate of each epoch, set by `training.fit`; None if there is
            none.
    """

    def __init__(self, decay: Callable[[int], float] | None = None) -> None:
        super().__init__(self.rate_of)
        self.decay = decay
        self.history = new_history()
        self.overruled_by: str | None = None

    @property
    def _run(self) -> dict:
        return self.history["run"]

    def start(self) -> None:
        """Start a fresh run at the optimizer's rate."""
        arguments = self._run.setdefault("arguments", {})
        compiled = np.float32(base_learning_rate(self.model.optimizer))
        if np.float32(arguments.get("lr", np.nan)) != compiled:
            arguments["lr"] = float(str(compiled))  # the shortest decimal for this float32
            logging.getLogger(__name__).info("learning rate %g, from the compiled optimizer", arguments["lr"])

    def differs(self, lr: float) -> bool:
        """Return whether `lr` differs from the current rate, or from the initial rate of a decay."""
        if self.decay is None:  # other callbacks may have set the optimizer's rate
            return np.float32(lr) != np.float32(base_learning_rate(self.model.optimizer))
        return lr != self._run["arguments"]["lr"]

    def rate_of(self, epoch: int, now: float | None = None) -> float:
        """Return the learning rate after `epoch` completed epochs."""
        return self._run["arguments"]["lr"] * self.factor(epoch)

    def factor(self, epoch: int) -> float:
        """Return the factor of the rate after `epoch` completed epochs, 0 to 1."""
        return 1.0 if self.decay is None else self.decay(epoch)

    def next_rate(self) -> float | None:
        """Return the rate that was chosen for the next epoch during a validation; None if none was."""
        changes = self._run.get("learning_rate_changes")
        return changes[-1][2] if changes and changes[-1][0] > epochs_of(self.history) else None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        changes = self._run.get("learning_rate_changes")
        if self.decay is not None or (changes and changes[-1][:2] >= [epoch, 0]):
            self.model.optimizer.learning_rate = self.rate_of(epoch)

    def resume(self, epoch: int, batch: int) -> None:
        """Set the rate inside `epoch` if it was changed right after `batch` batches."""
        changes = self._run.get("learning_rate_changes")
        if changes and changes[-1][:2] == [epoch, batch]:
            self.model.optimizer.learning_rate = self.rate_of(epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = last_learning_rate(self.model.optimizer)

    def change(self, lr: float, epoch: int, batch: int = 0) -> str:
        """Change the rate, or the initial rate of a decay, to `lr` after `epoch` epochs and `batch` batches.

        The optimizer gets it at the next `on_epoch_begin`.

        Returns:
            A description: "learning rate 0.1 -> 0.01".

        Raises:
            InputError: another callback sets the rate, the decay has reached 0, or the history holds `MAX_CHANGES`
                changes.
        """
        if self.overruled_by:
            raise InputError(f"the script's {self.overruled_by} sets the rate of each epoch; change it there")
        if not self.factor(epoch):
            raise InputError(f"the rate has decayed to 0 after epoch {epoch}")
        changes = self._run.setdefault("learning_rate_changes", [])
        if len(changes) >= MAX_CHANGES:
            raise InputError(f"the rate has been changed {len(changes):,} times, as often as a run can")
        before = self.rate_of(epoch) if self.decay or self.next_rate() else base_learning_rate(self.model.optimizer)
        self._run["arguments"]["lr"] = lr
        rate = self.rate_of(epoch)
        changes.append([epoch, batch, rate])
        later = f" from epoch {epoch + 1} on" if epoch > epochs_of(self.history) else ""
        description = f"learning rate {before:g} -> {rate:g}{later}"
        logging.getLogger(__name__).info(description)
        return description

    def change_now(self, rate: float, epoch: int, batch: int, steps: int) -> str:
        """Change the current rate to `rate` after `epoch` epochs and `batch` of `steps` batches of the next.

        With a decay, the initial rate is computed from it. During a validation, it is the rate of the next epoch.
        Returns and raises what `change` does.
        """
        is_trained = batch == steps
        start = (epoch + 1, 0) if is_trained else (epoch, batch)
        # Where the factor is 0, `change` refuses any rate.
        description = self.change(rate / (self.factor(start[0]) or 1.0), *start)
        if not is_trained:
            self.model.optimizer.learning_rate = self.rate_of(epoch)
        return description
