"""Stopping inside an epoch, and checkpoints there."""

import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from pipeline.io.checkpointfolder import CheckpointFolder
from pipeline.io.checkpointwriter import metric_state
from pipeline.stopping import Stopped, StopRequest


class BatchCheckpoint(keras.callbacks.Callback):
    """Meets a request to stop at the end of a batch, of training or of validation, and saves every so many seconds.

    Comes last of the callbacks, so that an epoch's end is complete when it is met.

    Args:
        checkpoints: where the state goes.
        stop: the request.
        steps: batches in an epoch.
        first: the (epoch, batch) completed before.
        metrics: the running loss and accuracy at that point, inside an epoch.
        seconds: between two checkpoints inside an epoch; None saves only on request.
        on_stop: called with (epoch, batch) completed when the request is met; returns whether to save and stop.

    Raises:
        Stopped: with the signal's exit code, after the state is safe; with 1 if it couldn't be saved.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        stop: StopRequest,
        steps: int,
        first: tuple[int, int],
        metrics: Sequence[np.ndarray],
        seconds: float | None,
        on_stop: Callable[[int, int], bool],
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.stop = stop
        self.steps = steps
        self.seconds = seconds
        self.on_stop = on_stop
        self._first = first
        self._metrics = metrics

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        self._batch = self._first[1] if epoch == self._first[0] else 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch += 1
        if self._batch == self.steps or self._is_called_for():
            self._sync()
            # Validation uses the same variables, so they are taken down at the last batch at any rate.
            self._metrics = metric_state(self.model)
            self._meet_or_save()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._is_called_for():
            self._sync()
            self._meet_or_save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._batch, self._metrics = epoch + 1, 0, []
        if self.stop:
            self._meet()

    def _is_called_for(self) -> bool:
        return bool(self.stop) or self._is_due()

    def _is_due(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.checkpoints.saved_at >= self.seconds

    def _meet_or_save(self) -> None:
        if self.stop:
            self._meet()
        elif self._is_due():
            self._save()

    def _meet(self) -> None:
        if self.on_stop(self._epoch, self._batch):
            code = self.stop.exit_code
            raise Stopped(code if self._save() else 1)
        self.stop.interrupted = False

    def _save(self) -> bool:
        return self.checkpoints.save(self.model, self._epoch, self._batch, self._metrics)

    def _sync(self) -> None:
        if keras.backend.backend() == "jax":
            # Within an epoch the state lives outside of the model's variables there.
            self.model.jax_state_sync()
