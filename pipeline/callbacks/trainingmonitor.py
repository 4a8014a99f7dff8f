"""The curves of a run, as a plot and as JSON."""

import logging
from os import PathLike
from pathlib import Path

import keras

from pipeline.checkpoints.history import append_epoch, epochs_of, new_history, write_history
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder, write_atomically
from pipeline.nn.optimizer import last_learning_rate


class EpochRecorder(keras.callbacks.Callback):
    """Record each epoch in `history`, which callbacks may share: the first of them to see its end adds it."""

    history: dict

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._recorded = epochs_of(self.history)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if epochs_of(self.history) == self._recorded:
            append_epoch(self.history, logs or {}, last_learning_rate(self.model.optimizer))


class TrainingMonitor(EpochRecorder):
    """After every epoch, add it to the history, and write a plot and, if asked, the history, atomically.

    Args:
        fig_path: the plot, a PNG file.
        json_path: the history, or None.
        history: the run so far, which is brought up to date in place (see `pipeline.checkpoints.history`); None for a
            new one. `fit` of a run sets that of the run.

    A disk that fails is reported and counted in `failures`; the next epoch tries again, or `write`.
    So is a plot that can't be drawn, which costs no more than itself.

    Attributes:
        failures: how often a file could not be written.
        is_written: whether the files hold the history as it stands.

    Raises:
        InputError: (a `ValueError`) a folder can't be made or written to; in an epoch's end, the loss is not finite.
    """

    def __init__(
        self, fig_path: str | PathLike, json_path: str | PathLike | None = None, history: dict | None = None
    ) -> None:
        super().__init__()
        self.fig_path = Path(fig_path)
        self.json_path = None if json_path is None else Path(json_path)
        self.history = new_history() if history is None else history
        self.failures = 0
        self.is_written = False
        if self.fig_path == self.json_path:
            raise InputError(f"the plot and the history can't both be {self.fig_path}")
        for path in filter(None, (self.fig_path, self.json_path)):
            make_folder(path.parent)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.write()

    def write(self) -> None:
        """Write the files as the history stands."""
        self.is_written = False
        try:
            if self.json_path is not None:
                write_history(self.json_path, self.history)
            write_atomically(self.fig_path, self._draw())
            self.is_written = True
        except OSError as error:
            self.failures += 1
            logging.getLogger(__name__).error("%s; it is tried again", error)

    def _draw(self) -> bytes:
        try:
            from pipeline.callbacks.plot import plot_png

            return plot_png(self.history)
        except Exception as error:  # of settings, which Matplotlib reads as it loads, fonts or numbers
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise OSError(f"can't draw {self.fig_path}: {reason}") from error
