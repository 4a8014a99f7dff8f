"""A training run: its settings, folders, locks, and record."""

import logging
import math
import re
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

import keras

from pipeline.callbacks.steering import Requests
from pipeline.callbacks.stopping import StopRequest
from pipeline.checkpoints.checkpoint import Checkpoint, check_resumable, is_checkpoint_of, progress_in
from pipeline.checkpoints.folder import CheckpointFolder, find_checkpoint
from pipeline.checkpoints.history import is_ancestor_of, new_history, read_history
from pipeline.checkpoints.listing import NAMES, list_checkpoints
from pipeline.data.source import DataSource
from pipeline.errors import InputError
from pipeline.files.atomic import make_folder, move_aside, remove_unfinished
from pipeline.files.lock import Lock
from pipeline.files.requests import Inbox
from pipeline.io.batches import Batches
from pipeline.utils.environment import code_commit, device, versions
from pipeline.utils.identity import new_identity

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """A training run.

    Args:
        script: name of the script, without its extension.
        args: the value of each flag, by name.
        checkpoints: the run's checkpoints and history.
        resumed: the checkpoint to resume from; None for a fresh run.
        command: the command line that resumes the run.
        model_path: file of the trained model; None to write checkpoints only.
        found: all checkpoints in the folder, if `resumed` was chosen as the newest of them.
        new_lr: the learning rate to resume with; None keeps the checkpoint's.
        ask: asks the user whether to stop (see `StopMenu`); None without a terminal.
        draws_progress: draw a progress bar instead of printing a line per epoch.
        is_dry: only try it (see `pipeline.training.dryrun`).
        reference: name and curves of a published run to compare with on the run's page; None if there is none.
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
    is_dry: bool = False
    reference: tuple[str, Mapping[str, Sequence[float]]] | None = None

    @classmethod
    def open(
        cls,
        folder: str | PathLike,
        epochs: int,
        *,
        lr: float | None = None,
        stop_after: int | None = None,
        checkpoint_seconds: float | None = None,
        keep: int | None = None,
    ) -> Self:
        """Open the run with its checkpoints in `folder`: resume the newest valid one, or start a fresh run.

        Use it in your own programs; the scripts create their runs from the command line. A resume needs the same data,
        batch size, seed, network and optimizer, and for exactness the same augmentation. Messages go to
        `logging`, which prints them unless the program has configured it otherwise.

        Args:
            folder: folder of the checkpoints, created by `training.fit` if missing.
            epochs: number of the last epoch.
            lr: learning rate to resume with; None keeps the checkpoint's. A fresh run takes the optimizer's.
            stop_after: number of an earlier epoch to stop after; None trains to the last.
            checkpoint_seconds: seconds between checkpoints inside an epoch; None saves there only on a request to stop.
            keep: number of newest epoch checkpoints to keep, besides the best; None keeps all.

        Raises:
            InputError: a value is out of range, `lr` is given but there is no checkpoint, or a script wrote the newest
                checkpoint.
        """
        for name, value in {"epochs": epochs, "stop_after": stop_after, "keep": keep}.items():
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        for name, value in {"lr": lr, "checkpoint_seconds": checkpoint_seconds}.items():
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0")
        if not logging.root.handlers and not logging.getLogger("pipeline").handlers:
            # Otherwise Python would drop everything but warnings.
            logging.basicConfig(level=logging.INFO, format="%(message)s")
        folder, name = Path(folder), "run"
        found = list_checkpoints(folder)
        checkpoint = find_checkpoint("latest", folder)
        if checkpoint is None:
            if lr is not None:
                raise InputError(
                    f"lr is {lr:g}, but {folder} holds no checkpoint; omit it, and compile the optimizer with that rate"
                )
            history = new_history({"script": name, "arguments": {}, "learning_rate_changes": []})
        else:
            check_resumable(checkpoint, name)
            history = checkpoint.history
        history["run"]["arguments"]["epochs"] = epochs
        args = Namespace(
            epochs=epochs,
            stop_after=stop_after,
            checkpoint_seconds=checkpoint_seconds,
            data=None,
            holdout=None,
            warmup_epochs=0,
        )
        checkpoints = CheckpointFolder(folder, history, keep=keep, changeable=("epochs",))
        command = f"Run.open({str(folder)!r}, epochs={epochs})"
        run = cls(name, args, checkpoints, checkpoint, command, found=found, new_lr=lr, draws_progress=True)
        run.report_start()
        _log.info("Ctrl+C saves and stops; the same program resumes")
        return run

    @property
    def folder(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.checkpoints.folder

    @property
    def history(self) -> dict:
        """The run's history (see `pipeline.checkpoints.history`)."""
        return self.checkpoints.history

    @property
    def identity(self) -> str:
        """The identity of the run, which all its processes share: that of its first process."""
        return next(sitting["id"] for sitting in self.history["run"]["sittings"] if "id" in sitting)

    @property
    def progress(self) -> tuple[int, int]:
        """Completed epochs, and completed batches of the next one, when this process started."""
        return self.resumed.progress if self.resumed else (0, 0)

    @property
    def last(self) -> int:
        """Number of the last epoch of this process."""
        return min(self.args.epochs, self.args.stop_after or self.args.epochs)

    def begin(self, data: DataSource, train: Batches, precision: str) -> None:
        """Record the data set and this process in the history.

        Args:
            train: the training batches.
            precision: dtype policy of the model.

        Raises:
            InputError: the checkpoint was trained on other data, with other batches, or in another precision; or it is
                inside an epoch after the last one.
        """
        record, digest, (epoch, batch) = self.history["run"], data.digest(), self.progress
        if self.resumed is not None:
            if record["data"] != digest:
                raise InputError(self._other_data())
            if record["steps"] != train.steps:
                raise InputError(
                    f"{self.resumed.path} was trained with {record['steps']} steps per epoch, the run has "
                    f"{train.steps}: use the same batch size"
                )
            if record.get("precision", precision) != precision:
                raise InputError(f"{self.resumed.path} was trained in {record['precision']}; the model is {precision}")
            if batch > train.steps:
                raise InputError(f"{self.resumed.path} is after batch {batch} of an epoch of {train.steps} batches")
            if batch and epoch >= self.last:
                raise InputError(
                    f"checkpoint {self.resumed.path} is inside epoch {epoch + 1}, after the last epoch {self.last}; "
                    "name an earlier checkpoint, or a later last epoch"
                )
            if self.resumed.backend != keras.backend.backend():
                _log.info(
                    f"the checkpoint is from the {self.resumed.backend} backend: the run resumes, but not bit for bit"
                )
        for name in {"batch_size", "seed"} - vars(self.args).keys():  # which no flag has set and compared
            now = int(getattr(train, name))
            if (recorded := record["arguments"].setdefault(name, now)) != now:
                raise InputError(f"{self.resumed.path} was trained with {name} {recorded}; the run has {now}")
        record |= {
            "dataset": data.name,
            "data": digest,
            "classes": list(data.class_names),
            "precision": precision,
            "steps": train.steps,
        }
        sitting = {"epoch": epoch, "batch": batch, "backend": keras.backend.backend(), "device": device()}
        sitting |= {"versions": versions(), "commit": code_commit(), "id": new_identity()}
        record.setdefault("sittings", []).append(sitting)
        self.checkpoints.normalization = data.normalization.parameters

    def _other_data(self) -> str:
        recorded = self.resumed.history["run"]["arguments"].get("data")
        expected = f" ({recorded})" if recorded else ""
        found = f"`data` {self.args.data}" if self.args.data else "the data set"
        return (
            f"{found} is not the data that the checkpoint was trained on{expected}; name the original with `data`, or "
            "start a fresh run"
        )

    @contextmanager
    def locked(self, outputs: Collection[Path], logs: Collection[Path] = ()) -> Iterator[Requests]:
        """Lock the run's folders, remove unfinished files of killed processes, and take requests.

        Args:
            outputs: files of plots and histories.
            logs: other files that the run writes.

        Yields:
            The requests to the run.

        Raises:
            InputError: another process is training in one of the folders, or did since the checkpoint was chosen.
        """
        models = [] if self.model_path is None else [self.model_path]
        for folder in (self.folder, *(path.parent for path in (*models, *outputs, *logs))):
            make_folder(folder)
        # Runs with different checkpoint folders may share an output folder.
        curves = dict.fromkeys((path.parent, path.stem) for path in outputs)
        with ExitStack() as stack:
            self.checkpoints.lock = stack.enter_context(Lock(self.folder))
            locks = [stack.enter_context(Lock(folder, f".{name}.lock")) for folder, name in curves]
            for path in logs:
                stack.enter_context(Lock(path.parent, f".{path.name}.lock"))
            stop = stack.enter_context(StopRequest())
            stack.callback(self.checkpoints.finish)  # before the folder is free for another process
            if self.found not in (None, list_checkpoints(self.folder)):
                raise InputError(f"another process has just trained in {self.folder}; run the same command again")
            remove_unfinished(self.folder, NAMES)
            for path in (*outputs, *models, *logs):
                remove_unfinished(path.parent, re.compile(re.escape(path.name)))
            inboxes = [Inbox(folder, name, self.identity) for folder, name in curves]
            leftovers = [(inbox, request) for inbox in inboxes for request in inbox.leftovers()]
            for lock in locks:
                lock.describe(f", run {self.identity}")  # from now on, other processes can ask this one
            yield Requests(stop, inboxes, leftovers, self._superseded())

    def _superseded(self) -> str | None:
        """Return why this resume overrules a new rate that was requested of the killed process, if it does."""
        if self.new_lr is not None:
            return f"the run was resumed with the learning rate {self.new_lr:g}"
        newest = list_checkpoints(self.folder)[-1:]
        if self.found is None and newest and (progress_in(newest[0]) or (0, 0)) > self.progress:
            return "the run was resumed from an earlier state"
        return None

    def move_earlier_aside(
        self, models: Sequence[Path], outputs: Mapping[Path, Path | None], logs: Sequence[Path] = ()
    ) -> None:
        """Move files of other runs, and of this run beyond the resumed checkpoint, to `earlier-1`, `earlier-2`, ...

        Args:
            models: checkpoints and trained models.
            outputs: plots and histories, each with the JSON file of its history, or None.
            logs: other files, and folders, known to be of other runs or beyond the resumed checkpoint.
        """
        foreign = [
            path
            for path in models
            if path.exists() and ((progress_in(path) or (0, 0)) > self.progress or not self.owns(path))
        ]
        foreign += [path for path, json_path in outputs.items() if path.exists() and not self.owns_output(json_path)]
        foreign += logs
        for target in move_aside(foreign):
            names = ", ".join(path.name for path in foreign if path.parent == target.parent)
            _log.info(f"moved earlier files to {target}: {names}")

    def owns(self, path: Path) -> bool:
        """Return whether the checkpoint or trained model `path` is an earlier state of this run."""
        if self.resumed is not None and path.resolve() == self.resumed.path.resolve():
            return True
        return is_checkpoint_of(path, self.history, self.checkpoints.changeable, whole=path == self.model_path)

    def owns_output(self, json_path: Path | None) -> bool:
        """Return whether the history in `json_path` is an earlier state of this run.

        A plot without a history (None) counts as this run's if the run is resumed.
        """
        if json_path is None:
            return self.resumed is not None
        try:
            return is_ancestor_of(read_history(json_path), self.history, changeable=self.checkpoints.changeable)
        except InputError:
            return False

    def report_start(self) -> None:
        """Report the checkpoint that the run resumes from, if any."""
        epoch, batch = self.progress
        if self.resumed is not None:
            _log.info(f"resuming from {self.resumed.path}: epoch {epoch}{f', batch {batch}' if batch else ''}")

    def report_resume(self) -> None:
        """Report the newest checkpoint and the command that resumes from it."""
        newest = list_checkpoints(self.folder)[-1:]
        _log.info(f"newest checkpoint: {newest[0] if newest else 'none'}")
        if newest:
            _log.info(f"resume with: {self.command}")
