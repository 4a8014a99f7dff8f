"""Change the learning rate of a running training from another shell, or ask it to save, to stop, or for its progress.

    python -m pipeline.steer output --lr 0.01
    python -m pipeline.steer output --script train --stop

OUTPUT is the folder of the run's plot and history. The run carries out the request after the current batch, of training
or validation, as it does at the menu after Ctrl+C; this command waits, and prints the answer. A new rate is recorded,
marked on the plot, and saved before the answer. --stop saves and stops, as SIGTERM does. It works on any machine that
shares the folder, for everyone who can write to it. Exit code 0 if it is done, 1 if the state couldn't be saved, 2 if
no run is there or it can't carry out the request.

Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import re
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from pipeline.cli import arguments, command, flags
from pipeline.errors import InputError, as_input_error
from pipeline.files.lock import inspect
from pipeline.files.requests import ACTIONS, Answer, Question
from pipeline.utils.identity import is_identity
from pipeline.utils.text import printable

# Seconds between two looks for the answer.
_PAUSE = 0.05
# Seconds after which the user is told why it takes so long; on a file system without locks, no run is there by then.
_PATIENCE = 5.0
# Seconds to wait for a stopped run to end, so that it can be resumed at once.
_ENDING = 60.0


def parse_arguments() -> Namespace:
    parser = arguments.Parser(__doc__, prog="python -m pipeline.steer")
    parser.add_argument("output", type=flags.file_path, metavar="OUTPUT", help="folder of the run's plot and history")
    parser.add("script", str, "NAME", "name of the script, if several runs have their plots in OUTPUT")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--lr", type=flags.positive, metavar="RATE", help="continue with this learning rate")
    action.add_argument("--save", action="store_true", help="save a checkpoint")
    action.add_argument("--stop", action="store_true", help="save and stop")
    action.add_argument("--status", action="store_true", help="print its progress")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if not args.output.exists():
        raise InputError(f"no run is using {args.output}, which doesn't exist")
    with as_input_error(OSError, f"can't read the folder {args.output}: "):
        locks = {path.name[1:-5]: path for path in sorted(args.output.iterdir()) if path.match(".?*.lock")}
    if args.script:
        name = args.script.removesuffix(".py")
        locks = {name: locks[name]} if name in locks else {}
    running = {name: run for name, lock in locks.items() if (run := running_in(lock))}
    if not running:
        which = f"run of {args.script}" if args.script else "run"
        raise InputError(f"no {which} is using {args.output}; a run that is still starting can't be asked yet")
    if len(running) > 1:
        raise InputError(f"several runs are using {args.output}; name one with --script: {', '.join(running)}")
    ((name, run),) = running.items()
    action = next(action for action in ACTIONS if getattr(args, action))
    question = Question.of(args.output, name, run, action, args.lr)
    try:
        question.ask()
        answer = wait_for_answer(question, locks[name])
    except KeyboardInterrupt:
        print(f"\n{printable(end_of(question))}", file=sys.stderr)
        raise
    if answer.code == 2:
        raise InputError(answer.text)
    print(printable(answer.text), file=sys.stderr if answer.code else sys.stdout, flush=True)
    if action == "stop":
        wait_for_end(locks[name])
    sys.exit(answer.code)


def end_of(question: Question) -> str:
    """Withdraw a request, and describe what became of it."""
    if question.withdraw():
        return "withdrawn"
    if answer := question.take_answer():
        return answer.text
    return "the run is carrying it out" if question.is_open() else "nothing was asked"


def running_in(lock: Path) -> str | None:
    """Return the identity of the run that holds the file `lock`; None if no run does.

    On a file system without locks, it is the last run that did.
    """
    try:
        holder, is_held = inspect(lock)
    except OSError:  # it has been removed, isn't a file, or can't be read
        return None
    found = re.search(r", run (\S+)$", holder)
    return found[1] if found and is_identity(found[1]) and is_held is not False else None


def wait_for_answer(question: Question, lock: Path) -> Answer:
    """Wait for the run's answer.

    Raises:
        InputError: the run has ended without an answer, or the request was removed.
    """
    patience_ends, is_told = time.monotonic() + _PATIENCE, False
    while True:
        is_there = running_in(lock) == question.request.run
        is_late = time.monotonic() >= patience_ends
        is_open = question.is_open()  # before the last look for the answer
        if answer := question.take_answer():
            with suppress(OSError):  # a request that the run has ignored, and leaves where it is
                question.withdraw()
            return answer
        if not is_open:
            raise InputError("the request was removed, and not by the run; ask again")
        if not is_there or (is_late and not has_locks(lock)):
            if question.withdraw():
                raise InputError(f"{'no run has answered' if is_there else 'the run has ended'}; nothing was done")
            if not is_there and question.is_open():
                later = "; a resume from its newest checkpoint uses the rate, unless it sets another"
                is_kept = question.request.action == "lr"
                raise InputError(f"the run ended while it carried out the request{later if is_kept else ''}")
        if is_late and not is_told:
            print("waiting for the end of a batch, or for an answer at the run's menu", file=sys.stderr, flush=True)
            is_told = True
        time.sleep(_PAUSE)


def wait_for_end(lock: Path) -> None:
    """Wait until no process holds the file `lock`, if the file system has locks."""
    ends = time.monotonic() + _ENDING
    while has_locks(lock) and running_in(lock) and time.monotonic() < ends:
        time.sleep(_PAUSE)


def has_locks(lock: Path) -> bool:
    """Return whether the file system of the file `lock` has locks."""
    try:
        return inspect(lock)[1] is not None
    except OSError:
        return True


if __name__ == "__main__":
    command.run(main, tidy=True)
