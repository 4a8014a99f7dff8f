"""Run a script and use its menu at planned points: python atmenu.py PLAN SCRIPT [ARGUMENT...]

PLAN is a JSON object: "changes", a list of [epoch, batch, rate] as in a history; "end", the [epoch, batch] to stop at;
"steps", the number of batches per epoch.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

text, script, *arguments = sys.argv[1:]
plan = json.loads(text)
changes, end, steps = plan["changes"], plan["end"], plan["steps"]
sys.path.insert(0, str(Path(script).parent))
sys.argv = [script, *arguments]

from pipeline.callbacks import AsyncCallbackList  # noqa: E402
from pipeline.callbacks.stopping import StopMenu  # noqa: E402
from pipeline.cli import command, console  # noqa: E402

now = [0, 0]


def is_due(epoch, batch):
    point = [epoch + 1, 0] if batch == steps else [epoch, batch]
    return bool(changes and changes[0][:2] == point) or [epoch, batch] == end


def beginning(self, epoch, *args, original=AsyncCallbackList.on_epoch_begin):
    now[:] = [epoch, 0]
    original(self, epoch, *args)


def ending(hook):
    original = getattr(AsyncCallbackList, hook)

    def end_batch(self, batch, *args):
        if hook == "on_train_batch_end":
            now[1] = batch + 1
        if is_due(*now):
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, *args)

    setattr(AsyncCallbackList, hook, end_batch)


def answering(self, epoch, batch, has_failed):
    """Use the menu once for each change at this point: several requests can be carried out after one batch."""
    point = [epoch + 1, 0] if batch == steps else [epoch, batch]
    answer = "continue"
    while changes and changes[0][:2] == point:
        self.ask = lambda *args: changes.pop(0)[2]
        answer = menu(self, epoch, batch, has_failed)
    return "stop" if [epoch, batch] == end and not changes else answer


menu = StopMenu.__call__
AsyncCallbackList.on_epoch_begin = beginning
ending("on_train_batch_end")
ending("on_test_batch_end")
StopMenu.__call__ = answering
command.LossyStream.isatty = lambda self: True
sys.stdin = SimpleNamespace(isatty=lambda: True)
console.ask = None  # `answering` replaces it
runpy.run_path(script, run_name="__main__")
