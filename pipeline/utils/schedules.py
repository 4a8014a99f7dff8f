"""Learning rate schedules."""

import math
from collections.abc import Callable


def poly(epoch: int, epochs: int) -> float:
    """Return the factor of the initial rate after `epoch` of `epochs`: linear, from 1 to 0."""
    return 1.0 - epoch / epochs


def cosine(epoch: int, epochs: int) -> float:
    """Return the factor of the initial rate after `epoch` of `epochs`: half a cosine, from 1 to 0.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", arXiv:1608.03983, without restarts.
    """
    return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


DECAYS = {"poly": poly, "cosine": cosine}


def decay_after_warmup(schedule: str, epochs: int, warmup_epochs: int) -> Callable[[int], float] | None:
    """Return the function from completed epochs to the factor of the learning rate; None for "constant".

    The factor is 1 in the first `warmup_epochs`, in which the optimizer raises the rate step by step (see
    `pipeline.nn.optimizer`), and follows `schedule`, a key of `DECAYS`, over the rest of the `epochs`.
    """
    if schedule == "constant":
        return None
    return lambda epoch: DECAYS[schedule](max(epoch - warmup_epochs, 0), max(epochs - warmup_epochs, 1))
