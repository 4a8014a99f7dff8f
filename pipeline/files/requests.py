"""Requests to a training run, and its answers, as files beside its plot.

For the run whose plot is NAME.png, the same folder holds, for a short time each:

    .NAME.ID.request    {"run": identity of the run, "action": one of `ACTIONS`, "lr": the rate, with "lr" only}
    .NAME.ID.taken      the same file, renamed by the run: it can't be withdrawn any more
    .NAME.ID.answer     {"answer": text, "code": exit code for the process that asked}

The answer is there before the taken request is removed. Whoever can write to the folder can ask, and nobody else.
"""

import errno
import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import InputError, as_input_error
from pipeline.files.regular import read_regular
from pipeline.files.strictjson import is_number, parse_json
from pipeline.utils.identity import is_identity, new_identity
from pipeline.utils.text import printable

ACTIONS = ("lr", "save", "stop", "status")
"""What a run can be asked: change its learning rate, save a checkpoint, save and stop, report its progress."""

_MAX_BYTES, _MAX_ANSWER, _MAX_REQUESTS = 4096, 1 << 16, 100
# Normal float32 numbers.
_SMALLEST_RATE, _LARGEST_RATE = 2.0**-126, 3.4028235e38
# Errors of files that are no requests; others may pass.
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.ENXIO)
# Seconds after which the folder is listed even if its modification time is the same: clocks of file systems are coarse.
_LISTING = 2.0
# An answer that is older, in seconds, is removed at the next one, or when the run is resumed.
_UNREAD = 60.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A request to the run with the identity `run`.

    Args:
        id: the request's identity.
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
    code: int = 0


class Inbox:
    """The requests to the run with the identity `run`, whose plot is `name`.png in the folder `output`."""

    def __init__(self, output: Path, name: str, run: str) -> None:
        self.output = output
        self.name = name
        self.run = run
        self._ignored: set[str] = set()
        self._answers: deque[tuple[float, Path]] = deque()
        self._modified, self._next_listing = 0, 0.0

    def leftovers(self) -> list[Request]:
        """Return the requests that a killed process has left, taken or not; remove answers that nobody has read."""
        for kind in ("answer", "answer.tmp", "request.tmp"):
            for path in self._files(kind):
                with suppress(OSError):
                    if is_identity(self._id_of(path)) and time.time() - path.lstat().st_mtime > _UNREAD:
                        path.unlink()
        found = [*self._requests("request", None), *self._requests("taken", None)]
        return sorted(found, key=lambda request: request.id)

    def pending(self) -> list[Request]:
        """Return the requests that are not taken yet, the oldest first. If there are none, it costs a `stat`.

        What is not a request to this run is named once, and ignored.
        """
        now = time.monotonic()
        try:
            modified = os.stat(self.output).st_mtime_ns
        except OSError:  # a removed folder
            return []
        if modified == self._modified and now < self._next_listing:
            return []
        self._modified, self._next_listing = modified, now + _LISTING
        return self._requests("request")

    def take(self, request: Request) -> bool:
        """Take `request`, so that it can't be withdrawn; return False if it has been.

        Raises:
            OSError: it can't be renamed.
        """
        taken = _path(self, request.id, "taken")
        try:
            os.rename(_path(self, request.id, "request"), taken)
        except FileNotFoundError:
            return taken.is_file()  # a leftover that the earlier process had taken
        return True

    def answer(self, request: Request, answer: Answer) -> None:
        """Answer and remove a taken request.

        Raises:
            OSError: the answer can't be written.
        """
        now, path = time.monotonic(), _path(self, request.id, "answer")
        while self._answers and now - self._answers[0][0] > _UNREAD:
            self._answers.popleft()[1].unlink(missing_ok=True)
        _write(path, {"answer": answer.text, "code": answer.code})
        self._answers.append((now, path))
        _path(self, request.id, "taken").unlink(missing_ok=True)

    def _files(self, kind: str) -> Iterator[Path]:
        """Yield the files of a kind; none if the folder can't be read."""
        pattern = re.compile(rf"\.{re.escape(self.name)}\.[^.]+\.{kind}")
        with suppress(OSError), os.scandir(self.output) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name):
                    yield self.output / entry.name

    def _requests(self, kind: str, most: int | None = _MAX_REQUESTS) -> list[Request]:
        """Return the first `most` requests of a kind; `ignore` what isn't a request to this run."""
        paths = sorted(path for path in self._files(kind) if path.name not in self._ignored)
        found = []
        for path in paths[:most]:
            try:
                found.append(self._read(path))
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno not in _NOT_A_FILE:  # withdrawn, or it may pass
                    continue
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self.ignore(path, reason)
        return found

    def ignore(self, path: Path, reason: str) -> None:
        """Name the file `path`, and ignore it from now on; tell the process that waits for an answer, if any."""
        self._ignored.add(path.name)
        _log.warning(printable(f"ignored the request {path}: {reason}; delete it"))
        if is_identity(identity := self._id_of(path)):
            with suppress(OSError):
                _write(_path(self, identity, "answer"), {"answer": f"ignored: {reason}", "code": 2})

    def _id_of(self, path: Path) -> str:
        return path.name.removeprefix(f".{self.name}.").partition(".")[0]

    def _read(self, path: Path) -> Request:
        """Read the request in the file `path`; raise `OSError` or `ValueError` if it isn't one to this run."""
        identity = self._id_of(path)
        if not is_identity(identity):
            raise InputError("its name is not that of a request")
        if path.is_symlink():
            raise InputError("it is a link")
        content = _object(read_regular(path, _MAX_BYTES), {"run", "action"}, {"lr"})
        run, action, lr = content["run"], content["action"], content.get("lr")
        is_rate = is_number(lr) and _SMALLEST_RATE <= lr <= _LARGEST_RATE
        if action not in ACTIONS or ("lr" in content) != (action == "lr") or (action == "lr" and not is_rate):
            raise InputError(f"it holds {content!a:.200}")
        if run != self.run:
            raise InputError(f"it is for another run, {run!a:.100}")
        return Request(identity, run, action, lr)


