"""Early stopping that resumes exactly."""

import keras

from pipeline.errors import InputError
from pipeline.files.strictjson import is_count, is_number


class EarlyStopping(keras.callbacks.EarlyStopping):
    """`keras.callbacks.EarlyStopping` whose state is in the checkpoints: an example of a stateful callback.

    Checkpoints store the result of `get_state`, a JSON value; `set_state` restores it after `on_train_begin`.

    Args:
        args, options: those of `keras.callbacks.EarlyStopping` without `restore_best_weights`, whose arrays JSON can't
            hold; use the run's best checkpoint instead.

    Raises:
        InputError: (a `ValueError`) `restore_best_weights` is set.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        if self.restore_best_weights:
            raise InputError("restore_best_weights is True; expected False: checkpoints can't hold the best weights")

    def get_state(self) -> dict:
        """Return the best value and the counts of epochs, as plain JSON."""
        best = None if self.best is None else float(self.best)
        return {"wait": self.wait, "best": best, "best_epoch": self.best_epoch, "stopped_epoch": self.stopped_epoch}

    def set_state(self, state: dict) -> None:
        """Restore a state of `get_state`; stop the training again if it had stopped it.

        Raises:
            InputError: `state` is not one of `get_state`.
        """
        counts = ("wait", "best_epoch", "stopped_epoch")
        if not isinstance(state, dict) or not all(is_count(state.get(name)) for name in counts):
            raise InputError(f"the state of EarlyStopping is {state!a:.100}; expected the counts {', '.join(counts)}")
        if not (state.get("best") is None or is_number(state["best"])):
            raise InputError(f"the state of EarlyStopping has best {state['best']!a:.100}; expected a number or null")
        self.wait, self.best_epoch, self.stopped_epoch = (state[name] for name in counts)
        self.best = state["best"]
        if self.stopped_epoch and self.wait >= self.patience:
            self.model.stop_training = True
