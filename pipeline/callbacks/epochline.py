"""Progress where no terminal shows a bar."""

import logging
import time

import keras

from pipeline.nn.optimizer import last_learning_rate


class EpochLine(keras.callbacks.Callback):
    """Reports one plain line an epoch."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        seconds = time.perf_counter() - self._start
        learning_rate = last_learning_rate(self.model.optimizer)
        values = "".join(f"  {name} {value:.4f}" for name, value in (logs or {}).items() if name != "learning_rate")
        logging.getLogger(__name__).info(
            f"epoch {epoch + 1}/{self.params['epochs']}{values}  learning rate {learning_rate:g}  {seconds:.1f} s"
        )
