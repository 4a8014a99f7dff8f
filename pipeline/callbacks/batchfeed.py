"""Which batches an epoch is trained on, and how long it takes."""

import time

import keras

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.io.batches import Batches


class BatchFeed(keras.callbacks.Callback):
    """Tell the training batches their epoch, of one that is resumed inside from which batch on, and wait for each.

    Comes first, so that the loss and the metrics of the resumed epoch are back before anyone looks.

    Args:
        train: the batches.
        resumed: the checkpoint that the run goes on from.
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
    """Add to the logs how many `seconds` an epoch has taken, validation included.

    Args:
        seconds: what the epoch that is resumed had taken before.
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
        """How long the epoch under way has taken so far."""
        return time.monotonic() - self._start
