"""Ctrl+C, SIGTERM and the like while there is something to save."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from pipeline.callbacks.learningrate import LearningRate
from pipeline.nn.optimizer import WarmupSGD, last_learning_rate
from pipeline.utils.signals import handle_stops, write_from_handler


class Stopped(Exception):  # noqa: N818  (as KeyboardInterrupt, no error)
    """A request to stop was met; `exit_code` is what the process returns."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class StopRequest:
    """Turns the first Ctrl+C, and every other signal that asks to end, into a request, met at the end of the batch.

    A second Ctrl+C ends the process at once: whatever is being written is written under another name until it is whole.
    A context manager; the handlers that were there come back at its end.

    Attributes:
        interrupted: whether Ctrl+C asked.
        terminated: the number of the signal that asked and can't be taken back, as SIGTERM, or 0.
        is_answered: whether Ctrl+C came within `asking`.
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
        """The exit code of a process that stops on request."""
        return 128 + (self.terminated or signal.SIGINT)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Take Ctrl+C for an answer to a question: nothing is being done meanwhile that it could end at once."""
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
            write_from_handler("\nCtrl+C: finishing the batch; Ctrl+C again stops at once\n")
        else:
            write_from_handler("\nstopped at once; what came after the newest checkpoint is lost\n")
            os._exit(128 + number)


class StopMenu:
    """Decide whether a run that is asked to stop does so: on a terminal the user chooses, or changes the rate.

    Args:
        stop: the request.
        ask: called with a text, and with what becomes true when nobody waits for an answer any more; returns "go on",
            "stop", or another learning rate. None where nobody can be asked.
        rate: the owner of the learning rate.
        steps: batches in an epoch.
        last: the number of the last epoch.
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
        """Answer a request that is met after so many epochs and batches (see `BatchCheckpoint`)."""
        is_trained = batch == self.steps  # and is being validated: another rate is that of the epoch after
        if self.stop.terminated or self.ask is None or epoch + is_trained == self.last:
            return "give up" if has_failed else "stop"
        with self.stop.asking():
            answer = self.ask(self._message(epoch, batch), lambda: self.stop.is_answered or self.stop.terminated)
        if has_failed and self.stop.is_answered:  # saving has failed, and is not wanted any more
            return "give up"
        if answer in ("stop", "go on"):
            return answer
        start = (epoch + 1, 0) if is_trained else (epoch, batch)
        if not self.rate.share(start[0]):
            logging.getLogger(__name__).info("the rate has decayed to 0 after epoch %d and stays so", start[0])
            return "go on"
        rate = self.rate.change(answer / self.rate.share(start[0]), *start)
        if not is_trained:
            self.rate.model.optimizer.learning_rate = rate
        return "save"  # before anything can lose the choice

    def _message(self, epoch: int, batch: int) -> str:
        optimizer = self.rate.model.optimizer
        is_rising = isinstance(optimizer, WarmupSGD) and epoch * self.steps + batch < optimizer.warmup_steps
        rising = f", rising to {self.rate.rate_of(epoch):g}" if is_rising else ""
        return f"after epoch {epoch}, batch {batch}, learning rate {last_learning_rate(optimizer):g}{rising}:"
