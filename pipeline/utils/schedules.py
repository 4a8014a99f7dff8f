"""Learning rates as functions of the epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PolynomialDecay:
    """From `initial_learning_rate` at the first epoch towards 0 after the last: rate * (1 - epoch / epochs) ** power.

    Called with the number of completed epochs, 0 to `epochs`, as `keras.callbacks.LearningRateScheduler` does.
    """

    initial_learning_rate: float
    epochs: int
    power: float = 1.0

    def __call__(self, epoch: int) -> float:
        return self.initial_learning_rate * (1.0 - epoch / self.epochs) ** self.power


@dataclass(frozen=True)
class CosineDecay:
    """From `initial_learning_rate` at the first epoch towards 0 after the last, along half a wave of the cosine.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", arXiv:1608.03983, without restarts.
    Called as `PolynomialDecay` is.
    """

    initial_learning_rate: float
    epochs: int

    def __call__(self, epoch: int) -> float:
        return self.initial_learning_rate * 0.5 * (1.0 + math.cos(math.pi * epoch / self.epochs))


DECAYS = {"poly": PolynomialDecay, "cosine": CosineDecay}


def decay_after_warmup(schedule: str, epochs: int, warmup_epochs: int) -> Callable[[int], float]:
    """The share of the learning rate that is left after so many completed epochs.

    It is 1 in the first `warmup_epochs` of all `epochs`, within which the optimizer itself raises the rate step by step
    (see `pipeline.nn.optimizer`), and falls by `schedule`, a key of `DECAYS`, over the rest, if there is any. With
    "constant" it stays 1.
    """
    if schedule == "constant":
        return lambda epoch: 1.0
    decay = DECAYS[schedule](1.0, max(epochs - warmup_epochs, 1))
    return lambda epoch: decay(max(epoch - warmup_epochs, 0))
