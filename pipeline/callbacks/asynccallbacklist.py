"""Callbacks that don't keep the device waiting, and those of a run that is resumed."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import keras
from keras.src.utils.python_utils import is_default, pythonify_logs
from keras.src.utils.tracking import DotNotTrackScope

from pipeline.callbacks.learningrate import LearningRate
from pipeline.checkpoints.checkpoint import Checkpoint


class AsyncCallbackList(keras.callbacks.CallbackList):
    """Run callbacks after a batch while the device still computes it; arguments as in the class it extends.

    Keras first turns a batch's logs into numbers, for which it waits until the device has done the step, and only then
    prepares the next one. Here the logs of a batch are the backend's scalars for this project's callbacks and Keras'
    own; whoever uses one waits for it, as the progress bar does each time it draws itself. Callbacks of others get
    numbers, as from Keras, if they ask for batches at all. The logs of an epoch are numbers.

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
    """The callbacks of a run, which takes a `fit` of its own for what is left of an epoch, and one for the rest.

    `on_train_begin` comes once, at `begin`, and `on_train_end` at `end`, however many times `fit` or `evaluate` is
    called between. Batches are numbered within their epoch, also where that is resumed inside.

    Args:
        callbacks: in the order in which they are called.
        rate: the one of them that owns the learning rate.
        resumed: the checkpoint that the run goes on from. The model, its optimizer, and callbacks with a state in it
            get that back after `on_train_begin`, and inside an epoch once more after the epoch's `on_epoch_begin`.
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
        """Begin training, once a process."""
        self.model.stop_training = False
        super().on_train_begin()
        if self._resumed is not None:
            self._resumed.restore(self.model)
        self._set_states()

    def end(self) -> None:
        """End training, once a process."""
        super().on_train_end(self._logs)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Keras begins a `fit`, one of the run's."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Keras ends a `fit`, one of the run's."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        is_inside = self._resumed is not None and epoch == self._resumed.epoch
        self._first_batch = self._resumed.batch if is_inside else 0
        super().on_epoch_begin(epoch, logs)
        if self._first_batch:
            # What callbacks do as an epoch begins they did before the checkpoint: it isn't done twice.
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
    """Those of `callbacks` with `get_state` and `set_state`, by their class, of several of one class with a number."""
    found: dict[str, keras.callbacks.Callback] = {}
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            kind = type(callback).__name__
            same = sum(type(other).__name__ == kind for other in found.values())
            found[f"{kind}_{same + 1}" if same else kind] = callback
    return found


def _logs_for(callback: keras.callbacks.Callback, hook: str, logs: dict | None) -> dict | None:
    """A batch's `logs` as `callback` takes them in its `hook`."""
    kind = type(callback)
    is_own = kind.__module__.startswith(("pipeline.", "keras.")) and kind is not keras.callbacks.LambdaCallback
    if is_own or (is_default(getattr(callback, hook)) and is_default(callback.on_batch_end)):
        return logs
    return pythonify_logs(logs)
