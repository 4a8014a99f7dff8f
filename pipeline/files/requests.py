"""Requests to a training run, and its answers, as files in a folder beside its curves.

The folder `.NAME.steer` beside NAME.png and NAME.json holds, while a run writes these:

    IDENTITY.run     an empty file: the run with this identity takes requests
    ID.request       {"run": IDENTITY, "action": "lr", "save", "stop" or "status", "lr": the rate, with "lr" only}
    ID.answer        {"answer": text, "code": exit code for the process that asked}

Whoever can write to the folder of the curves can ask, and nobody else. Files are written atomically. An ID begins with
the time in UTC, so that requests are in order.
"""

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files.atomic import write_atomically
from pipeline.files.regular import read_regular
from pipeline.files.strictjson import is_number, parse_json

ACTIONS = ("lr", "save", "stop", "status")
"""What a run can be asked: change its learning rate, save a checkpoint, save and stop, tell where it is."""

_RUN, _REQUEST, _ANSWER, _UNFINISHED = ".run", ".request", ".answer", ".tmp"
_MAX_BYTES, _MAX_FILES = 4096, 1000
# Normal float32 numbers.
_SMALLEST_RATE, _LARGEST_RATE = 2.0**-126, 3.4e38

_log = logging.getLogger(__name__)


def new_identity() -> str:
    """Return a new identity of a run, a process or a request: the time in UTC, and random digits."""
    now = time.time_ns()
    seconds = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 10**9))
    return f"{seconds}-{now % 10**9 // 1000:06d}-{secrets.token_hex(4)}"


def is_identity(value: object) -> bool:
    """Return whether `value` is a result of `new_identity`."""
    return isinstance(value, str) and re.fullmatch(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}", value, re.ASCII) is not None


@dataclass(frozen=True)
class Request:
    """A request to the run `run`.

    Args:
        id: the request's identity.
        run: the run's identity.
        action: one of `ACTIONS`.
        lr: the learning rate to continue with; None unless the action is "lr".
    """

    id: str
    run: str
    action: str
    lr: float | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to a request: a line of text, and the exit code for the process that asked, 0 to 2."""

    text: str
    code: int


@dataclass
class RequestFolder:
    """The requests to the run that writes the curves `name`.png in the folder `output`."""

    output: Path
    name: str
    _ignored: set[str] = field(default_factory=set, init=False)

    @property
    def path(self) -> Path:
        """The folder of the files."""
        return self.output / f".{self.name}.steer"

    # What the run calls.

    def open(self, run: str) -> None:
        """Take requests to the run with the identity `run`.

        Raises:
            OSError: the folder can't be created or written to, or is a link.
        """
        # No user gains a right here that they don't have in the folder of the curves.
        self.path.mkdir(mode=self.output.stat().st_mode & 0o777, exist_ok=True)
        if self.path.is_symlink() or not self.path.is_dir():
            raise OSError(f"{self.path} is not a folder")
        self._remove(_RUN)
        self._remove(_ANSWER)  # nobody has waited for them for so long
        (self.path / f"{run}{_RUN}").touch(exist_ok=False)

    def pending(self, run: str) -> list[Request]:
        """Return the requests to the run with the identity `run`, the oldest first; name others once, and ignore them.

        Costs a few microseconds if there are none.
        """
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in islice(entries, _MAX_FILES) if entry.name.endswith(_REQUEST)]
        except OSError:  # such as a removed folder
            return []
        found = []
        for name in sorted(set(names) - self._ignored):
            try:
                request = self._read(name)
                if request.run != run:
                    raise InputError(f"it is for another run, {request.run}")
                found.append(request)
            except FileNotFoundError:  # withdrawn
                pass
            except (OSError, ValueError) as error:
                self._ignored.add(name)
                reason = error.strerror if isinstance(error, OSError) else error
                _log.warning("ignored the request %s: %s", self.path / name, reason)
        return found

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer and remove `request`; log a failure."""
        try:
            content = json.dumps({"answer": answer.text, "code": answer.code})
            write_atomically(self.path / f"{request.id}{_ANSWER}", content.encode())
            (self.path / f"{request.id}{_REQUEST}").unlink(missing_ok=True)
        except OSError as error:
            self._ignored.add(f"{request.id}{_REQUEST}")
            _log.error("can't answer a request: %s", error)

    def close(self) -> None:
        """Take no more requests; answers stay until they are read."""
        with suppress(OSError):  # it holds answers, or files of others
            self._remove(_RUN)
            self._remove(_UNFINISHED)
            self.path.rmdir()

    # What another process calls.

    def identity(self) -> str | None:
        """Return the identity of the run that takes requests; None if there is none."""
        return next((path.stem for path in self.path.glob(f"*{_RUN}") if is_identity(path.stem)), None)

    def ask(self, action: str, lr: float | None = None) -> Request:
        """Leave a request to the run, and return it.

        Raises:
            InputError: no run takes requests here, or this user can't write here.
        """
        run = self.identity()
        if run is None:
            raise InputError(f"the run in {self.output} takes no requests, or not yet")
        request = Request(new_identity(), run, action, lr)
        content = {"run": run, "action": action} | ({} if lr is None else {"lr": lr})
        try:
            write_atomically(self.path / f"{request.id}{_REQUEST}", json.dumps(content).encode())
        except OSError as error:
            raise InputError(f"the run in {self.output} can't be asked: {error}") from error
        return request

    def take_answer(self, request: Request) -> Answer | None:
        """Return and remove the answer to `request`; None if there is none yet.

        Raises:
            InputError: the answer is damaged.
        """
        path = self.path / f"{request.id}{_ANSWER}"
        try:
            content = _object(read_regular(path, _MAX_BYTES), {"answer", "code"})
            if not isinstance(content["answer"], str) or content["code"] not in (0, 1, 2):
                raise InputError(f"it holds {content!a:.100}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"the answer {path} is damaged: {error}") from error
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the run is there, or answers to others
            self.path.rmdir()
        return Answer(content["answer"], content["code"])

    def withdraw(self, request: Request) -> None:
        """Remove `request`, if it is still there."""
        (self.path / f"{request.id}{_REQUEST}").unlink(missing_ok=True)

    def _read(self, name: str) -> Request:
        """Read the request in the file `name`; raise `OSError` or `ValueError` if it isn't one."""
        path = self.path / name
        if not is_identity(name.removesuffix(_REQUEST)):
            raise InputError("its name is not that of a request")
        if path.is_symlink():
            raise InputError("it is a link")
        content = _object(read_regular(path, _MAX_BYTES), {"run", "action"}, {"lr"})
        run, action, lr = content["run"], content["action"], content.get("lr")
        if not is_identity(run) or action not in ACTIONS or (action == "lr") != ("lr" in content):
            raise InputError(f"it holds {content!a:.100}")
        if lr is not None and not (is_number(lr) and _SMALLEST_RATE <= lr <= _LARGEST_RATE):
            raise InputError(f"its learning rate is {lr!a:.100}; expected a number above 0")
        return Request(name.removesuffix(_REQUEST), run, action, lr)

    def _remove(self, suffix: str) -> None:
        for path in self.path.glob(f"*{suffix}"):
            with suppress(OSError):  # it isn't a file
                path.unlink()


def _object(content: bytes, required: set[str], optional: frozenset[str] | set[str] = frozenset()) -> Mapping:
    """Parse a JSON object with the given keys; raise `ValueError` if it isn't one."""
    value = parse_json(content)
    if not isinstance(value, dict) or not required <= value.keys() <= required | optional:
        raise InputError(f"it holds {value!a:.100}; expected {', '.join(sorted(required))}")
    return value
