"""Stop, and save checkpoints, inside an epoch."""

import time
from collections.abc import Callable
from concurrent.futures import Future

import keras
import numpy as np

from pipeline.callbacks.steering import Steering
from pipeline.callbacks.stopping import Stopped, StopRequest
from pipeline.callbacks.trainingmonitor import EpochRecorder
from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.folder import CheckpointFolder, MidEpoch
from pipeline.checkpoints.history import diverged


class BatchCheckpoint(EpochRecorder):
    """Handle requests after the current batch, of training or validation, and save every `seconds`.

    Must be the last callback, so that all others have finished an epoch before it saves.

    Args:
        checkpoints: the run's checkpoints.
        stop: the request to stop.
        steps: batches per epoch.
        on_stop: decides on a request, given the completed epochs and batches and whether a save has just failed.
            Returns "continue", "save" (and go on), "stop" (after a save), or "abort" (without one).
        seconds: time between two checkpoints inside an epoch; None saves only on request.
        resumed: the checkpoint to resume from.
        steering: carries out requests of other processes; None takes none.

    Raises:
        Stopped: with the signal's exit code once the state is saved; with 1 if it can't be saved; with 0 if another
            callback stopped the training inside an epoch.
        InputError: the loss is not finite when a checkpoint is due.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        stop: StopRequest,
        steps: int,
        on_stop: Callable[[int, int, bool], str],
        seconds: float | None = None,
        resumed: Checkpoint | None = None,
        steering: Steering | None = None,
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.steering = steering
        self.stop = stop
        self.steps = steps
        self.on_stop = on_stop
        self.seconds = seconds
        self._first = self._epoch, self._batch = resumed.progress if resumed else (0, 0)
        self._mid_epoch = MidEpoch(resumed.metric_state, resumed.callbacks) if resumed else None

    @property
    def history(self) -> dict:
        """The run's history, which checkpoints hold."""
        return self.checkpoints.history

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch
        self._batch = self._first[1] if epoch == self._first[0] else 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch = batch + 1
        # `self.model` would synchronize JAX's variables, and so wait for the device.
        is_ended = self._model.stop_training and self._batch < self.steps
        if self._batch == self.steps or is_ended or self._is_requested():
            self._sync()
            # Validation reuses the metrics' variables, so copy them after the last batch in any case.
            self._mid_epoch = self.checkpoints.mid_epoch(self.model)
            if is_ended:
                code = self.stop.exit_code if self.stop else 0
                raise Stopped(code if self._save(consequence="the state is not saved") else 1)
            self._stop_or_save()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._is_requested():
            self._sync()
            self._stop_or_save()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._epoch, self._batch, self._mid_epoch = epoch + 1, 0, None
        if self.stop:
            self._handle_stop()

    def save_after_failure(self) -> None:
        """Save what was trained before a batch that couldn't be read."""
        if (self._epoch, self._batch) == self._first:
            return
        if 0 < self._batch < self.steps:
            self._sync()
            self._mid_epoch = self.checkpoints.mid_epoch(self.model)
        self._save(consequence="the state is not saved")

    def _is_requested(self) -> bool:
        return bool(self.stop) or self._is_due() or (self.steering is not None and self.steering.is_asked())

    def _is_due(self) -> bool:
        return self.seconds is not None and time.monotonic() - self.checkpoints.saved_at >= self.seconds

    def _stop_or_save(self) -> None:
        if self.steering is not None:
            self.steering.carry_out(self._epoch, self._batch, self._save)
        if self.stop:
            self._handle_stop()
        elif self._is_due():
            self._start_save()

    def _handle_stop(self) -> None:
        answer = self.on_stop(self._epoch, self._batch, False)
        while answer == "stop":
            if self._save(consequence="the state is not saved"):
                self._end(is_saved=True)
                raise Stopped(self.stop.exit_code)
            answer = self.on_stop(self._epoch, self._batch, True)
        if answer == "abort":
            self._end(is_saved=False)
            raise Stopped(1)
        self.stop.interrupted = False
        if answer == "save":
            self._save()

    def _end(self, is_saved: bool) -> None:
        if self.steering is not None:
            self.steering.end(self._epoch, self._batch, is_saved)

    def _save(self, **consequence: str) -> bool:
        return self._start_save(**consequence).result()

    def _start_save(self, **consequence: str) -> Future:
        # The first two arrays are the loss's; other metrics may start at infinity.
        if self._mid_epoch and not all(np.isfinite(values).all() for values in self._mid_epoch.metrics[:2]):
            raise diverged(f"the loss is not finite in epoch {self._epoch + 1} after batch {self._batch}")
        return self.checkpoints.start_save(self.model, self._epoch, self._batch, self._mid_epoch, **consequence)

    def _sync(self) -> None:
        if keras.backend.backend() == "jax":
            # Inside an epoch JAX's state lives outside the model's variables.
            self.model.jax_state_sync()
