"""Callbacks for Keras, and the parts of a run that are built on them. Names load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    asynccallbacklist="AsyncCallbackList RunCallbacks",
    batchcheckpoint="BatchCheckpoint",
    batchfeed="BatchFeed EpochClock",
    earlystopping="EarlyStopping",
    epochcheckpoint="EpochCheckpoint",
    epochline="EpochLine",
    learningrate="LearningRate",
    trainingmonitor="TrainingMonitor",
    weightaverage="WeightAverage",
)
