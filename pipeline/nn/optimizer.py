"""SGD whose learning rate warms up."""

import keras
import numpy as np


class WarmupSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, its rate raised linearly over the first `warmup_steps` steps.

    Step s, counted from 0, goes at (s + 1) / `warmup_steps` of the rate that is set, which is reached at the last of
    them. Goyal et al., "Accurate, Large Minibatch SGD", arXiv:1706.02677. The share is computed within the step, from
    the optimizer's own count of steps: it costs nothing, and a run resumed inside of the warm-up goes on with it. The
    variables are those of SGD: the one of the learning rate holds the rate that is set.

    Args:
        warmup_steps: number of steps; 0 is plain SGD.
        args, options: those of `keras.optimizers.SGD`.
    """

    def __init__(self, *args, warmup_steps: int = 0, **options) -> None:
        super().__init__(*args, **options)
        self.warmup_steps = warmup_steps

    def _get_current_learning_rate(self):
        """What Keras multiplies gradients by, on every backend inside of the compiled step."""
        rate = super()._get_current_learning_rate()
        if not self.warmup_steps:
            return rate
        steps = keras.ops.cast(self.iterations + 1, rate.dtype)
        return rate * keras.ops.minimum(1.0, steps / float(self.warmup_steps))


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate of the step that `optimizer` took last, in the shortest decimals that name the float32 number.

    In a warm-up `optimizer.learning_rate` is already that of the step that comes next.
    """
    rate = np.float32(keras.ops.convert_to_numpy(optimizer.learning_rate))
    warmup_steps = getattr(optimizer, "warmup_steps", 0)
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations))
    if 0 < steps <= warmup_steps:
        rate *= np.float32(steps / min(steps + 1, warmup_steps))
    return float(str(rate))
