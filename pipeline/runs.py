"""A training run: its values, the checkpoint it goes on from, its folders and its record."""

import logging
import re
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras

from pipeline.callbacks.stopping import StopRequest
from pipeline.checkpoints.checkpoint import Checkpoint, is_checkpoint_of, progress_in
from pipeline.checkpoints.folder import NAMES, CheckpointFolder, list_checkpoints
from pipeline.checkpoints.history import is_start_of, read_history
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder, move_aside, remove_unfinished
from pipeline.files.lock import Lock
from pipeline.utils.environment import code_commit, device, versions

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """A training run.

    Args:
        script: name of the script, without its ending.
        args: the value of each flag, by its name.
        checkpoints: the run's checkpoints, and with them its history.
        resumed: the checkpoint to go on from; None for a fresh run.
        command: the command line that resumes the run.
        model_path: file of the trained model; None to keep checkpoints alone.
        found: the checkpoints of the folder, if `resumed` was chosen as the newest of them.
        new_lr: the learning rate to resume with; None to keep the checkpoint's.
        ask: asks the user how to go on (see `StopMenu`); None where there is no terminal.
        draws_progress: draw a progress bar instead of printing a line an epoch.
    """

    script: str
    args: Namespace
    checkpoints: CheckpointFolder
    resumed: Checkpoint | None
    command: str
    model_path: Path | None = None
    found: Sequence[Path] | None = None
    new_lr: float | None = None
    ask: Callable[[str, Callable[[], bool]], str | float] | None = None
    draws_progress: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.checkpoints.folder

    @property
    def history(self) -> dict:
        """The run so far (see `pipeline.checkpoints.history`)."""
        return self.checkpoints.history

    @property
    def progress(self) -> tuple[int, int]:
        """The completed epochs, and completed batches of the next one, at the start of this process."""
        return self.resumed.progress if self.resumed else (0, 0)

    @property
    def last(self) -> int:
        """The number of the last epoch of this process."""
        return min(self.args.epochs, self.args.stop_after or self.args.epochs)

    def begin(self, data: DataSource, steps: int, precision: str) -> None:
        """Record the data set and this process in the history.

        Args:
            steps: batches in an epoch.
            precision: the dtype policy of the model.

        Raises:
            InputError: the data set is not the one that the checkpoint was trained on, or the checkpoint is inside an
                epoch that is beyond the last.
        """
        record, digest, (epoch, batch) = self.history["run"], data.digest(), self.progress
        if self.resumed is not None:
            if record["data"] != digest:
                raise InputError(self._other_images())
            if batch > steps:
                raise InputError(f"{self.resumed.path} is after batch {batch} of an epoch of {steps}")
            if batch and epoch >= self.last:
                raise InputError(
                    f"checkpoint {self.resumed.path} is inside epoch {epoch + 1}, and the run is to end after epoch "
                    f"{self.last}; name an earlier checkpoint, or a later epoch"
                )
            if self.resumed.backend != keras.backend.backend():
                _log.info(f"the checkpoint is from the {self.resumed.backend} backend: it goes on, but not bit for bit")
        record |= {
            "dataset": data.name,
            "data": digest,
            "classes": list(data.class_names),
            "precision": precision,
            "steps": steps,
        }
        sitting = {"epoch": epoch, "batch": batch, "backend": keras.backend.backend(), "device": device()}
        sitting |= {"versions": versions(), "commit": code_commit()}
        record.setdefault("sittings", []).append(sitting)
        self.checkpoints.mean = data.normalization.mean

    def _other_images(self) -> str:
        before = self.resumed.history["run"]["arguments"].get("data")
        trained_on = f", the checkpoint's `data` {before}" if before else ""
        there = f"`data` {self.args.data}" if self.args.data else "the data set"
        return (
            f"{there} holds other images than the run was trained on{trained_on}; name those with `data`, or start a "
            "fresh run without a checkpoint"
        )

    @contextmanager
    def held(self, outputs: Collection[Path]) -> Iterator[StopRequest]:
        """Lock the run's folders, remove unfinished files of dead processes, and take requests to stop.

        Args:
            outputs: files of plots and histories.

        Raises:
            InputError: another process trains in one of the folders, or has done so since the checkpoint was chosen.
        """
        models = [] if self.model_path is None else [self.model_path]
        for folder in (self.folder, *(path.parent for path in models)):
            make_folder(folder)
        # Another run may keep its checkpoints elsewhere and yet its curves in the same place.
        places = dict.fromkeys((path.parent, f".{path.stem}.lock") for path in outputs)
        with ExitStack() as stack:
            self.checkpoints.lock = stack.enter_context(Lock(self.folder))
            for place in places:
                stack.enter_context(Lock(*place))
            stop = stack.enter_context(StopRequest())
            if self.found not in (None, list_checkpoints(self.folder)):
                raise InputError(
                    f"another process has gone on with the run in {self.folder} just now; start this one again"
                )
            remove_unfinished(self.folder, NAMES)
            for path in (*outputs, *models):
                remove_unfinished(path.parent, re.compile(re.escape(path.name)))
            yield stop

    def keep_earlier(self, models: Sequence[Path], outputs: Mapping[Path, Path | None]) -> None:
        """Move aside what this run would overwrite, or what goes beyond the point where it goes on.

        Args:
            models: checkpoints and trained models.
            outputs: plots and histories, each with the JSON file of its history, if it has one.
        """
        foreign = [
            path
            for path in models
            if path.exists() and ((progress_in(path) or (0, 0)) > self.progress or not self.owns(path))
        ]
        foreign += [path for path, json_path in outputs.items() if path.exists() and not self.owns_output(json_path)]
        for target in move_aside(foreign):
            names = ", ".join(path.name for path in foreign if path.parent == target.parent)
            _log.info(f"moved to {target}, to keep what was there: {names}")

    def owns(self, path: Path) -> bool:
        """Return whether the checkpoint or trained model `path` is of this run at an earlier point."""
        if self.resumed is not None and path.resolve() == self.resumed.path.resolve():
            return True
        return is_checkpoint_of(path, self.history, self.checkpoints.changeable, whole=path == self.model_path)

    def owns_output(self, json_path: Path | None) -> bool:
        """Return whether the history in `json_path` is of this run at an earlier point.

        A plot without one, None, is taken for the run's where that resumes.
        """
        if json_path is None:
            return self.resumed is not None
        try:
            return is_start_of(read_history(json_path), self.history, changeable=self.checkpoints.changeable)
        except InputError:
            return False

    def tell_how_to_go_on(self) -> None:
        """Report the newest checkpoint, and the command that resumes from it."""
        newest = list_checkpoints(self.folder)[-1:]
        _log.info(f"the newest checkpoint is {newest[0] if newest else 'none'}")
        if newest:
            _log.info(f"go on with: {self.command}")
