"""The logs that a script's flags ask for."""

from os import PathLike

import keras

from pipeline.callbacks.logs.csvlog import CSVLog
from pipeline.callbacks.logs.tensorboardlog import TensorBoardLog


def loggers(csv: str | PathLike | None, tensorboard: str | PathLike | None) -> list[keras.callbacks.Callback]:
    """Return a `CSVLog` for the file `csv` and a `TensorBoardLog` for the folder `tensorboard`, if they are given."""
    return [*([CSVLog(csv)] if csv else []), *([TensorBoardLog(tensorboard)] if tensorboard else [])]
