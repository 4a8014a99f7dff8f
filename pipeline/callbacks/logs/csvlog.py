"""Log each epoch as a row of a CSV file."""

import csv
import io
import logging
from os import PathLike
from pathlib import Path

import keras

from pipeline.checkpoints.history import epochs_of, new_history
from pipeline.errors import InputError
from pipeline.files.atomic import WriteError, check_folder, write_atomically
from pipeline.files.regular import read_regular

_MAX_BYTES = 1 << 24


class CSVLog(keras.callbacks.CSVLogger):
    """`keras.callbacks.CSVLogger` for runs that are resumed.

    Rows have the curves of the history in alphabetical order, after the epoch, which Keras counts from 0. When a run
    starts or resumes, the file gets the rows of the epochs that are completed, and no others. A failed write is logged
    and counted, and the next epoch tries again.

    Args:
        filename: the CSV file.

    Attributes:
        history: the run's history (see `pipeline.checkpoints.history`), set by `training.fit`.
        failures: number of failed writes.

    Raises:
        InputError: (a `ValueError`) `filename` is a folder or a device, or its folder can't be written to.
    """

    def __init__(self, filename: str | PathLike) -> None:
        super().__init__(filename, append=True)
        self.path = Path(filename)
        self.history = new_history()
        self.failures = 0
        self._is_complete = True
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"`csv` {self.path} is not a file; name another")
        check_folder(self.path.parent)

    def is_foreign(self) -> bool:
        """Return whether the file holds anything else than rows of this run, and perhaps of later epochs."""
        if not self.path.exists():
            return False
        try:
            present = read_regular(self.path, _MAX_BYTES).splitlines()
        except OSError:
            return True
        expected = self._rows().encode().splitlines()
        return not expected or present[: len(expected)] != expected[: len(present)]

    def on_train_begin(self, logs: dict | None = None) -> None:
        try:
            write_atomically(self.path, self._rows().encode())
            super().on_train_begin(logs)
            self._is_complete = True
        except OSError as error:
            self._fail(error)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if not self._is_complete:
            self.on_train_begin()
        if self._is_complete:
            try:
                super().on_epoch_end(epoch, logs)
            except OSError as error:
                self._fail(error)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self.csv_file is not None:
            super().on_train_end(logs)

    def _fail(self, error: OSError) -> None:
        self._is_complete = False
        self.failures += 1
        reason = error if isinstance(error, WriteError) else WriteError(self.path, None, error)
        logging.getLogger(__name__).error("%s; the next epoch tries again", reason)

    def _rows(self) -> str:
        """Return the header and the rows of all completed epochs; nothing if there are none."""
        curves = sorted(name for name, values in self.history.items() if name != "run" and values)
        rows = io.StringIO()
        if done := epochs_of(self.history):
            writer = csv.writer(rows)
            writer.writerow(["epoch", *curves])
            for epoch in range(done):
                values = (self.history[name][epoch] for name in curves)
                writer.writerow([epoch, *("NA" if value is None else value for value in values)])
        return rows.getvalue()
