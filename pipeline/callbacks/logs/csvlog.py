"""Log each epoch as a row of a CSV file."""

import io
from os import PathLike
from pathlib import Path

import keras

from pipeline.callbacks.trainingmonitor import CurveWriter
from pipeline.checkpoints.history import epochs_of
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder, write_atomically
from pipeline.files.regular import read_regular


class CSVLog(CurveWriter):
    """Write the curves of the history as `keras.callbacks.CSVLogger` does, to a file that is complete at any time.

    A row is an epoch, which Keras counts from 0; the columns are the curves in alphabetical order. `CSVLogger` itself
    would append rows of epochs that a resumed run trains again. A failed write is logged and counted, and the next
    epoch tries again.

    Args:
        filename: the CSV file.

    Attributes:
        history: the run's history (see `pipeline.checkpoints.history`), set by `training.fit`.
        failures, is_written: as of `CurveWriter`.

    Raises:
        InputError: (a `ValueError`) `filename` is a folder or a device, or its folder can't be written to.
    """

    def __init__(self, filename: str | PathLike) -> None:
        super().__init__()
        self.path = Path(filename)
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"`csv` {self.path} is not a file; name another")
        check_folder(self.path.parent)

    def is_foreign(self) -> bool:
        """Return whether the file holds anything else than rows of the history, such as rows of later epochs."""
        if not self.path.exists():
            return False
        expected = self._rows()
        try:
            return not expected.startswith(read_regular(self.path, len(expected)))
        except OSError:  # it is longer, or can't be read
            return True

    def on_train_begin(self, logs: dict | None = None) -> None:
        if epochs_of(self.history):  # of a resumed run, whose file may have been moved aside
            self.write()

    def write_files(self) -> None:
        write_atomically(self.path, self._rows())

    def _rows(self) -> bytes:
        logger = keras.callbacks.CSVLogger(self.path)
        logger.csv_file = io.StringIO()
        curves = {name: values for name, values in self.history.items() if name != "run" and values}
        for epoch in range(epochs_of(self.history)):
            values = {name: values[epoch] for name, values in curves.items()}
            logger.on_epoch_end(epoch, {name: "NA" if value is None else value for name, value in values.items()})
        return logger.csv_file.getvalue().encode()
