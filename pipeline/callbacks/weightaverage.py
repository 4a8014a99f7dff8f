"""Average the weights during training, and validate the averages."""

import keras

from pipeline.io.batches import Batches
from pipeline.nn.average import MovingAverage


class WeightAverage(keras.callbacks.Callback):
    """Update a moving average of all weights after each step, and validate it after each epoch.

    Adds `ema_val_loss`, `ema_val_accuracy`, ... to the epoch's logs, so list it before callbacks that read them. The
    run's checkpoints also hold the averages, and the trained model has them.

    Args:
        decay: decay of the average, above 0 and below 1 (see `pipeline.nn.average`); 0 turns it off.
        val: batches to validate the averages on.

    Attributes:
        average: the average; None before training, or if turned off.
        callbacks: called at each batch while the averages are validated.
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
        """Start an average from the model's current weights, as if after `steps` steps; None if turned off."""
        self.average = MovingAverage(self.model, self.decay, steps) if self.decay else None
        return self.average

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.average is not None:
            self.average.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.average is None:
            return
        with self.average.swapped_in():
            results = self.model.evaluate(self.val.for_keras(), verbose=0, return_dict=True, callbacks=self.callbacks)
        if logs is not None:
            logs |= {f"ema_val_{name}": value for name, value in results.items()}
