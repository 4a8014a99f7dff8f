"""Callbacks that don't keep the device waiting."""

from contextlib import ExitStack
from typing import Self

import keras
from keras.src.utils.tracking import DotNotTrackScope


class AsyncCallbackList(keras.callbacks.CallbackList):
    """Runs callbacks after a batch while the device still computes it; arguments as in the class it extends.

    Keras first turns a batch's logs into numbers, for which it waits until the device has done the step, and only then
    prepares the next one. Here the logs of a batch are the backend's scalars; whoever uses one waits for it, as the
    progress bar does each time it draws itself. The logs of an epoch are numbers.

    On JAX, Keras also hands its tracker the state after each step, 680 arrays of ResNet-56, to look for variables among
    them. There are none, and looking takes as long as starting a step: the tracker rests while a batch is computed.
    Steps may be started well before they are done then; whoever needs the state (`jax_state_sync`) waits for them.

    A context manager: `fit` runs inside, so that the tracker works again whatever happens to a batch.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._batch = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error) -> None:
        self._batch.close()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        for callback in self.callbacks:
            callback.on_train_batch_begin(batch, logs)
        self._begin()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch.close()
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        for callback in self.callbacks:
            callback.on_test_batch_begin(batch, logs)
        self._begin()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch.close()
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)

    def _begin(self) -> None:
        if keras.backend.backend() == "jax":
            self._batch.enter_context(DotNotTrackScope())
