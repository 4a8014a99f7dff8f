"""SGD whose learning rate warms up."""

import keras
import numpy as np


class WarmupSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, its rate raised linearly over the first `warmup_steps` steps.

    Step s, counted from 0, goes at (s + 1) / `warmup_steps` of the rate that is set, which is reached at the last of
    them. Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677. The factor is computed within the step, from
    the optimizer's own count of steps: it costs nothing, and a run resumed inside of the warm-up goes on with it. The
    variables are those of SGD: the one of the learning rate holds the rate that is set.

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
        """The learning rate of `step`, counted from 0, a scalar integer tensor or Python's."""
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
        """What `learning_rate` is: within a step the risen rate, elsewhere the one set, which callbacks may change."""
        return self.rate_of(self.iterations) if self._is_stepping else super()._get_current_learning_rate()


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate of the step that `optimizer` took last, in the shortest decimals that name the float32 number.

    In a warm-up `optimizer.learning_rate` is already that of the step that comes next; before the first step both are.
    """
    rate = optimizer.learning_rate
    if isinstance(optimizer, WarmupSGD):
        rate = optimizer.rate_of(max(int(keras.ops.convert_to_numpy(optimizer.iterations)) - 1, 0))
    return float(str(np.float32(keras.ops.convert_to_numpy(rate))))


def base_learning_rate(optimizer: keras.optimizers.Optimizer) -> object:
    """The rate that `optimizer` is set to, a float, in a warm-up the one to rise to; of a schedule its config."""
    return getattr(optimizer, "inner_optimizer", optimizer).get_config()["learning_rate"]
