"""Callbacks that log each epoch: as a line, in a CSV file, for TensorBoard. Modules load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    csvlog="CSVLog",
    epochline="EpochLine",
    runpage="RunPage",
    selection="loggers",
    tensorboardlog="TensorBoardLog",
)
