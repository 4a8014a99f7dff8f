"""A training run before its first step: what it is, where it goes on, and its record."""

import logging
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.history import epochs_of, new_history
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.utils.environment import device, versions

_log = logging.getLogger(__name__)

OF_NETWORK = ("stages", "filters", "reg")
"""Those of a run's values that `ResNet.build` takes."""


@dataclass(frozen=True)
class Run:
    """A training run.

    `values` holds everything that it goes by, each under its name: of these `arguments` are stored as what the run is,
    the same again when it goes on but for those that are `changeable`, and `options` as how this process goes about it.

    Args:
        script: name of the script, without its ending.
        lr_scale: the share of the learning rate that is left after so many epochs, 0 to 1.
        checkpoint, found: what it goes on from, and the checkpoints that this was chosen from as the newest, if it was.
        folder: of its checkpoints.
        command: the command line that goes on with it.
        model_path: file of the trained model, if it is to have one beside its checkpoints.
        ask: where someone can be asked how to go on: called with a text, and with what becomes true when nobody waits
            for an answer any more; returns "go on", "stop", or another learning rate.
        draws_progress: whether a bar can show each step; else there is a line an epoch.
    """

    script: str
    values: Namespace
    arguments: Mapping[str, object]
    options: Mapping[str, object]
    changeable: Collection[str]
    lr_scale: Callable[[int], float]
    checkpoint: Checkpoint | None
    folder: Path
    command: str
    model_path: Path | None = None
    found: Sequence[Path] | None = None
    ask: Callable[[str, Callable[[], bool]], str | float] | None = None
    draws_progress: bool = False

    @property
    def start(self) -> tuple[int, int]:
        """The completed epochs, and batches of the next one, that the run goes on after."""
        return (self.checkpoint.epoch, self.checkpoint.batch) if self.checkpoint else (0, 0)

    @property
    def only_validates(self) -> bool:
        """Whether nothing but validation is left of the epoch that the run goes on in."""
        return self.checkpoint is not None and 0 < self.checkpoint.batch == self.checkpoint.history["run"]["steps"]

    def network(self, images: Mapping, classes: int) -> dict:
        """The arguments of `ResNet.build` for `images`, their size and stem, and `classes`."""
        return {**images, "classes": classes} | {name: getattr(self.values, name) for name in OF_NETWORK}

    def rate(self, history: dict, epoch: int) -> float:
        """The learning rate of the epoch after `epoch` ones."""
        return history["run"]["arguments"]["lr"] * self.lr_scale(epoch)

    def change_rate(self, history: dict, progress: tuple[int, int], lr: float) -> float:
        """Make `lr` the rate, of a decay its start, from (epoch, batch) `progress` on; return the rate that follows.

        Raises:
            InputError: nothing is left there of any rate.
        """
        if not self.lr_scale(progress[0]):
            raise InputError(f"`lr` {lr}: the rate has decayed to 0 after epoch {progress[0]}; leave it out")
        before = self.rate(history, progress[0])
        history["run"]["arguments"]["lr"] = lr
        rate = self.rate(history, progress[0])
        later = f" from epoch {progress[0] + 1} on" if progress[0] > epochs_of(history) else ""
        _log.info(f"learning rate {before:g} -> {rate:g}{later}")
        history["run"]["learning_rate_changes"].append([*progress, rate])
        return rate


def open_history(run: Run, source: DataSource, steps: int) -> dict:
    """The history to go on with: the checkpoint's, or a new one. A change of learning rate is recorded and reported.

    Args:
        steps: batches in an epoch.

    Raises:
        InputError: the data set is not the one that the checkpoint was trained on.
    """
    data = source.digest()
    here = {
        "arguments": dict(run.arguments),
        "dataset": source.name,
        "classes": list(source.class_names),
        "steps": steps,
        "versions": versions(),
        "device": device(),
    }
    if run.checkpoint is None:
        return new_history({"script": run.script, "data": data, "learning_rate_changes": []} | here)
    history = run.checkpoint.history
    record = history["run"]
    before = record["arguments"]
    if record["data"] != data:
        trained_on = f", the checkpoint's `data` {before['data']}" if before["data"] else ""
        there = f"`data` {run.values.data}" if run.values.data else "the data set"
        raise InputError(
            f"{there} holds other images than the run was trained on{trained_on}; name those with `data`, or start a "
            "fresh run without a checkpoint"
        )
    if run.checkpoint.batch > steps:
        raise InputError(f"{run.checkpoint.path} is after batch {run.checkpoint.batch} of an epoch of {steps}")
    if run.checkpoint.backend != keras.backend.backend():
        _log.info(f"the checkpoint is from the {run.checkpoint.backend} backend: the run goes on, but not bit for bit")
    record |= here | {"arguments": here["arguments"] | {"lr": before["lr"]}}
    if run.values.lr != before["lr"]:
        # An epoch that is only to be validated has been trained already.
        run.change_rate(history, (run.start[0] + 1, 0) if run.only_validates else run.start, run.values.lr)
    return history
