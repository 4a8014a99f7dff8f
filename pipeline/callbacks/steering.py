"""Carry out the requests that other processes make to a run."""

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.callbacks.stopping import StopMenu
from pipeline.checkpoints.folder import CheckpointFolder
from pipeline.checkpoints.history import epochs_of, is_curve
from pipeline.errors import InputError
from pipeline.files.requests import Answer, Request, RequestFolder

# Seconds between two looks at the folders.
_PAUSE = 0.2

_log = logging.getLogger(__name__)


@contextmanager
def taking_requests(
    curves: Iterable[tuple[Path, str]], run: str, end: Callable[[], str]
) -> Iterator[list[RequestFolder]]:
    """Take requests to the run with the identity `run`; answer those that are left at the end of the context.

    Args:
        curves: folder and name of each plot beside which to take them. One where that is impossible is reported.
        end: describes the end of the run.
    """
    opened = []
    for output, name in curves:
        folder = RequestFolder(output, name)
        try:
            folder.open(run)
            opened.append(folder)
        except OSError as error:
            _log.warning("other processes can't steer the run: %s", error)
    try:
        yield opened
    finally:
        for folder in opened:
            close(folder, run, end)


def close(folder: RequestFolder, run: str, end: Callable[[], str]) -> None:
    """Answer the requests in `folder` by the end of the run, and take no more. Arguments as in `taking_requests`."""
    for request in folder.pending(run):
        folder.answer(request, Answer(end(), 0 if request.action == "stop" else 2))
    folder.close()


class Steering:
    """Change the learning rate, save, stop, or tell where the run is, as other processes request in `folders`.

    As at the menu, a new rate is saved at once. The checkpoint also holds the answer: a run that is killed between the
    save and the answer gives the answer when it is resumed, and doesn't change the rate again. A request to stop is
    answered when the run ends (see `taking_requests`).

    Args:
        folders: where other processes leave requests.
        run: identity of the run, which requests name.
        checkpoints: the run's checkpoints.
        menu: the menu for the same run, whose request to stop it shares.
        new_lr: the rate that the run was resumed with; None if it keeps the checkpoint's.
    """

    def __init__(
        self,
        folders: Sequence[RequestFolder],
        run: str,
        checkpoints: CheckpointFolder,
        menu: StopMenu,
        new_lr: float | None = None,
    ) -> None:
        self.folders = folders
        self.run = run
        self.checkpoints = checkpoints
        self.menu = menu
        self._pending: list[tuple[RequestFolder, Request]] = []
        self._next_look = 0.0
        # A killed process may have left requests. A rate for this run counts, unless it was resumed with a newer one.
        for folder, request in self._look():
            if request.id not in self._answered():
                if request.action != "lr":
                    folder.answer(
                        request, Answer(f"the run ended before it could {request.action}, and was resumed", 2)
                    )
                elif new_lr is not None:
                    newer = f"the run ended before the change to {request.lr:g}, and was resumed with {new_lr:g}"
                    folder.answer(request, Answer(newer, 2))

    def is_asked(self) -> bool:
        """Look for requests, at most every 0.2 seconds; return whether there are any."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _PAUSE
            self._pending = self._look()
        return bool(self._pending)

    def carry_out(self, epoch: int, batch: int, save: Callable[[], bool]) -> None:
        """Carry out the requests found last, after `epoch` epochs and `batch` batches.

        Args:
            save: writes a checkpoint of this point, and returns whether that succeeded.
        """
        pending, self._pending = self._pending, []
        for folder, request in pending:
            if request.action != "stop":
                folder.answer(request, self._answer(request, epoch, batch, save))
            elif not self.menu.stop.terminated:
                _log.info("stopping on request")
                self.menu.stop.terminated = signal.SIGTERM

    def _look(self) -> list[tuple[RequestFolder, Request]]:
        return [(folder, request) for folder in self.folders for request in folder.pending(self.run)]

    def _answered(self) -> dict[str, str]:
        """Return the answers to all requests that have changed the rate, by the request's identity."""
        answered: dict[str, str] = {}
        for sitting in self.checkpoints.history["run"]["sittings"]:
            answered |= sitting.get("requests", {})
        return answered

    def _answer(self, request: Request, epoch: int, batch: int, save: Callable[[], bool]) -> Answer:
        """Carry out a request other than to stop; return the answer."""
        if request.id in (answered := self._answered()):
            return Answer(answered[request.id], 0)
        if request.action == "status":
            return Answer(self._status(epoch, batch), 0)
        text = f"saved {self.checkpoints.path_of(epoch, batch)}"
        if request.action == "lr":
            try:
                text = self._change(request, epoch, batch)
            except InputError as error:
                return Answer(str(error), 2)
        if not save():
            return Answer(f"{text}: not saved; see the messages of the run", 1)
        if request.action == "save":
            _log.info("%s on request", text)
        return Answer(text, 0)

    def _change(self, request: Request, epoch: int, batch: int) -> str:
        """Change the rate, and record the answer in the history; return the answer.

        Raises:
            InputError: there is nothing left to train with it, or the rate has decayed to 0.
        """
        is_trained = batch == self.menu.steps
        if epoch + is_trained == self.menu.last:
            raise InputError(f"epoch {self.menu.last}, the last, is trained already; the rate stays")
        description = self.menu.rate.change_now(request.lr, epoch, batch, self.menu.steps)
        text = description if is_trained else f"{description} after epoch {epoch}, batch {batch}"
        self.checkpoints.history["run"]["sittings"][-1].setdefault("requests", {})[request.id] = text
        return text

    def _status(self, epoch: int, batch: int) -> str:
        history, last = self.checkpoints.history, self.menu.last
        parts = [self.menu.position(epoch, batch)]
        if done := epochs_of(history):
            curves = {name: values[-1] for name, values in history.items() if name != "run" and values}
            numbers = [
                f"{name} {value:.4f}" for name, value in curves.items() if name != "seconds" and is_curve(name, value)
            ]
            parts.append(f"epoch {done}: {', '.join(numbers)}")
            if seconds := curves.get("seconds"):
                hours = (last - epoch - batch / self.menu.steps) * seconds / 3600
                parts.append(f"about {hours:.1f} hours left" if hours >= 1 else f"about {hours * 60:.0f} minutes left")
        if self.checkpoints.saved is not None:
            parts.append(f"newest checkpoint: {self.checkpoints.path_of(*self.checkpoints.saved)}")
        return "; ".join(parts)
