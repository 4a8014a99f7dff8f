"""Save checkpoints every few epochs."""

from concurrent.futures import Future
from os import PathLike
from pathlib import Path

from pipeline.callbacks.trainingmonitor import EpochRecorder
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder


class EpochCheckpoint(EpochRecorder):
    """Save `epoch_N.hdf5` after every epoch N that is a multiple of `every`, and after the last.

    Files are written in a thread, while the next epoch is trained. A failed save is retried after that.

    Args:
        output_path: folder for the checkpoints, created with the first one if missing.
        every: epochs between two checkpoints, at least 1.

    Attributes:
        checkpoints: the checkpoints in that folder; `training.fit` replaces them with the run's.

    Raises:
        InputError: (a `ValueError`) `every` is below 1, or the folder can't be created or written to.
    """

    def __init__(self, output_path: str | PathLike, every: int = 5) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"every is {every}; expected a number of epochs of at least 1")
        check_folder(Path(output_path))
        self.every = every
        self.checkpoints = CheckpointFolder(Path(output_path))
        self._last: Future | None = None
        self._completed = self._tried = 0

    @property
    def history(self) -> dict:
        """The run's history, which checkpoints hold."""
        return self.checkpoints.history

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._completed = 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._completed = epoch + 1
        is_last = self._completed == self.params["epochs"] or self.model.stop_training
        is_overdue = self._last is not None and not self._last.result()
        if is_overdue or self._completed % self.every == 0 or is_last:
            self._save()

    def on_train_end(self, logs: dict | None = None) -> None:
        # A callback after this one may have stopped the training.
        if self.model.stop_training and self._completed not in (0, self._tried):
            self._save()
        self.checkpoints.finish()

    def _save(self) -> None:
        self._tried = self._completed
        retry = "the next epoch tries again"
        self._last = self.checkpoints.start_save(self.model, self._completed, consequence=retry)
