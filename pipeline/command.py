"""A command from its first moment to its last: signals, errors in one line, exit codes. Loads next to nothing."""

import os
import signal
import sys

from pipeline.errors import InputError

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def run(main) -> None:
    """Run a script's `main`, a function without arguments, and end the process.

    What a script imports inside `main` is covered by the following too.

    Exit codes: 0 done, 1 the disk or system failed, 2 bad input, 130 Ctrl+C, 143 SIGTERM; never a traceback for these.
    A second Ctrl+C ends the process at once. Any other exception is a defect and keeps its traceback.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    code = 0
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        code = fail(str(error), 2)
    except KeyboardInterrupt:
        print("\nstopped by Ctrl+C", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; a flush at exit must not fail on it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    except OSError as error:
        code = fail(str(error), 1)
    finally:
        # What is left is the interpreter's own end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def fail(message: str, code: int) -> int:
    """Print `message` as the program's one line of error and return `code`."""
    print(f"{os.path.basename(sys.argv[0])}: error: {printable(message)}", file=sys.stderr)
    return code


def printable(text: str) -> str:
    """`text` with whatever would steer a terminal, as a name from a file may, spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def end_at_once(number: int, descriptor: int = 2) -> None:
    """End the process as signal `number` asks, and say so on `descriptor`; for where there is nothing to save."""
    # Not print: the signal may have come in the middle of one.
    os.write(descriptor, b"\nstopped by Ctrl+C\n" if number == signal.SIGINT else b"stopped by SIGTERM\n")
    os._exit(128 + number)


def _interrupt(number, frame) -> None:
    # One more doesn't disturb what the first has set going, such as removing what is half-written.
    signal.signal(number, lambda number, frame: os._exit(128 + number))
    raise KeyboardInterrupt


def _terminate(number, frame) -> None:
    os.write(2, b"stopped by SIGTERM\n")
    sys.exit(TERMINATED)
