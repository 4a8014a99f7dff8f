"""Learning rates as functions of the epoch."""

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
