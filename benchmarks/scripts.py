"""Run the project's scripts one after the other, and record the duration of each epoch."""

import json
import math
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import measure  # makes the project importable

from pipeline.cli import arguments
from pipeline.errors import InputError
from pipeline.utils.signals import handle_stops

EPOCH_LINE = re.compile(r"epoch (\d+)/.* ([\d.]+) s$")
MID_EPOCH_LINE = re.compile(r"resuming from .*: epoch (\d+), batch \d+$")


def parse_with_others(parser: arguments.Parser, own: Collection[str], whose: str) -> tuple[Namespace, list[str]]:
    """Parse the arguments; return them and the remaining ones, which go to the script.

    A remaining flag in `own` is an error: it is set by `whose`.
    """
    args, others = parser.parse_known_args()
    for word in others:
        if word.partition("=")[0] in own:
            parser.error(f"{word} is set by {whose}; omit it")
    return args, others


def run(words: Sequence, deadline: float = math.inf) -> tuple[int, dict[int, float]]:
    """Run a script until it ends, or stop it at `deadline`; return its exit code and the seconds of each full epoch."""
    script, *others = map(str, words)
    print("$", shlex.join(["python", script, *others]), flush=True)
    children, asked, seconds, begun = [], [], {}, None

    def hand_on(number: int, frame: FrameType | None = None) -> None:
        asked.append(number)
        for child in children:
            child.send_signal(number)

    before = handle_stops(hand_on)
    timer = threading.Timer(min(threading.TIMEOUT_MAX, deadline - time.monotonic()), hand_on, [signal.SIGTERM])
    timer.daemon = True
    try:
        # In its own session: Ctrl+C on the terminal reaches only this process, which forwards it once.
        child = subprocess.Popen(
            [sys.executable, measure.ROOT / script, *others],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        children.append(child)
        for number in asked:  # before the child existed
            child.send_signal(number)
        timer.start()
        for line in child.stdout:
            print(line, end="", flush=True)
            if found := MID_EPOCH_LINE.match(line):
                begun = int(found[1]) + 1
            if (found := EPOCH_LINE.match(line)) and int(found[1]) != begun:
                seconds[int(found[1])] = float(found[2])
        code = child.wait()
    finally:
        timer.cancel()
        for child in children:
            child.terminate()  # no effect if it has ended
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0:  # a signal that the script couldn't handle
        code = 128 - code
        print(f"{script} was killed by {signal.Signals(code - 128).name}", file=sys.stderr)
    return code, seconds


def leave(code: int) -> NoReturn:
    """Exit with the script's exit code; the script has reported why."""
    if code > 128:
        print("not done yet; resume with the same command")
    sys.exit(code)


def note(output: Path, seconds: dict[int, float]) -> None:
    """Record what no history holds: commit, machine, memory, and the seconds of epochs."""
    if seconds:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        line = {"commit": measure.commit(), "machine": measure.machine(), "peak_memory": peak, "seconds": seconds}
        with open(output / "reproduce.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def epoch_seconds(output: Path) -> dict[int, float]:
    """Return the seconds of each epoch that one process trained completely."""
    return {int(epoch): value for line in notes(output) for epoch, value in line["seconds"].items()}


def notes(output: Path) -> list[dict]:
    """Read the records of `note`."""
    path = output / "reproduce.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise InputError(f"{path} is damaged; remove it to get a table without times") from error
