"""Keeping and validating averaged weights."""

import keras

from pipeline.io.batches import Batches
from pipeline.nn.average import MovingAverage


class WeightAverage(keras.callbacks.Callback):
    """Keep a moving average of all weights, brought up to date after each step and validated after each epoch.

    Adds `ema_val_loss`, `ema_val_accuracy`, ... to the logs of the epoch, so it comes before whoever keeps those. In a
    run, checkpoints hold the averages too, and the trained model has them.

    Args:
        decay: of the average, above 0, below 1 (see `pipeline.nn.average`); 0 keeps none.
        val: what the averages are validated on.

    Attributes:
        average: the average; None before training begins, and where none is kept.
        callbacks: what is called at each batch of the validation of averages.
    """

    def __init__(self, decay: float, val: Batches) -> None:
        super().__init__()
        self.decay = decay
        self.val = val
        self.average: MovingAverage | None = None
        self.callbacks: keras.callbacks.CallbackList | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.average is None and self.decay:
            self.start(0)

    def start(self, steps: int) -> MovingAverage | None:
        """Begin an average, if one is kept, after as many `steps`; of what the model's weights are now."""
        self.average = MovingAverage(self.model, self.decay, steps) if self.decay else None
        return self.average

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.average is not None:
            self.average.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.average is None:
            return
        with self.average.in_place():
            results = self.model.evaluate(self.val.for_keras(), verbose=0, return_dict=True, callbacks=self.callbacks)
        if logs is not None:
            logs |= {f"ema_val_{name}": value for name, value in results.items()}
