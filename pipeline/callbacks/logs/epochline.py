"""Progress without a terminal."""

import logging

import keras

from pipeline.checkpoints.history import is_curve
from pipeline.nn.optimizer import last_learning_rate


class EpochLine(keras.callbacks.Callback):
    """Log one line per epoch."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        numbers = {name: value for name, value in (logs or {}).items() if is_curve(name, value)}
        seconds = f"  {numbers.pop('seconds'):.1f} s" if "seconds" in numbers else ""
        values = "".join(f"  {name} {value:.4f}" for name, value in numbers.items())
        rate = last_learning_rate(self.model.optimizer)
        logging.getLogger(__name__).info(
            f"epoch {epoch + 1}/{self.params['epochs']}{values}  learning rate {rate:g}{seconds}"
        )
