"""One-line edits of a script, and runs of the edited script."""

import runpy
import signal
import sys
from itertools import count

import pytest
from conftest import ROOT, SMALL, assert_identical, assert_same_curves

from pipeline.utils.signals import STOPS

SCRIPT = "resnet_cifar10.py"
RUN = (*SMALL, "--epochs", "2", "--every", "1", "--checkpoint_seconds", "0.001")
OPTIMIZER = "WarmupSGD(args.lr, momentum=args.momentum, nesterov=args.nesterov, warmup_steps=warmup_steps)"
METRICS = 'metrics=["accuracy"]'
CALLBACKS = "    callbacks = ["
# The newest checkpoint of a run that was killed in the middle of its second epoch.
INSIDE = "epoch_1_batch_2.hdf5"
OPTIMIZERS = {
    "SGD": "keras.optimizers.SGD(args.lr, momentum=0.8)",
    "Adam": "keras.optimizers.Adam(1e-3)",
    "AdamW": "keras.optimizers.AdamW(2e-3, weight_decay=0.01)",
    "RMSprop": "keras.optimizers.RMSprop(1e-3, momentum=0.5, centered=True)",
}
TOP3 = 'metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(3, name="top3")]'


class Killed(BaseException):
    """End a run as SIGKILL does: nothing is saved on the way out."""


@pytest.fixture
def edited(tmp_path):
    """Replace one line of a script, and return the path of the edited copy."""

    def edit(before, after, script=SCRIPT):
        text = (ROOT / script).read_text()
        assert text.count(before) == 1
        (tmp_path / script).write_text(text.replace(before, after))
        return tmp_path / script

    return edit


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """Run a script in this process and kill it at the end of its training batch `number`, counted from 1."""
    from pipeline.callbacks import AsyncCallbackList

    def run(script, *flags, number=7):
        batches, original = count(1), AsyncCallbackList.on_train_batch_end

        def ending(self, *arguments):
            if next(batches) == number:
                raise Killed
            original(self, *arguments)

        handlers = {signum: signal.getsignal(signum) for signum in STOPS}
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", [str(script), *map(str, flags)])
            for stream in ("stdout", "stderr"):
                patch.setattr(sys, stream, getattr(sys, stream))
            patch.setattr(AsyncCallbackList, "on_train_batch_end", ending)
            with pytest.raises(Killed):
                runpy.run_path(str(script), run_name="__main__")
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

    return run


@pytest.fixture
def check(command, killed, tmp_path):
    """Compare a run that never stops with one that is killed inside its second epoch and resumed."""
    from pipeline.checkpoints.listing import list_checkpoints

    def run(script, *flags):
        command(script, *RUN, *flags, "-c", "straight", "-o", "straight")
        killed(script, *RUN, *flags, "-c", "killed", "-o", "killed")
        assert list_checkpoints(tmp_path / "killed")[-1].name == INSIDE
        done = command(script, "-c", "killed", "-m", "latest")
        assert_identical(tmp_path / "straight" / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
        assert_same_curves(tmp_path / "straight", tmp_path / "killed")
        return done

    return run
