"""Stopping inside an epoch, and checkpoints there."""

import time
from collections.abc import Callable

import keras
import numpy as np

from pipeline.callbacks.stopping import Stopped, StopRequest
from pipeline.callbacks.trainingmonitor import EpochRecorder
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.folder import CheckpointFolder, Inside
from pipeline.checkpoints.history import diverged


class BatchCheckpoint(EpochRecorder):
    """Meet a request to stop at the end of a batch, of training or of validation, and save every so many seconds.

    Comes last of the callbacks, so that an epoch's end is complete when it is met.

    Args:
        checkpoints: where the state goes.
        stop: the request.
        steps: batches in an epoch.
        on_stop: called when the request is met, with (epoch, batch) completed, and whether saving has just failed;
            returns "go on", "save" to do so first, "stop", which saves too, or "give up".
        seconds: between two checkpoints inside an epoch; None saves only on request.
        resumed: the checkpoint that the run goes on from.

    Raises:
        Stopped: with the signal's exit code, after the state is safe; with 1 if it couldn't be saved, with 0 if another
            callback ended the training inside an epoch.
        InputError: there is something to save, but the loss is not finite.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        stop: StopRequest,
        steps: int,
        on_stop: Callable[[int, int, bool], str],
        seconds: float | None = None,
        resumed: Checkpoint | None = None,
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.stop = stop
        self.steps = steps
        self.on_stop = on_stop
        self.seconds = seconds
        self._first = self._epoch, self._batch = resumed.progress if resumed else (0, 0)
        self._inside = Inside(resumed.metric_state, resumed.callbacks) if resumed else None

    @property
    def history(self) -> dict:
        """The run so far, which a checkpoint holds."""
        return self.checkpoints.history

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
        self._batch = self._first[1] if epoch == self._first[0] else 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch = batch + 1
        # Keras' `self.model` brings JAX's variables up to date, for which the device has to be done.
        is_ended = self._model.stop_training and self._batch < self.steps
        if self._batch == self.steps or is_ended or self._is_called_for():
            self._sync()
            # Validation uses the same variables, so they are taken down at the last batch at any rate.
            self._inside = self.checkpoints.inside(self.model)
            if is_ended:
                code = self.stop.exit_code if self.stop else 0
                raise Stopped(code if self._save(outlook="the state is not saved") else 1)
            self._meet_or_save()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._is_called_for():
            self._sync()
            self._meet_or_save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._epoch, self._batch, self._inside = epoch + 1, 0, None
        if self.stop:
            self._meet()

    def save_after_failure(self) -> None:
        """Save what was trained before a batch that could not be made."""
        if (self._epoch, self._batch) == self._first:
            return
        if 0 < self._batch < self.steps:
            self._sync()
            self._inside = self.checkpoints.inside(self.model)
        self._save(outlook="the state is not saved")

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
        answer = self.on_stop(self._epoch, self._batch, False)
        while answer == "stop":
            if self._save(outlook="the state is not saved"):
                raise Stopped(self.stop.exit_code)
            answer = self.on_stop(self._epoch, self._batch, True)
        if answer == "give up":
            raise Stopped(1)
        self.stop.interrupted = False
        if answer == "save":
            self._save()

    def _save(self, **outlook: str) -> bool:
        # Those of the loss come first; another metric may begin with infinity.
        if self._inside and not all(np.isfinite(values).all() for values in self._inside.metrics[:2]):
            raise diverged(f"the loss is not finite in epoch {self._epoch + 1} after batch {self._batch}")
        return self.checkpoints.save(self.model, self._epoch, self._batch, self._inside, **outlook)

    def _sync(self) -> None:
        if keras.backend.backend() == "jax":
            # Within an epoch the state lives outside of the model's variables there.
            self.model.jax_state_sync()
