"""Handle Ctrl+C, SIGTERM and similar signals during training."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from pipeline.callbacks.learningrate import LearningRate
from pipeline.errors import InputError
from pipeline.nn.optimizer import WarmupSGD, last_learning_rate
from pipeline.utils.signals import handle_stops, write_from_handler


class Stopped(Exception):  # noqa: N818  (not an error, like KeyboardInterrupt)
    """The run has stopped, on request or by a callback inside an epoch; the process exits with `exit_code`."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class StopRequest:
    """Record Ctrl+C, or another signal to stop, as a request that is handled after the batch.

    A second Ctrl+C exits at once. It damages no file: each has a temporary name until it is complete. A context
    manager, which restores the previous signal handlers on exit.

    Attributes:
        interrupted: True after Ctrl+C.
        terminated: number of another signal, such as SIGTERM, which can't be revoked; 0 for none.
        is_answered: True after Ctrl+C inside `asking`.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.terminated = 0
        self.is_answered = False
        self._is_asking = False

    def __bool__(self) -> bool:
        return self.interrupted or bool(self.terminated)

    def __enter__(self) -> Self:
        self._earlier = handle_stops(self._request)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """Exit code of a process that stops on request."""
        return 128 + (self.terminated or signal.SIGINT)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Treat Ctrl+C as the answer to a question inside this context."""
        self.is_answered, self._is_asking = False, True
        try:
            yield
        finally:
            self._is_asking = False

    def _request(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            if not self.terminated:
                self.terminated = number
                write_from_handler(f"\n{signal.Signals(number).name}: finishing the batch\n")
        elif self._is_asking:
            self.is_answered = True
        elif not self.interrupted:
            self.interrupted = True
            write_from_handler("\nCtrl+C: finishing the batch; press it again to stop at once\n")
        else:
            write_from_handler("\nstopped at once; training after the newest checkpoint is lost\n")
            os._exit(128 + number)


class StopMenu:
    """Decide how to handle a request to stop; on a terminal, ask whether to stop, continue or change the learning rate.

    Args:
        stop: the request.
        ask: asks the user, given a text and a function that returns true once an answer is no longer needed. Returns
            "continue", "stop", or a learning rate. None without a terminal.
        rate: the callback that owns the learning rate.
        steps: batches per epoch.
        last: number of the last epoch.
    """

    def __init__(
        self,
        stop: StopRequest,
        ask: Callable[[str, Callable[[], bool]], str | float] | None,
        rate: LearningRate,
        steps: int,
        last: int,
    ) -> None:
        self.stop = stop
        self.ask = ask
        self.rate = rate
        self.steps = steps
        self.last = last

    def __call__(self, epoch: int, batch: int, has_failed: bool) -> str:
        """Return the decision after `epoch` epochs and `batch` batches (see `on_stop` of `BatchCheckpoint`).

        `has_failed` is True if a save has just failed.
        """
        is_trained = batch == self.steps  # during validation, a new rate takes effect in the next epoch
        if self.stop.terminated or self.ask is None or epoch + is_trained == self.last:
            return "abort" if has_failed else "stop"
        with self.stop.asking():
            answer = self.ask(f"{self.position(epoch, batch)}:", lambda: self.stop.is_answered or self.stop.terminated)
        if has_failed and self.stop.is_answered:  # a second Ctrl+C, after a failed save
            return "abort"
        if answer in ("stop", "continue"):
            return answer
        try:
            self.rate.change_now(answer, epoch, batch, self.steps)
        except InputError as error:
            logging.getLogger(__name__).info("%s", error)
            return "continue"
        return "save"  # so that the change can't be lost

    def position(self, epoch: int, batch: int) -> str:
        """Describe the point after `epoch` epochs and `batch` batches, and the learning rate there."""
        optimizer = self.rate.model.optimizer
        is_rising = isinstance(optimizer, WarmupSGD) and epoch * self.steps + batch < optimizer.warmup_steps
        rising = f", rising to {self.rate.rate_of(epoch):g}" if is_rising else ""
        in_epoch = f"in epoch {epoch + 1} of {self.last}, after batch {batch} of {self.steps}"
        point = in_epoch if batch else f"after epoch {epoch} of {self.last}"
        chosen = self.rate.next_rate()
        following = f", {chosen:g} from epoch {epoch + 2} on" if chosen is not None else ""
        return f"{point}, learning rate {last_learning_rate(optimizer):g}{rising}{following}"
