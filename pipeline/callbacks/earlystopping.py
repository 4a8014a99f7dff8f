"""Early stopping that goes on where it was."""

import keras

from pipeline.errors import InputError
from pipeline.files.strictjson import is_count, is_number


class EarlyStopping(keras.callbacks.EarlyStopping):
    """`keras.callbacks.EarlyStopping` whose patience outlives a stop: an example of a callback with a state of its own.

    A checkpoint holds what `get_state` returns, plain JSON, and `set_state` gets it back after `on_train_begin`.

    Args:
        args, options: those of `keras.callbacks.EarlyStopping`, but for `restore_best_weights`: checkpoints hold the
            best weights.

    Raises:
        InputError: (a `ValueError`) `restore_best_weights` is given.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        if self.restore_best_weights:
            raise InputError("restore_best_weights: the state would be larger than a checkpoint takes; see `keep`")

    def get_state(self) -> dict:
        best = None if self.best is None else float(self.best)
        return {"wait": self.wait, "best": best, "best_epoch": self.best_epoch, "stopped_epoch": self.stopped_epoch}

    def set_state(self, state: dict) -> None:
        counts = ("wait", "best_epoch", "stopped_epoch")
        if not isinstance(state, dict) or not all(is_count(state.get(name)) for name in counts):
            raise InputError("the state of EarlyStopping is not one that it saved")
        if not (state.get("best") is None or is_number(state["best"])):
            raise InputError("the best value of EarlyStopping is no number")
        self.wait, self.best_epoch, self.stopped_epoch = (state[name] for name in counts)
        self.best = state["best"]
        if self.stopped_epoch and self.wait >= self.patience:
            self.model.stop_training = True
