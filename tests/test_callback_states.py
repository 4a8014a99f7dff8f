"""Stateful callbacks, and callbacks that stop the training."""

import os
import re
import signal
from itertools import count

import pytest
from conftest import SMALL, assert_identical
from editing import CALLBACKS, RUN, SCRIPT
from messages import assert_names

from pipeline.callbacks import AsyncCallbackList
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.listing import list_checkpoints

STOPPING = "EarlyStopping(monitor='learning_rate', mode='min', patience=2)"


def test_a_callback_with_a_state_of_its_own_goes_on_where_it_was(edited, command, killed, tmp_path):
    """The monitored rate never improves: the first epoch is the best, and after two more the run ends."""
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {STOPPING},")
    script.write_text(script.read_text().replace("import EpochCheckpoint", "import EarlyStopping, EpochCheckpoint"))
    flags = ["9" if flag == "2" else flag for flag in RUN]
    done = command(script, *flags, "-c", "straight", "-o", "straight")
    assert_names(done.stdout, r"callback.*\bepoch 3\b")
    killed(script, *flags, "-c", "killed", "-o", "killed", number=11)
    inside = read_checkpoint(list_checkpoints(tmp_path / "killed")[-1])
    assert inside.progress == (2, 2)
    assert inside.callbacks["EarlyStopping"]["wait"] == 1
    for _ in range(2):  # an ended run stays ended
        command(script, "-c", "killed", "-m", "latest")
        assert list_checkpoints(tmp_path / "killed")[-1].name == "epoch_3.hdf5"
        assert_identical(tmp_path / "straight" / "epoch_3.hdf5", tmp_path / "killed" / "epoch_3.hdf5")


@pytest.mark.sweep
def test_with_more_patience_a_run_that_was_ended_early_goes_on(edited, command, tmp_path):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {STOPPING},")
    text = script.read_text().replace("import EpochCheckpoint", "import EarlyStopping, EpochCheckpoint")
    script.write_text(text)
    done = command(script, *SMALL, "--epochs", "9")
    assert "--model latest" not in re.split(r"callback.*\bepoch 3\b", done.stdout)[1]
    script.write_text(text.replace("patience=2", "patience=4"))
    assert_names(command(script, "-m", "latest").stdout, r"callback.*\bepoch 5\b")


ENDING = "keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: stop(logs) if batch == 1 else None)"


def test_a_callback_that_ends_training_inside_an_epoch_leaves_a_checkpoint_there(edited, command, straight, tmp_path):
    script = edited(
        CALLBACKS, f"    def stop(logs):\n        model.stop_training = True\n\n{CALLBACKS}\n        {ENDING},"
    )
    done = command(script, *RUN, "-c", "c")
    assert_names(done.stdout, r"callback.*\bepoch 1\b", "c/epoch_0_batch_2.hdf5\n")
    command(SCRIPT, "-c", tmp_path / "c", "-m", "latest")
    assert_identical(straight() / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


def test_weights_put_in_at_the_end_do_not_reach_a_checkpoint_of_a_stop(
    edited, command, monkeypatch, straight, tmp_path
):
    spoiling = "on_train_end=lambda logs: model.set_weights([0 * weight for weight in model.get_weights()])"
    script = edited(CALLBACKS, f"{CALLBACKS}\n        keras.callbacks.LambdaCallback({spoiling}),")
    batches, original = count(1), AsyncCallbackList.on_test_batch_end

    def stopping(self, *arguments):
        original(self, *arguments)
        if next(batches) == 4:  # the last batch of the first epoch: the run stops at its end
            monkeypatch.setattr(AsyncCallbackList, "on_epoch_end", ending)

    def ending(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        super(AsyncCallbackList, self).on_epoch_end(*arguments)

    monkeypatch.setattr(AsyncCallbackList, "on_test_batch_end", stopping)
    command(script, *SMALL, "--epochs", "2", "--every", "2", "-c", "c", code=143)
    monkeypatch.undo()
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_1.hdf5"
    command(SCRIPT, "-c", tmp_path / "c", "-m", "latest")
    assert_identical(straight() / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


STATES = {
    "no JSON": ("return object()", 2, ["Kept", "get_state", "JSON serializable"]),
    "long numbers": ("return 10**30", 2, ["Kept", "get_state", r"\b31 digits"]),
    "large": ("return 'x' * 70_000", 2, ["Kept", "get_state", "70,002", "65,536"]),
    "that grows": ("return 'x' * 30_000 * len(epochs)", 1, ["Kept", "90,002", "65,536"]),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_no_checkpoint_can_hold(edited, command, tmp_path, name):
    """An invalid state is refused before training; one that becomes invalid later doesn't stop the run."""
    returned, code, parts = STATES[name]
    kept = (
        "    epochs = []\n\n    class Kept(keras.callbacks.Callback):\n"
        "        def on_epoch_end(self, epoch, logs=None):\n            epochs.append(epoch)\n"
        "            logs['note'] = 'x'\n"
        f"        def get_state(self):\n            {returned}\n"
        "        def set_state(self, state):\n            self.state = state\n\n"
    )
    script = edited(CALLBACKS, f"{kept}{CALLBACKS}\n        Kept(),")
    done = command(script, *SMALL, "--epochs", "3", "--every", "1", "-c", "c", code=code)
    assert_names(done.stderr, *parts)
    left = list_checkpoints(tmp_path / "c")
    assert [path.name for path in left] == ([] if code == 2 else [f"epoch_{epoch}.hdf5" for epoch in (1, 2, 3)])
    for path in left:
        read_checkpoint(path)


COUNTING = """
class Counting(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.epochs = self.batches = 0
    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1
    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        assert isinstance(logs["loss"], float)
    def on_test_batch_end(self, batch, logs=None):
        self.batches += 100
    def on_epoch_end(self, epoch, logs=None):
        open("counts", "a").write(f"{self.epochs} {self.batches}, ")
    def get_state(self):
        return [self.epochs, self.batches]
    def set_state(self, state):
        self.epochs, self.batches = state
"""


@pytest.mark.parametrize(("kind", "number"), [("train", 6), ("test", 3)])
def test_a_state_is_that_of_the_last_training_batch(edited, command, monkeypatch, tmp_path, kind, number):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        Counting(),")
    script.write_text(script.read_text().replace("def main()", f"import keras\n{COUNTING}\n\ndef main()"))
    name = f"on_{kind}_batch_end"
    batches, original = count(1), getattr(AsyncCallbackList, name)

    def stopping(self, *arguments):
        if next(batches) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    monkeypatch.setattr(AsyncCallbackList, name, stopping)
    command(script, *SMALL, "--epochs", "2", code=143)
    monkeypatch.undo()
    command(script, "-m", "latest")
    assert (tmp_path / "counts").read_text() == "1 404, 2 808, "
