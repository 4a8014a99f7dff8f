"""Change the learning rate of a running training from another shell, or ask it to save, to stop, or where it is.

    python -m pipeline.steer output --lr 0.01
    python -m pipeline.steer output --script train --stop

OUTPUT is the folder of the run's plot and history. The run carries out the request after the current batch, of training
or validation, as it does at the menu after Ctrl+C; this command waits, and prints the answer. A new rate is recorded,
marked on the plot, and saved before the answer; if the run is killed before that, the resumed run changes the rate.
--stop saves and stops, as SIGTERM does. Works on any machine that shares the folder, for everyone who can write to it.
Exit code 0 if it is done, 1 if it couldn't be saved, 2 if no run is there or the request can't be carried out.

Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import sys
import time
from argparse import Namespace
from pathlib import Path

from pipeline.cli import arguments, command, flags
from pipeline.errors import InputError, as_input_error
from pipeline.files.lock import holder
from pipeline.files.requests import ACTIONS, Answer, Request, RequestFolder
from pipeline.utils.text import printable

# Seconds between two looks for an answer; then, until the user is told what takes so long, or until a run whose lock
# can't be tested counts as absent.
_PAUSE, _PATIENCE = 0.05, 5.0
_UNKNOWN = "a process"


def parse_arguments() -> Namespace:
    parser = arguments.Parser(__doc__, prog="python -m pipeline.steer")
    parser.add_argument("output", type=flags.file_path, metavar="OUTPUT", help="folder of the run's plot and history")
    parser.add("script", str, "NAME", "name of the script, without .py, if several runs have their curves in OUTPUT")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--lr", type=flags.positive, metavar="RATE", help="continue with this learning rate")
    action.add_argument("--save", action="store_true", help="save a checkpoint")
    action.add_argument("--stop", action="store_true", help="save and stop")
    action.add_argument("--status", action="store_true", help="print where the run is")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    name = args.script.removesuffix(".py") if args.script else find_run(args.output)
    lock = args.output / f".{name}.lock"
    if process_of(lock) is None:
        raise InputError(f"no run of {name} is there in {args.output}")
    action = next(action for action in ACTIONS if getattr(args, action))
    folder = RequestFolder(args.output, name)
    answer = wait(folder, folder.ask(action, args.lr), lock)
    if answer.code == 2:
        raise InputError(answer.text)
    print(printable(answer.text), file=sys.stderr if answer.code else sys.stdout)
    sys.exit(answer.code)


def find_run(output: Path) -> str:
    """Return the name of the script whose run has its curves in the folder `output`.

    Raises:
        InputError: there is none, or more than one.
    """
    with as_input_error(OSError, f"can't read the folder {output}: "):
        names = sorted(path.name[1:-5] for path in output.iterdir() if path.match(".?*.lock"))
    running = [name for name in names if process_of(output / f".{name}.lock") is not None]
    if not running:
        raise InputError(f"no run is there in {output}; name the folder of its plot and history")
    if len(running) > 1:
        raise InputError(f"several runs are there in {output}; name one with --script: {', '.join(running)}")
    return running[0]


def process_of(lock: Path) -> str | None:
    """Return the process that holds the file `lock`, `_UNKNOWN` if its name can't be read; None if there is none."""
    if not lock.is_file():
        return None
    try:
        return holder(lock)
    except FileNotFoundError:
        return None
    except OSError:  # no permission to read it, or no locks on this file system
        return _UNKNOWN


def wait(folder: RequestFolder, request: Request, lock: Path) -> Answer:
    """Wait for the run's answer to `request`.

    Raises:
        InputError: the run has ended without an answer.
    """
    patience_ends, is_told = time.monotonic() + _PATIENCE, False
    while True:
        process = process_of(lock)  # before the last look for the answer
        answer = folder.take_answer(request)
        if answer is not None:
            return answer
        if process is None and request.action == "lr":
            raise InputError("the run ended before it answered; it changes the rate if it is resumed")
        is_late = time.monotonic() >= patience_ends
        # A run that is ending has removed its identity, and has answered all requests, or will.
        is_replaced = folder.identity() not in (None, request.run)
        if process is None or (process == _UNKNOWN and is_late) or is_replaced:
            folder.withdraw(request)
            raise InputError("the run has not answered: it has ended, or doesn't share this folder")
        if is_late and not is_told:
            print(printable(f"waiting for {process}; Ctrl+C ends only the wait"), file=sys.stderr, flush=True)
            is_told = True
        time.sleep(_PAUSE)


if __name__ == "__main__":
    command.run(main)
