"""The learning rate range test: train with a rising rate, and see where the loss falls.

Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, with the exponential rise and the
suggestions of fastai (https://docs.fast.ai/callback.schedule.html).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from pipeline.errors import InputError
from pipeline.io.batches import Batches

MIN_STEPS = 20
"""With fewer, the loss can't be smoothed."""
# The loss has diverged when, smoothed, it is this many times its minimum, as in fastai.
_DIVERGED = 4.0
# The loss is averaged over about this fraction of the steps. fastai's half of the steps would show a fall of the loss
# more than a decade of rates too late.
_WINDOW = 0.05
# Last steps that no valley may end in, as in fastai.
_LAST = 5


@dataclass(frozen=True)
class RangeTest:
    """The curve of a learning rate range test.

    Args:
        rates: the rate of each step, rising exponentially.
        losses: the loss of each step before its update, L2 included; the last may not be finite.
        smoothed: the losses smoothed (see `smooth`).
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]

    @property
    def diverged(self) -> bool:
        """True if the loss diverged in the last step."""
        return has_diverged(self.smoothed)

    @property
    def lowest(self) -> float:
        """The rate of the lowest smoothed loss. Larger rates undo what smaller ones reached."""
        return self.rates[self._lowest]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls most over log(rate); None if it doesn't fall."""
        # Behind the minimum, falls from a peak may be steeper.
        falling = slice(self._tenth, self._lowest + 1)
        # Between neighbours, noise has the steepest slopes: take them over a fifth of the steps.
        index = steepest_fall(self.smoothed[falling], max(1, self._tenth))
        return None if index is None else self.rates[falling][index]

    @property
    def valley(self) -> float | None:
        """The rate in the middle of the longest valley of the smoothed loss, as in fastai; None if there is none."""
        inner = slice(self._tenth, -_LAST)
        index = middle_of_valley(self.smoothed[inner])
        return None if index is None else self.rates[inner][index]

    @property
    def suggested(self) -> float | None:
        """The larger of `steepest` and `valley`: in trial runs both were below the best rate. None without either."""
        return max((rate for rate in (self.steepest, self.valley) if rate is not None), default=None)

    @property
    def _tenth(self) -> int:
        """A tenth of the steps. Suggestions leave out the first, whose smoothed losses are means of few."""
        return len(self.rates) // 10

    @property
    def _lowest(self) -> int:
        return int(np.nanargmin(self.smoothed))


def check_steps(steps: int, of_epoch: int) -> None:
    """Raise `InputError` unless the loss of `steps` can be smoothed, and an epoch, `of_epoch` steps, has as many."""
    if of_epoch < MIN_STEPS:
        raise InputError(
            f"an epoch has {of_epoch} steps; expected at least {MIN_STEPS}, to smooth the loss: lower "
            "`batch_size`, or take more images"
        )
    if not MIN_STEPS <= steps <= of_epoch:
        raise InputError(f"`steps` {steps}: expected {MIN_STEPS}, to smooth the loss, to {of_epoch}, an epoch")


def range_test(
    model: keras.Model,
    batches: Batches,
    steps: int,
    start: float = 1e-5,
    end: float = 10.0,
    advance: Callable[[int], object] = lambda count: None,
) -> RangeTest:
    """Train the compiled `model` on the first `steps` batches of epoch 0, with a rate that rises from `start` to `end`.

    Ends early if the loss diverges. The weights are of no use afterwards: build another model to train.

    Args:
        model: compiled with a loss of at least 0, and an optimizer that takes the rate as it is, without a warm-up.
        steps: from 20 to the number of batches of an epoch.
        advance: called with 1 after each step.

    Raises:
        InputError: `steps` is out of range, an image can't be read, or the first loss is not finite.
    """
    check_steps(steps, batches.steps)
    batches.set_epoch(0)
    rates, losses, smoothed = np.geomspace(start, end, steps, dtype=np.float32), [], []
    for step, rate in enumerate(rates):
        model.optimizer.learning_rate = rate
        # Keras resets its metrics first, so this is the loss of one batch.
        losses.append(float(model.train_on_batch(*batches[step], return_dict=True)["loss"]))
        smoothed.append(smooth(losses, steps))
        advance(1)
        if has_diverged(smoothed):
            break
    if not math.isfinite(losses[0]):
        raise InputError(f"the loss is {losses[0]} before any training; check the images and the network")
    # The shortest decimals for the float32 rates.
    return RangeTest([float(str(rate)) for rate in rates[: len(losses)]], losses, smoothed)


def smooth(losses: Sequence[float], steps: int) -> float:
    """Return the smoothed value of the last of `losses`, of a test of `steps` steps.

    It is the exponential moving average without the bias towards its start, as in Adam (Kingma and Ba,
    arXiv:1412.6980): the mean of all losses, weighted by beta^0 for the last, beta^1 for the one before, ...
    """
    beta = 1 - 1 / max(2.0, _WINDOW * steps)
    return float(np.average(losses, weights=beta ** np.arange(len(losses))[::-1]))


def has_diverged(smoothed: Sequence[float]) -> bool:
    """Return whether the last of the `smoothed` losses is not finite, or more than four times the lowest."""
    return not math.isfinite(smoothed[-1]) or smoothed[-1] > _DIVERGED * min(smoothed)


def steepest_fall(values: Sequence[float], reach: int) -> int | None:
    """Return the index in the middle of the `2 * reach` steps in which `values` fall most; None if they don't fall."""
    values = np.asarray(values)
    changes = values[2 * reach :] - values[: -2 * reach]
    if not len(changes) or changes.min() >= 0:
        return None
    return reach + int(changes.argmin())


def middle_of_valley(values: Sequence[float]) -> int | None:
    """Return the index of the middle of the longest valley of `values`; None if there is none.

    A valley is a strictly decreasing subsequence. As in fastai, it begins as many values before its last as it is long,
    and its middle is half-way through the second of its thirds.
    """
    values = np.asarray(values)
    lengths = np.ones(len(values), int)  # of the longest valley that ends at each value
    for end in range(1, len(values)):
        lengths[end] += lengths[:end].max(where=values[:end] > values[end], initial=0)
    length = lengths.max(initial=0)
    if length < 3:
        return None
    return int(lengths.argmax()) - length + int(length / 3) + int(length / 6)
