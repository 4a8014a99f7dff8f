"""Log each epoch for TensorBoard."""

import logging
import re
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import keras

from pipeline.errors import InputError
from pipeline.files.atomic import check_folder


class TensorBoardLog(keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard` for runs that are resumed: the curves of each epoch and the learning rate.

    Each process writes to a folder of its own, `log_dir`/SCRIPT-IDENTITY/sitting-N, with subfolders `train` and
    `validation`. The steps are epochs, which Keras counts from 0. A failed write is logged and counted.

    Args:
        log_dir: folder to pass to TensorBoard as --logdir, for any number of runs.

    Attributes:
        failures: number of failed writes.

    Raises:
        InputError: (a `ValueError`) TensorFlow or TensorBoard is not installed, or the folder can't be written to.
    """

    def __init__(self, log_dir: str | PathLike) -> None:
        for package in ("tensorflow", "tensorboard"):
            if find_spec(package) is None:
                raise InputError(
                    f"`tensorboard` {log_dir}: {package} is not installed; install requirements-tensorboard.txt"
                )
        check_folder(Path(log_dir))
        if keras.backend.backend() != "tensorflow":
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")  # or it would take the GPU's memory
        super().__init__(log_dir, write_graph=False)
        self.folder = Path(log_dir)
        self.failures = 0

    def bind(self, script: str, identity: str, sitting: int) -> list[Path]:
        """Write to the folder of the process number `sitting` of a run, counted from 1.

        Returns:
            The existing folders of this and later processes, which the run, resumed from an earlier state, supersedes.
        """
        run = self.folder / f"{script}-{identity}"
        self.log_dir = str(run / f"sitting-{sitting}")
        numbers = {path: re.fullmatch(r"sitting-(\d+)", path.name) for path in run.glob("sitting-*")}
        return sorted(path for path, number in numbers.items() if number and int(number[1]) >= sitting)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Do nothing: the files are created at the end of the first epoch."""

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Do nothing: batches are not logged."""

    on_train_batch_end = on_test_batch_begin = on_train_batch_begin

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Do nothing: `on_epoch_end` logs the validation."""

    on_test_end = on_test_begin

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        try:
            super().on_epoch_end(epoch, logs)
            for writer in self._writers.values():
                writer.flush()
        except Exception as error:  # TensorFlow has exceptions of its own for each reason
            self._fail(error)

    def on_train_end(self, logs: dict | None = None) -> None:
        try:
            self._close_writers()
        except Exception as error:
            self._fail(error)

    def _collect_learning_rate(self, logs: dict) -> dict:
        """Return `logs`, which hold the rate already: during a warm-up, Keras would log the rate that it rises to."""
        return logs

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        first = str(error).partition("\n")[0]
        reason = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", first).strip() or type(error).__name__  # TensorFlow's operations
        logging.getLogger(__name__).error("can't write to %s: %s", self.log_dir, reason)
