"""Keras callbacks, including those that every run adds. Modules load on first use."""

from pipeline.utils.lazy import names

__getattr__, __all__ = names(
    __name__,
    asynccallbacklist="AsyncCallbackList RunCallbacks",
    batchcheckpoint="BatchCheckpoint",
    batchfeed="BatchFeed EpochClock",
    earlystopping="EarlyStopping",
    epochcheckpoint="EpochCheckpoint",
    learningrate="LearningRate",
    logs="CSVLog EpochLine RunPage TensorBoardLog loggers",
    trainingmonitor="TrainingMonitor",
    weightaverage="WeightAverage",
)
