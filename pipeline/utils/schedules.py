"""Learning rates as functions of the epoch."""

import math
from collections.abc import Callable


def poly(epoch: int, epochs: int) -> float:
    """The share of the first learning rate after `epoch` of `epochs`, along a line to 0."""
    return 1.0 - epoch / epochs


def cosine(epoch: int, epochs: int) -> float:
    """The same along half a wave of the cosine.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", arXiv:1608.03983, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


DECAYS = {"poly": poly, "cosine": cosine}


def decay_after_warmup(schedule: str, epochs: int, warmup_epochs: int) -> Callable[[int], float] | None:
    """The share of the learning rate that is left after so many completed epochs.

    It is 1 in the first `warmup_epochs` of all `epochs`, within which the optimizer itself raises the rate step by step
    (see `pipeline.nn.optimizer`), and falls by `schedule`, a key of `DECAYS`, over the rest, if there is any. With
    "constant" there is no decay: None.
    """
    if schedule == "constant":
        return None
    return lambda epoch: DECAYS[schedule](max(epoch - warmup_epochs, 0), max(epochs - warmup_epochs, 1))
