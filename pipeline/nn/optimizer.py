"""SGD with a learning rate warm-up."""

import keras
import numpy as np


class WarmupSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` whose rate rises linearly over the first `warmup_steps` steps.

    Step s, counted from 0, uses min(1, (s + 1) / `warmup_steps`) times the set rate (Goyal et al., "Accurate, Large
    Minibatch SGD", arXiv:1706.02677). The factor is computed inside the step from the optimizer's own step counter, so
    it costs nothing and resumes inside the warm-up. The variables are SGD's; the learning rate variable holds the set
    rate.

    Args:
        warmup_steps: number of steps; 0 is plain SGD.
        args, options: those of `keras.optimizers.SGD`.
    """

    def __init__(self, *args, warmup_steps: int = 0, **options) -> None:
        super().__init__(*args, **options)
        self.warmup_steps = warmup_steps
        self._is_stepping = False

    def get_config(self) -> dict:
        return super().get_config() | {"warmup_steps": self.warmup_steps}

    def rate_of(self, step):
        """Return the learning rate of `step`, an int or a scalar integer tensor, counted from 0."""
        rate = super()._get_current_learning_rate()
        if not self.warmup_steps:
            return rate
        steps = keras.ops.cast(step + 1, rate.dtype)
        return rate * keras.ops.minimum(1.0, steps / float(self.warmup_steps))

    def apply(self, grads, trainable_variables=None):
        self._is_stepping = True
        try:
            return super().apply(grads, trainable_variables)
        finally:
            self._is_stepping = False

    def _get_current_learning_rate(self):
        """Return the warm-up's rate inside a step, else the set rate, which callbacks may change."""
        return self.rate_of(self.iterations) if self._is_stepping else super()._get_current_learning_rate()


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the rate of the last step of `optimizer`, as the shortest decimal for its float32 value.

    Before the first step, it is the rate of the first.
    """
    rate = optimizer.learning_rate
    if isinstance(optimizer, WarmupSGD):
        rate = optimizer.rate_of(max(int(keras.ops.convert_to_numpy(optimizer.iterations)) - 1, 0))
    return float(str(np.float32(keras.ops.convert_to_numpy(rate))))


def base_learning_rate(optimizer: keras.optimizers.Optimizer) -> object:
    """Return the set rate of `optimizer`, a float, which a warm-up rises to; for a schedule, its config."""
    return getattr(optimizer, "inner_optimizer", optimizer).get_config()["learning_rate"]
