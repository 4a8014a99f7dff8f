"""Keeping and validating averaged weights."""

import keras

from pipeline.io.batches import Batches
from pipeline.nn.average import MovingAverage


class WeightAverage(keras.callbacks.Callback):
    """Brings `average` up to date after each step, and validates it at the end of each epoch.

    Adds `ema_val_loss` and `ema_val_accuracy` to the logs of the epoch, so it comes before whoever keeps those.

    Args:
        average: of the model's weights.
        val: what it is validated on.
        callbacks: what is called at each batch of that validation.
    """

    def __init__(
        self, average: MovingAverage, val: Batches, callbacks: keras.callbacks.CallbackList | None = None
    ) -> None:
        super().__init__()
        self.average = average
        self.val = val
        self.callbacks = callbacks

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.average.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        with self.average.in_place():
            results = self.model.evaluate(self.val.for_keras(), verbose=0, return_dict=True, callbacks=self.callbacks)
        if logs is not None:
            logs |= {f"ema_val_{name}": value for name, value in results.items()}
