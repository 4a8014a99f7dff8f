"""Callback lists: one that doesn't block the device, and one that resumes a run."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import keras
from keras.src.utils.python_utils import is_default, pythonify_logs
from keras.src.utils.tracking import DotNotTrackScope

from pipeline.callbacks.learningrate import LearningRate
from pipeline.checkpoints.checkpoint import Checkpoint


class AsyncCallbackList(keras.callbacks.CallbackList):
    """A callback list that doesn't wait for the device after a batch. Arguments as in `keras.callbacks.CallbackList`.

    Keras converts a batch's logs to numbers first, which waits for the device, and only then prepares the next batch.
    Here the callbacks of this project and of Keras, except `LambdaCallback`, get the backend's scalars; reading one
    waits for the device, as the progress bar does when it redraws. Other callbacks with a batch hook get numbers. The
    logs of an epoch are always numbers.

    On JAX, Keras' tracker also searches the state after each step (680 arrays for ResNet-56) for variables. It never
    finds one, and the search takes as long as launching a step, so the tracker is off while a batch is computed. Steps
    are then launched well before they finish; `jax_state_sync` waits for them.

    A context manager: call `fit` inside it, so that the tracker is on again after an error.
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
            callback.on_train_batch_end(batch, _logs_for(callback, "on_train_batch_end", logs))

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        for callback in self.callbacks:
            callback.on_test_batch_begin(batch, logs)
        self._begin()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch.close()
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, _logs_for(callback, "on_test_batch_end", logs))

    def _begin(self) -> None:
        if keras.backend.backend() == "jax":
            self._batch.enter_context(DotNotTrackScope())


class RunCallbacks(AsyncCallbackList):
    """The callbacks of a run, which may take two calls of `fit`: the rest of a resumed epoch, and the epochs after it.

    `begin` calls `on_train_begin` and `end` calls `on_train_end`, once each, however often `fit` or `evaluate` is
    called in between. In a resumed epoch, batches keep their numbers.

    Args:
        callbacks: in the order in which to call them.
        rate: the one of them that owns the learning rate.
        resumed: the checkpoint to resume from, if any. Model, optimizer and stateful callbacks are restored from it
            after `on_train_begin` and, if it is inside an epoch, again after that epoch's `on_epoch_begin`.
        options: those of `keras.callbacks.CallbackList`.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        rate: LearningRate,
        resumed: Checkpoint | None = None,
        **options,
    ) -> None:
        super().__init__(callbacks, **options)
        self.stateful = stateful(callbacks)
        self._rate = rate
        self._resumed = resumed
        self._first_batch = 0
        self._logs: dict | None = None

    def begin(self) -> None:
        """Begin training; call it once per process."""
        self.model.stop_training = False
        super().on_train_begin()
        if self._resumed is not None:
            self._resumed.restore(self.model)
        self._set_states()

    def end(self) -> None:
        """End training; call it once per process."""
        super().on_train_end(self._logs)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Do nothing at the start of `fit`: `begin` has already called the callbacks."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Do nothing at the end of `fit`: `end` will call the callbacks."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        is_inside = self._resumed is not None and epoch == self._resumed.epoch
        self._first_batch = self._resumed.batch if is_inside else 0
        super().on_epoch_begin(epoch, logs)
        if self._first_batch:
            # The checkpoint includes what callbacks did at the start of the epoch; undo what they have just repeated.
            self._resumed.restore(self.model)
            self._rate.resume(epoch, self._first_batch)
            self._set_states()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._logs = logs
        super().on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_begin(self._first_batch + batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(self._first_batch + batch, logs)

    def _set_states(self) -> None:
        states = self._resumed.callbacks if self._resumed else {}
        for name, callback in self.stateful.items():
            if name in states:
                callback.set_state(states[name])


def stateful(callbacks: Sequence[keras.callbacks.Callback]) -> Mapping[str, keras.callbacks.Callback]:
    """Return the `callbacks` with `get_state` and `set_state` by class name; repeated names end in `_2`, `_3`, ..."""
    found: dict[str, keras.callbacks.Callback] = {}
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            name = type(callback).__name__
            same = sum(type(other).__name__ == name for other in found.values())
            found[f"{name}_{same + 1}" if same else name] = callback
    return found


def _logs_for(callback: keras.callbacks.Callback, hook: str, logs: dict | None) -> dict | None:
    """Return a batch's `logs` in the form that the `hook` of `callback` takes."""
    cls = type(callback)
    takes_scalars = cls.__module__.startswith(("pipeline.", "keras.")) and cls is not keras.callbacks.LambdaCallback
    if takes_scalars or (is_default(getattr(callback, hook)) and is_default(callback.on_batch_end)):
        return logs
    return pythonify_logs(logs)