@dataclass(frozen=True)
class Question:
    """A request as the process that asks sees it."""

    output: Path
    name: str
    request: Request

    @classmethod
    def of(cls, output: Path, name: str, run: str, action: str, lr: float | None = None) -> Self:
        """Create a request for the run with the identity `run`, whose plot is `name`.png in the folder `output`."""
        return cls(output, name, Request(new_identity(), run, action, lr))

    def ask(self) -> None:
        """Leave the request in the folder.

        Raises:
            InputError: the folder can't be written to.
        """
        request = self.request
        content = {"run": request.run, "action": request.action} | ({} if request.lr is None else {"lr": request.lr})
        with as_input_error(OSError, f"can't ask the run in {self.output}: "):
            _write(_path(self, request.id, "request"), content)

    def is_open(self) -> bool:
        """Return whether the run has not answered yet."""
        return any(os.path.lexists(_path(self, self.request.id, kind)) for kind in ("request", "taken"))

    def withdraw(self) -> bool:
        """Withdraw the request; return False if the run has taken it."""
        try:
            _path(self, self.request.id, "request").unlink()
        except FileNotFoundError:
            return False
        return True

    def take_answer(self) -> Answer | None:
        """Return and remove the answer; None if there is none.

        Raises:
            InputError: the answer is damaged.
        """
        path = _path(self, self.request.id, "answer")
        try:
            content = _object(read_regular(path, _MAX_ANSWER), {"answer", "code"})
            if not isinstance(content["answer"], str) or type(content["code"]) is not int or content["code"] > 2:
                raise InputError(f"it holds {content!a:.200}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"the answer {path} is damaged: {error}") from error
        with suppress(OSError):  # another user's file: the run removes it later
            path.unlink()
        return Answer(content["answer"], content["code"])


def _path(of: Inbox | Question, identity: str, kind: str) -> Path:
    return of.output / f".{of.name}.{identity}.{kind}"


def _write(path: Path, content: Mapping) -> None:
    """Write `content` as JSON, atomically, and readable for all who can enter the folder, whatever the umask."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a killed process
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        text = json.dumps(content).encode()
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        os.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)


def _object(content: bytes, required: set[str], optional: set[str] | frozenset[str] = frozenset()) -> Mapping:
    """Parse a JSON object with the given keys; raise `ValueError` if it isn't one."""
    with as_input_error(ValueError, "it isn't JSON: "):
        value = parse_json(content)
    if not isinstance(value, dict) or not required <= value.keys() <= required | optional:
        raise InputError(f"it holds {value!a:.200}; expected {', '.join(sorted(required))}")
    return value
