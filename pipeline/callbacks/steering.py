"""Carry out the requests that other processes make to a run."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.callbacks.stopping import StopMenu, StopRequest
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.checkpoints.history import epochs_of, is_curve
from pipeline.errors import InputError
from pipeline.files.requests import Answer, Inbox, Request
from pipeline.utils.text import duration

# Seconds between two looks at the inboxes.
_PAUSE = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Requests:
    """What a run can be asked.

    Args:
        stop: the request to stop that signals make.
        inboxes: the requests of other processes.
        leftovers: those that were left to a process that was killed, each with its inbox.
        superseded: why a new rate that was requested of a killed process no longer counts; None if it does.
    """

    stop: StopRequest
    inboxes: Sequence[Inbox]
    leftovers: Sequence[tuple[Inbox, Request]] = ()
    superseded: str | None = None


class Steering:
    """Change the learning rate, save, stop, or report the run's progress, as other processes request.

    As at the menu, a new rate is saved at once. The checkpoint also holds the answer: a run that is killed between the
    save and the answer gives the answer when it is resumed, and doesn't change the rate again.

    Args:
        requests: the requests to the run.
        checkpoints: the run's checkpoints.
        menu: the menu of the same run.
    """

    def __init__(self, requests: Requests, checkpoints: CheckpointFolder, menu: StopMenu) -> None:
        self.inboxes = requests.inboxes
        self.stop = requests.stop
        self.checkpoints = checkpoints
        self.menu = menu
        self._next_look = 0.0
        self._pending: list[tuple[Inbox, Request]] = []
        self._stops: list[tuple[Inbox, Request]] = []
        self._unanswered: list[tuple[Inbox, Request, Answer]] = []
        self._start(requests)

    def is_asked(self) -> bool:
        """Look for requests, at most every 0.2 seconds; return whether there are any."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _PAUSE
            known = {request.id for _, request in self._pending}
            self._pending += [
                (inbox, request) for inbox in self.inboxes for request in inbox.pending() if request.id not in known
            ]
            unanswered, self._unanswered = self._unanswered, []
            for entry in unanswered:
                self._reply(*entry, is_first=False)
        return bool(self._pending)

    def carry_out(self, epoch: int, batch: int, save: Callable[[], bool]) -> None:
        """Carry out the requests found so far, after `epoch` epochs and `batch` batches.

        A request to stop acts as SIGTERM, and is answered by `end`.

        Args:
            save: writes a checkpoint of this point, and returns whether that succeeded.
        """
        pending, self._pending = self._pending, []
        for inbox, request in pending:
            if not self._take(inbox, request):
                continue
            if request.action == "stop":
                _log.info("stopping on request")
                self.stop.terminated = self.stop.terminated or signal.SIGTERM
                self._stops.append((inbox, request))
            else:
                self._reply(inbox, request, self._answer(request, epoch, batch, save))

    def end(self, epoch: int, batch: int, is_saved: bool) -> None:
        """Answer the requests to stop, after `epoch` epochs and `batch` batches."""
        path = self._path_of(epoch, batch)
        answer = Answer(f"saved {path}, and stopped") if is_saved else Answer(f"stopped; {path} could not be saved", 1)
        for inbox, request in self._stops:
            self._reply(inbox, request, answer)

    def _start(self, requests: Requests) -> None:
        """Answer what a killed process has left, except for requests of a new rate that still count."""
        answered = self._answered()
        for inbox, request in requests.leftovers:
            if request.action == "lr" and requests.superseded is None and request.id not in answered:
                self._pending.append((inbox, request))
            elif not self._take(inbox, request):
                continue
            elif request.id in answered:
                self._reply(inbox, request, Answer(answered[request.id]))
            else:
                reason = requests.superseded if request.action == "lr" else "it was for a process that has ended"
                _log.warning("ignored the request %s (%s): %s", request.id, request.action, reason)
                self._reply(inbox, request, Answer(f"ignored: {reason}", 2))

    def _take(self, inbox: Inbox, request: Request) -> bool:
        """Take `request`; return False if it has been withdrawn, or can't be taken, which is reported."""
        try:
            return inbox.take(request)
        except OSError as error:
            inbox.ignore(Path(error.filename), error.strerror)
            return False

    def _reply(self, inbox: Inbox, request: Request, answer: Answer, is_first: bool = True) -> None:
        """Answer `request`; if that fails, log it once, and try again at the next look."""
        try:
            inbox.answer(request, answer)
        except OSError as error:
            self._unanswered.append((inbox, request, answer))
            if is_first:
                _log.error("can't answer the request %s: %s", request.id, error.strerror)

    def _answered(self) -> dict[str, str]:
        """Return the answers to all requests that have changed the rate, by the request's identity."""
        answered: dict[str, str] = {}
        for sitting in self.checkpoints.history["run"]["sittings"]:
            answered |= sitting.get("requests", {})
        return answered

    def _answer(self, request: Request, epoch: int, batch: int, save: Callable[[], bool]) -> Answer:
        """Carry out a request other than to stop; return the answer."""
        if request.action == "status":
            return Answer(self._status(epoch, batch))
        text = f"saved {self._path_of(epoch, batch)}"
        if request.action == "lr":
            try:
                text = self._change(request, epoch, batch)
            except InputError as error:
                return Answer(str(error), 2)
        if not save():
            return Answer(f"{text}: not saved; see the messages of the run", 1)
        if request.action == "save":
            _log.info("%s, on request", text)
        return Answer(text)

    def _change(self, request: Request, epoch: int, batch: int) -> str:
        """Change the rate, and record the answer in the history; return the answer.

        Raises:
            InputError: there is nothing left to train with it, or the rate can't be changed.
        """
        is_trained = batch == self.menu.steps
        if epoch + is_trained == self.menu.last:
            raise InputError(f"epoch {self.menu.last}, the last, is trained already; the rate stays")
        description = self.menu.rate.change_now(request.lr, epoch, batch, self.menu.steps)
        text = description if is_trained else f"{description} after epoch {epoch}, batch {batch}"
        self.checkpoints.history["run"]["sittings"][-1].setdefault("requests", {})[request.id] = text
        return text

    def _path_of(self, epoch: int, batch: int) -> Path:
        """Return the absolute path of a checkpoint: those who ask are in other folders."""
        return self.checkpoints.path_of(epoch, batch).absolute()

    def _status(self, epoch: int, batch: int) -> str:
        history, last = self.checkpoints.history, self.menu.last
        parts = [self.menu.position(epoch, batch)]
        if done := epochs_of(history):
            latest = {name: values[-1] for name, values in history.items() if name != "run" and values}
            curves = {name: value for name, value in latest.items() if name != "seconds" and is_curve(name, value)}
            parts.append(f"epoch {done}: {', '.join(f'{name} {value:.4f}' for name, value in curves.items())}")
            if seconds := latest.get("seconds"):
                parts.append(f"about {duration((last - epoch - batch / self.menu.steps) * seconds)} left")
        if self.checkpoints.saved is not None:
            parts.append(f"newest checkpoint: {self._path_of(*self.checkpoints.saved)}")
        return "; ".join(parts)
