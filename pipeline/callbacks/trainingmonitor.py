"""Record the curves of a run, as a plot and as JSON."""

import logging
from os import PathLike
from pathlib import Path

import keras

from pipeline.checkpoints.history import append_epoch, epochs_of, new_history, write_history
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder, write_atomically
from pipeline.nn.optimizer import last_learning_rate


class EpochRecorder(keras.callbacks.Callback):
    """Add each epoch to `history`. Recorders that share a history add an epoch only once."""

    history: dict

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._recorded = epochs_of(self.history)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epochs_of(self.history) == self._recorded:
            append_epoch(self.history, logs or {}, last_learning_rate(self.model.optimizer))


class CurveWriter(EpochRecorder):
    """Add each epoch to the history, and write the history; a subclass defines `write_files`.

    If a write fails, training continues: the error is logged and counted, and the next epoch tries again.

    Args:
        history: the history to update in place; None starts a new one.

    Attributes:
        failures: number of failed writes.
        is_written: True if the files hold the current history.
    """

    def __init__(self, history: dict | None = None) -> None:
        super().__init__()
        self.history = new_history() if history is None else history
        self.failures = 0
        self.is_written = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.write()

    def write(self) -> None:
        """Write the files."""
        self.is_written = False
        try:
            self.write_files()
            self.is_written = True
        except OSError as error:
            self.failures += 1
            logging.getLogger(__name__).error("%s; the next epoch tries again", error)

    def write_files(self) -> None:
        """Write the history to the callback's files, atomically; raise `OSError` if that fails."""
        raise NotImplementedError


class TrainingMonitor(CurveWriter):
    """Add each epoch to the history, and write the history as a plot and, if `json_path` is given, as JSON.

    Files are written atomically. If a write fails, or the plot can't be drawn, training continues: the error is logged
    and counted, and the next epoch tries again.

    Args:
        fig_path: PNG file of the plot.
        json_path: JSON file of the history; None writes none.
        history: the history to update in place (see `pipeline.checkpoints.history`); None starts a new one.
            `training.fit` replaces it with the run's.

    Attributes:
        failures: number of failed writes.
        is_written: True if the files hold the current history.

    Raises:
        InputError: (a `ValueError`) a folder can't be created or written to, or both paths are the same; after an
            epoch: the loss is not finite.
    """

    def __init__(
        self, fig_path: str | PathLike, json_path: str | PathLike | None = None, history: dict | None = None
    ) -> None:
        super().__init__(history)
        self.fig_path = Path(fig_path)
        self.json_path = None if json_path is None else Path(json_path)
        if self.fig_path == self.json_path:
            raise InputError(f"plot and history are both {self.fig_path}; expected two files")
        for path in filter(None, (self.fig_path, self.json_path)):
            check_folder(path.parent)

    def write_files(self) -> None:
        if self.json_path is not None:
            write_history(self.json_path, self.history)
        write_atomically(self.fig_path, self._draw())

    def _draw(self) -> bytes:
        try:
            from pipeline.plots.history import plot_png

            return plot_png(self.history)
        except Exception as error:  # from Matplotlib's settings, which it reads on import, fonts or numbers
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OSError(f"can't draw {self.fig_path}: {reason}") from error
