"""The logs that a script's flags ask for."""

from os import PathLike

import keras

from pipeline.callbacks.logs.csvlog import CSVLog
from pipeline.callbacks.logs.runpage import RunPage
from pipeline.callbacks.logs.tensorboardlog import TensorBoardLog


def loggers(
    csv: str | PathLike | None, tensorboard: str | PathLike | None, page: str | PathLike | None
) -> list[keras.callbacks.Callback]:
    """Return the logs that are asked for: a `CSVLog`, a `TensorBoardLog` and a `RunPage`, each with its path."""
    asked = {CSVLog: csv, TensorBoardLog: tensorboard, RunPage: page}
    return [log(path) for log, path in asked.items() if path]
