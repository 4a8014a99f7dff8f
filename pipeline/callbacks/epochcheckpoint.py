"""Checkpoints every few epochs."""

from os import PathLike
from pathlib import Path

import keras

from pipeline.callbacks.trainingmonitor import record_epoch
from pipeline.errors import InputError
from pipeline.io.atomic import make_folder
from pipeline.io.checkpoint import checkpoint_path, save_checkpoint
from pipeline.io.history import new_history


class EpochCheckpoint(keras.callbacks.Callback):
    """Writes `output_path/epoch_N.hdf5` after every epoch whose number N is a multiple of `every`, and after the last.

    Args:
        output_path: folder of the checkpoints, made where it is missing.
        every: epochs between two checkpoints, at least 1.
        network: the arguments of `ResNet.build`, which an exact resume rebuilds the model from.
        history: the run so far (see `pipeline.io.history`), which a callback before this one brings up to date; if
            None, this one keeps its own.
        options: how this process goes about the run, which a resume goes by unless told otherwise.

    Raises:
        InputError: (a `ValueError`) `every` is below 1, or the folder can't be made or written to.
    """

    def __init__(
        self,
        output_path: str | PathLike,
        every: int = 5,
        network: dict | None = None,
        history: dict | None = None,
        options: dict | None = None,
    ) -> None:
        super().__init__()
        if every < 1:
            raise InputError(f"every is {every}; expected a number of epochs of at least 1")
        self.folder = Path(output_path)
        self.every = every
        self.network = network or {}
        self.history = new_history() if history is None else history
        self._records = history is None
        self.options = options or {}
        make_folder(self.folder)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self._records:
            record_epoch(self.history, self.model, logs)
        completed = epoch + 1
        if completed % self.every == 0 or completed == self.params["epochs"]:
            save_checkpoint(
                checkpoint_path(self.folder, completed),
                self.model,
                epoch=completed,
                batch=0,
                network=self.network,
                history=self.history,
                options=self.options,
            )
