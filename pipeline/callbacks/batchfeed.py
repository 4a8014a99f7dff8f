"""The batches of an epoch, and its duration."""

import time

import keras

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.io.batches import Batches


class BatchFeed(keras.callbacks.Callback):
    """Set the epoch and first batch of the training data, and wait until each batch is ready.

    Must be the first callback: if a run resumes inside an epoch, it restores loss and metrics before others read them.

    Args:
        train: the training batches.
        resumed: the checkpoint to resume from.
    """

    def __init__(self, train: Batches, resumed: Checkpoint | None = None) -> None:
        super().__init__()
        self.train = train
        self.resumed = resumed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        is_inside = self.resumed is not None and self.resumed.batch and epoch == self.resumed.epoch
        self.train.set_epoch(epoch, self.resumed.batch if is_inside else 0)
        if is_inside:
            self.resumed.restore_metrics(self.model)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.train.wait_for(batch - self.train.first_batch)


class EpochClock(keras.callbacks.Callback):
    """Add the duration of an epoch to its logs, as `seconds`, validation included.

    Args:
        seconds: time in seconds that the resumed epoch took before the stop.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self._before = seconds
        self._start = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start, self._before = time.monotonic() - self._before, 0.0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["seconds"] = round(self.seconds(), 3)

    def seconds(self) -> float:
        """Return the duration of the current epoch so far."""
        return time.monotonic() - self._start
