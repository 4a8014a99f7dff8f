"""One-line edits of a script: another optimizer, metric or callback, with stop, resume, plot and checkpoints."""

import csv
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from itertools import count

import pytest
from conftest import ROOT, SMALL, assert_identical, assert_same_curves
from messages import TO, assert_names, assert_refused

from pipeline.callbacks import AsyncCallbackList
from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.checkpoints.folder import list_checkpoints
from pipeline.utils.signals import STOPS

SCRIPT = "resnet_cifar10.py"
RUN = (*SMALL, "--epochs", "2", "--every", "1", "--checkpoint_seconds", "0.001")
OPTIMIZER = "WarmupSGD(args.lr, momentum=args.momentum, nesterov=args.nesterov, warmup_steps=warmup_steps)"
METRICS = 'metrics=["accuracy"]'
CALLBACKS = "    callbacks = ["
# A batch in the middle of the second epoch, and its number counted over the run.
INSIDE = "epoch_1_batch_2.hdf5"

OPTIMIZERS = {
    "SGD": "keras.optimizers.SGD(args.lr, momentum=0.8)",
    "Adam": "keras.optimizers.Adam(1e-3)",
    "AdamW": "keras.optimizers.AdamW(2e-3, weight_decay=0.01)",
    "RMSprop": "keras.optimizers.RMSprop(1e-3, momentum=0.5, centered=True)",
}
FURTHER = {
    "Nadam": "keras.optimizers.Nadam(1e-3, clipnorm=1.0)",
    "Adam, accumulating": "keras.optimizers.Adam(1e-3, amsgrad=True, gradient_accumulation_steps=3)",
    "Lion": "keras.optimizers.LossScaleOptimizer(keras.optimizers.Lion(1e-4))",
}
TOP3 = 'metrics=["accuracy", keras.metrics.TopKCategoricalAccuracy(3, name="top3")]'
RECALL = 'metrics=[keras.metrics.Recall(name="recall"), keras.metrics.AUC(name="auc")]'


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing is saved on the way out."""


@pytest.fixture
def edited(tmp_path):
    """The path of a script after an edit of its text."""

    def edit(before, after, script=SCRIPT):
        text = (ROOT / script).read_text()
        assert text.count(before) == 1
        (tmp_path / script).write_text(text.replace(before, after))
        return tmp_path / script

    return edit


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """Runs a script in this process and kills it at the end of its training batch `number`, counted from 1."""

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
    """A run of a script that never stops against one that is killed inside its second epoch and gone on with."""

    def run(script, *flags):
        command(script, *RUN, *flags, "-c", "straight", "-o", "straight")
        killed(script, *RUN, *flags, "-c", "killed", "-o", "killed")
        assert list_checkpoints(tmp_path / "killed")[-1].name == INSIDE
        done = command(script, "-c", "killed", "-m", "latest")
        assert_identical(tmp_path / "straight" / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
        assert_same_curves(tmp_path / "straight", tmp_path / "killed")
        return done

    return run


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_optimizer(edited, check, tmp_path, name):
    check(edited(OPTIMIZER, OPTIMIZERS[name]))
    state = read_checkpoint(tmp_path / "killed" / "epoch_2.hdf5")
    assert state.optimizer["class_name"] == name
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    rate = {"SGD": 0.1, "AdamW": 2e-3}.get(name, 1e-3)
    assert history["learning_rate"] == [rate] * 2
    assert history["run"]["arguments"]["lr"] == rate


@pytest.mark.parametrize(("metrics", "curves"), [(TOP3, {"accuracy", "top3"}), (RECALL, {"recall", "auc"})])
def test_another_metric(edited, check, tmp_path, metrics, curves):
    check(edited(METRICS, metrics))
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    measured = {curve for curve, values in history.items() if values} - {"run", "loss", "learning_rate", "seconds"}
    assert measured == curves | {f"val_{curve}" for curve in curves} | {"val_loss"}
    assert all(len(history[curve]) == 2 for curve in measured)


# What a line of the list may be, in a script of the same bits; each also notes when training begins and ends.
NOTES = (
    "keras.callbacks.LambdaCallback("
    "on_train_begin=lambda logs: open('notes', 'a').write('begin '), "
    "on_epoch_end=lambda epoch, logs: open('notes', 'a').write(f'{epoch} '), "
    "on_train_end=lambda logs: open('notes', 'a').write('end '))"
)
OTHERS = {
    "CSVLogger": "keras.callbacks.CSVLogger('log.csv', append=True)",
    "LambdaCallback": NOTES,
    "TerminateOnNaN": "keras.callbacks.TerminateOnNaN()",
    "ModelCheckpoint": "keras.callbacks.ModelCheckpoint('best.keras', monitor='val_accuracy', save_best_only=True)",
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run of the script as it is, which no callback that leaves the model alone may change."""
    folder = tmp_path_factory.mktemp("straight")
    words = [sys.executable, ROOT / SCRIPT, *RUN, "-c", folder, "-o", folder]
    subprocess.run(words, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", OTHERS)
def test_another_callback(edited, command, killed, straight, tmp_path, name):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {OTHERS[name]},")
    killed(script, *RUN, "-c", "killed", "-o", "killed")
    command(script, "-c", "killed", "-m", "latest")
    assert_identical(straight / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
    assert_same_curves(straight, tmp_path / "killed")
    if name == "CSVLogger":
        rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
        assert [row["epoch"] for row in rows] == ["0", "1"]
    if name == "LambdaCallback":  # the process that was killed came to no end
        assert (tmp_path / "notes").read_text() == "begin 0 begin 1 end "


def test_training_begins_and_ends_once_also_where_only_a_validation_is_left(edited, command, monkeypatch, tmp_path):
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {NOTES},")
    batches, original = count(1), AsyncCallbackList.on_test_batch_end

    def stopping(self, *arguments):
        if next(batches) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)

    monkeypatch.setattr(AsyncCallbackList, "on_test_batch_end", stopping)
    command(script, *RUN, "-c", "c", code=143)
    monkeypatch.undo()
    command(script, "-c", "c", "-m", "latest")
    assert (tmp_path / "notes").read_text() == "begin end begin 0 1 end "


STOPPING = "EarlyStopping(monitor='learning_rate', mode='min', patience=2)"


def test_a_callback_with_a_state_of_its_own_goes_on_where_it_was(edited, command, killed, tmp_path):
    """The rate never gets better: after one epoch that is the best and two to wait, the third is the last."""
    script = edited(CALLBACKS, f"{CALLBACKS}\n        {STOPPING},")
    script.write_text(script.read_text().replace("import EpochCheckpoint", "import EarlyStopping, EpochCheckpoint"))
    flags = ["9" if flag == "2" else flag for flag in RUN]
    done = command(script, *flags, "-c", "straight", "-o", "straight")
    assert_names(done.stdout, r"callback.*\bepoch 3\b")
    killed(script, *flags, "-c", "killed", "-o", "killed", number=11)
    inside = read_checkpoint(list_checkpoints(tmp_path / "killed")[-1])
    assert inside.progress == (2, 2)
    assert inside.callbacks["EarlyStopping"]["wait"] == 1
    for _ in range(2):  # once it has ended, it stays so
        command(script, "-c", "killed", "-m", "latest")
        assert list_checkpoints(tmp_path / "killed")[-1].name == "epoch_3.hdf5"
        assert_identical(tmp_path / "straight" / "epoch_3.hdf5", tmp_path / "killed" / "epoch_3.hdf5")


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
    assert_identical(straight / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


def test_weights_put_in_at_the_end_do_not_reach_a_checkpoint_of_a_stop(
    edited, command, monkeypatch, straight, tmp_path
):
    spoiling = "on_train_end=lambda logs: model.set_weights([0 * weight for weight in model.get_weights()])"
    script = edited(CALLBACKS, f"{CALLBACKS}\n        keras.callbacks.LambdaCallback({spoiling}),")
    batches, original = count(1), AsyncCallbackList.on_test_batch_end

    def stopping(self, *arguments):
        original(self, *arguments)
        if next(batches) == 4:  # the last of the first epoch: the request is met at its end
            monkeypatch.setattr(AsyncCallbackList, "on_epoch_end", ending)

    def ending(self, *arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        super(AsyncCallbackList, self).on_epoch_end(*arguments)

    monkeypatch.setattr(AsyncCallbackList, "on_test_batch_end", stopping)
    command(script, *SMALL, "--epochs", "2", "--every", "2", "-c", "c", code=143)
    monkeypatch.undo()
    assert list_checkpoints(tmp_path / "c")[-1].name == "epoch_1.hdf5"
    command(SCRIPT, "-c", tmp_path / "c", "-m", "latest")
    assert_identical(straight / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


STATES = {
    "no JSON": ("return object()", 2, ["Kept", "get_state", "JSON serializable"]),
    "long numbers": ("return 10**30", 2, ["Kept", "get_state", r"\b31 digits"]),
    "large": ("return 'x' * 70_000", 2, ["Kept", "get_state", "70,002", "65,536"]),
    "that grows": ("return 'x' * 30_000 * len(epochs)", 1, ["Kept", "90,002", "65,536"]),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_no_checkpoint_can_hold(edited, command, tmp_path, name):
    """It is refused before training; one that becomes so on the way costs no more than itself."""
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


REFUSED = {
    "a schedule": (
        OPTIMIZER,
        "keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100))",
        ["SGD", "schedule"],
    ),
    "other shapes": (OPTIMIZER, "keras.optimizers.Adafactor(1e-3)", ["Adafactor", "kernel", "shape"]),
    "averages of Keras": (OPTIMIZER, "keras.optimizers.SGD(0.1, use_ema=True)", ["SGD", "use_ema"]),
    "several steps at once": (
        METRICS,
        f"{METRICS}, steps_per_execution=2",
        ["steps_per_execution", r"\b2\b", r"\b1\b"],
    ),
    "a rate of nothing": (OPTIMIZER, "keras.optimizers.SGD(0.0)", ["SGD", "learning.rate", r"\b0\b"]),
    "a precision of its own": ("args.precision)", "'mixed_float16')", ["mixed_float16", r"\bfloat32"]),
    "a giant metric": (METRICS, 'metrics=[keras.metrics.AUC(20_000, name="a")]', ["metrics", "80,002"]),
    "a metric of many numbers": (METRICS, 'metrics=[keras.metrics.F1Score(name="f1")]', [r"\bf1\b", r"\b10\b"]),
    "a reserved name": (METRICS, 'metrics=[keras.metrics.Recall(name="seconds")]', ["metric", "'seconds'"]),
    "the name of a curve": (METRICS, 'metrics=[keras.metrics.Recall(name="val_loss")]', ["metric", "'val_loss'"]),
    "best weights": (
        CALLBACKS,
        f"{CALLBACKS}\n        keras.callbacks.EarlyStopping(restore_best_weights=True),",
        ["EarlyStopping", "restore_best_weights"],
    ),
    "another folder": (
        "EpochCheckpoint(run.folder,",
        "EpochCheckpoint('elsewhere',",
        ["EpochCheckpoint", r"\belsewhere\b", "output/resnet_cifar10/checkpoints"],
    ),
    "another restore": (
        CALLBACKS,
        f"{CALLBACKS}\n        keras.callbacks.BackupAndRestore('b'),",
        ["BackupAndRestore"],
    ),
    "a model of one's own": (
        "    warmup_steps =",
        "    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])\n    warmup_steps =",
        ["ResNet.build"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_can_hold_is_refused_before_training(edited, command, tmp_path, name):
    before, after, parts = REFUSED[name]
    assert_refused(command(edited(before, after), *RUN, code=2), *parts)
    assert not list(tmp_path.rglob("*.hdf5"))


def test_a_warm_up_is_that_of_one_optimizer_alone(edited, command):
    done = command(edited(OPTIMIZER, OPTIMIZERS["Adam"]), *RUN, "--warmup_epochs", "1", code=2)
    assert_refused(done, "--warmup_epochs 1", "Adam", "WarmupSGD")


CHANGED = {
    "another optimizer": (OPTIMIZER, OPTIMIZERS["Adam"], ["WarmupSGD", "Adam"]),
    "another value": (OPTIMIZER, OPTIMIZER.replace("args.momentum", "0.5"), ["momentum", r"\b0\.9\b", r"\b0\.5\b"]),
    "a metric more": (METRICS, TOP3, ["metrics", "'top3/total'"]),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run of the script as it is, stopped after an epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    words = [sys.executable, ROOT / SCRIPT, *RUN, "--stop_after", "1", "-c", folder, "-o", folder]
    subprocess.run(words, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", CHANGED)
def test_a_script_that_was_edited_on_the_way_is_named_by_its_first_difference(edited, command, stopped, name):
    before, after, parts = CHANGED[name]
    assert_refused(command(edited(before, after), "-c", stopped, "-m", "latest", code=2), *parts)


def test_a_rate_changed_by_hand_outlives_the_one_in_the_script(edited, command, tmp_path):
    script = edited(OPTIMIZER, OPTIMIZERS["Adam"])
    done = command(script, *SMALL, "--epochs", "3", "--stop_after", "1")
    assert_names(done.stdout.partition("\nepoch 1/")[0], r"\b0\.001\b")
    command(script, "-m", "latest", "--lr", "0.0002", "--stop_after", "2")
    command(script, "-m", "latest")
    history = json.loads((tmp_path / "output" / f"{SCRIPT[:-3]}.json").read_text())
    assert history["learning_rate"] == [0.001, 0.0002, 0.0002]
    assert history["run"]["learning_rate_changes"] == [[1, 0, 0.0002]]


def test_keras_own_scheduler_sets_the_rate_of_a_decay(edited, command, tmp_path):
    script = edited(
        "LearningRate(decay=recipe.decay)",
        "keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (1 + epoch))",
        "resnet_cifar10_decay.py",
    )
    command(script, *SMALL, "--epochs", "2", "-m", "m.hdf5", "--stop_after", "1")
    command(script, "-m", "m.hdf5", "--resume")
    history = json.loads((tmp_path / "output" / "resnet_cifar10_decay.json").read_text())
    assert history["learning_rate"] == [0.1, 0.05]
    done = command(script, "-m", "m.hdf5", "--resume", "--lr", "0.5", code=2)
    assert_refused(done, "--lr 0.5", "LearningRateScheduler")


def test_a_plot_that_is_not_beside_its_history_stays_the_run_s(edited, command, tmp_path):
    script = edited('Path(args.output, "resnet_cifar10.png")', 'Path(args.output, "plots", "curves.png")')
    command(script, *SMALL, "--epochs", "2", "--stop_after", "1")
    command(script, "-m", "latest")
    assert not list((tmp_path / "output").rglob("earlier-1"))


@pytest.mark.parametrize("warmup_epochs", ["0", "2"])
def test_a_scheduler_that_goes_by_the_present_rate_changes_it_once_an_epoch(edited, check, tmp_path, warmup_epochs):
    """Where an epoch is resumed inside, its beginning comes again, and the rate was halved already."""
    halving = "keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5 if epoch else lr)"
    check(edited(CALLBACKS, f"{CALLBACKS}\n        {halving},"), "--warmup_epochs", warmup_epochs)
    history = json.loads((tmp_path / "killed" / f"{SCRIPT[:-3]}.json").read_text())
    assert history["learning_rate"] == [0.1 if warmup_epochs == "0" else 0.05, 0.05]


def test_a_rate_that_falls_on_a_plateau_is_not_set_back(edited, command, tmp_path):
    falling = "monitor='learning_rate', mode='min', factor=0.5, patience=1, min_delta=1.0"
    script = edited(CALLBACKS, f"{CALLBACKS}\n        keras.callbacks.ReduceLROnPlateau({falling}),")
    command(script, *SMALL, "--epochs", "4")
    path = tmp_path / "output" / f"{SCRIPT[:-3]}.json"
    assert json.loads(path.read_text())["learning_rate"][-1] < 0.05
    # A rate given is compared with the present one, and not with the first.
    done = command(script, "-m", "latest", "--epochs", "5", "--lr", "0.1")
    assert_names(done.stdout, rf"\b0\.0\d+ {TO} 0\.1\b")
    assert json.loads(path.read_text())["learning_rate"][-1] == 0.1


def test_a_list_without_the_project_s_callbacks_trains_and_resumes(edited, command, straight, tmp_path):
    text = (ROOT / SCRIPT).read_text()
    callbacks = text[text.index(CALLBACKS) : text.index("    outcome = ")]
    script = edited(callbacks, "    callbacks = []\n")
    command(script, *RUN, "--stop_after", "1", "-c", "c")
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5"]
    command(script, "-c", "c", "-m", "latest")
    assert_identical(straight / "epoch_2.hdf5", tmp_path / "c" / "epoch_2.hdf5")


@pytest.mark.sweep
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        *((OPTIMIZER, of) for of in (*OPTIMIZERS.values(), *FURTHER.values())),
        (METRICS, TOP3),
        (METRICS, RECALL),
        *((CALLBACKS, f"{CALLBACKS}\n        {callback},") for callback in OTHERS.values()),
    ],
)
def test_an_edited_script_that_is_killed_goes_on_exactly(edited, tmp_path, backend, before, after):
    script = edited(before, after)

    def run(folder, *flags, kind="none", number=0, code=0):
        words = [sys.executable, ROOT / "tests" / "faults.py", kind, number, script, *flags, "-c", folder, "-o", folder]
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(list(map(str, words)), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr

    run("straight", *RUN)
    run("killed", *RUN, kind="SIGKILL", number=11, code=-9)
    run("killed", "-m", "latest")
    assert_identical(tmp_path / "straight" / "epoch_2.hdf5", tmp_path / "killed" / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "straight", tmp_path / "killed")
