"""What happens after each epoch of a training run."""

from pipeline.callbacks.epochcheckpoint import EpochCheckpoint
from pipeline.callbacks.epochline import EpochLine
from pipeline.callbacks.trainingmonitor import TrainingMonitor

__all__ = ["EpochCheckpoint", "EpochLine", "TrainingMonitor"]
