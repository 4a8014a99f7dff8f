"""What happens after each epoch, and each batch, of a training run."""

from pipeline.callbacks.asynccallbacklist import AsyncCallbackList
from pipeline.callbacks.batchcheckpoint import BatchCheckpoint
from pipeline.callbacks.epochcheckpoint import EpochCheckpoint
from pipeline.callbacks.epochline import EpochLine
from pipeline.callbacks.trainingmonitor import TrainingMonitor
from pipeline.callbacks.weightaverage import WeightAverage

__all__ = ["AsyncCallbackList", "BatchCheckpoint", "EpochCheckpoint", "EpochLine", "TrainingMonitor", "WeightAverage"]
