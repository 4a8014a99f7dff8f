"""Checkpoints every few epochs."""

from os import PathLike
from pathlib import Path

import keras

from pipeline.callbacks.trainingmonitor import record_epoch
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder


class EpochCheckpoint(keras.callbacks.Callback):
    """Writes `output_path/epoch_N.hdf5` after every epoch whose number N is a multiple of `every`, and after the last.

    One that can't be written is tried again after the next epoch.

    Args:
        output_path: folder of the checkpoints, made where it is missing.
        every: epochs between two checkpoints, at least 1.
        checkpoints: the run's checkpoints in that folder, whose history a callback before this one brings up to date;
            if None, this one keeps a history of its own.

    Raises:
        InputError: (a `ValueError`) `every` is below 1, or the folder can't be made or written to.
    """

    def __init__(
        self, output_path: str | PathLike, every: int = 5, checkpoints: CheckpointFolder | None = None
    ) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"every is {every}; expected a number of epochs of at least 1")
        make_folder(Path(output_path))
        self.every = every
        self.checkpoints = checkpoints or CheckpointFolder(Path(output_path))
        self._records = checkpoints is None
        self._overdue = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._records:
            record_epoch(self.checkpoints.history, self.model, logs)
        completed = epoch + 1
        if self._overdue or completed % self.every == 0 or completed == self.params["epochs"]:
            self._overdue = not self.checkpoints.save(self.model, completed, outlook="the next epoch tries again")
