"""Find, write and remove the checkpoints of a run in a folder."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock

import keras
import numpy as np

from pipeline.checkpoints.checkpoint import Checkpoint, read_checkpoint
from pipeline.checkpoints.compiled import arrays_of, metric_state, metrics_manifest, optimizer_record
from pipeline.checkpoints.history import lineage, new_history, validation_score
from pipeline.checkpoints.listing import list_checkpoints, progress_named
from pipeline.checkpoints.state import State, callback_state
from pipeline.checkpoints.writer import Content, image_of, save_checkpoint
from pipeline.errors import InputError
from pipeline.files.lock import Lock as FolderLock
from pipeline.files.sealed import BLOCK
from pipeline.nn.average import MovingAverage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MidEpoch:
    """The running loss and metrics and the callbacks' states at a batch, for a checkpoint inside an epoch."""

    metrics: Sequence[np.ndarray]
    callbacks: Mapping[str, object]


@dataclass(eq=False)
class CheckpointFolder:
    """Write the checkpoints of a run, and remove those no longer needed.

    A checkpoint inside an epoch is removed once a newer one is written. If a write fails, the error is logged and
    counted, and training goes on. One thread writes, so that large files don't hold training up: it keeps a copy of the
    state in memory, and at most one file is being written.

    Args:
        folder: folder of the checkpoints.
        history: the run's history (see `pipeline.checkpoints.history`), kept up to date by callbacks.
        options: options of this process, such as `workers`; a resume uses them as defaults.
        keep: number of newest epoch checkpoints to keep, besides the best by `validation_score`; None keeps all.
        changeable: names of the run's arguments that a resume may change.

    Attributes:
        normalization: `parameters` of the images' normalization (see `pipeline.preprocessing.Normalization`); None if
            unknown.
        average: the moving average of the weights; None if there is none.
        callbacks: the stateful callbacks by name.
        seconds: returns the duration of the current epoch; None if it isn't measured.
        lock: keeps other processes out of `folder`; acquired again if the folder was removed.
        failures: number of failed writes.
        saved: (epoch, batch) of the last checkpoint written; None before the first.
        saved_at: `time.monotonic()` of the last attempt to save, initially of the object's creation.
    """

    folder: Path
    history: dict = field(default_factory=new_history)
    options: dict = field(default_factory=dict)
    keep: int | None = None
    changeable: Collection[str] = ()
    normalization: np.ndarray | None = field(default=None, init=False)
    average: MovingAverage | None = field(default=None, init=False)
    callbacks: Mapping[str, keras.callbacks.Callback] = field(default_factory=dict, init=False)
    seconds: Callable[[], float] | None = field(default=None, init=False)
    lock: FolderLock | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)
    saved: tuple[int, int] | None = field(default=None, init=False)
    _states: Mapping[str, object] = field(default_factory=dict, init=False)
    saved_at: float = field(default_factory=lambda: time.monotonic(), init=False)
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1), init=False)
    _last: Future | None = field(default=None, init=False)
    _counting: Lock = field(default_factory=Lock, init=False)

    def save(self, *state, **options) -> bool:
        """Write a checkpoint, and return whether that succeeded; for arguments see `start_save`."""
        return self.start_save(*state, **options).result()

    def start_save(
        self,
        model: keras.Model,
        epoch: int,
        batch: int = 0,
        mid_epoch: MidEpoch | None = None,
        *,
        consequence: str = "the next save tries again",
    ) -> Future:
        """Copy the state of `model` after `epoch` epochs and `batch` batches, and write it in a thread.

        Waits for the previous write first. The future's result is True if the write succeeded.

        Args:
            mid_epoch: required inside an epoch.
            consequence: ends the error message if the write fails.
        """
        self.finish()
        self.saved_at = time.monotonic()
        path = self.path_of(epoch, batch)
        try:
            content = self._content(model, epoch, batch, mid_epoch)
        except InputError as error:
            self._fail(error, consequence)
            self._last = Future()
            self._last.set_result(False)
        else:
            score = tuple(validation_score(self.history))
            self._last = self._thread.submit(self._write, path, content, score, consequence)
        return self._last

    def path_of(self, epoch: int, batch: int = 0) -> Path:
        """Return the file of the checkpoint after `epoch` epochs and `batch` batches."""
        return self.folder / (f"epoch_{epoch}_batch_{batch}.hdf5" if batch else f"epoch_{epoch}.hdf5")

    def finish(self) -> None:
        """Wait for the last write."""
        if self._last is not None:
            self._last.result()

    def save_as(self, path: Path, model: keras.Model, epoch: int) -> bool:
        """Write the state after `epoch` epochs to `path`, as the trained model; return whether that succeeded."""
        try:
            save_checkpoint(path, self._content(model, epoch))
        except (OSError, InputError) as error:
            self._fail(error, "the run is saved in its checkpoints")
            return False
        return True

    def size_of(self, model: keras.Model, epoch: int) -> int:
        """Return the size in bytes of a checkpoint after `epoch` epochs."""
        return BLOCK + len(image_of(self._content(model, epoch)))

    def mid_epoch(self, model: keras.Model) -> MidEpoch:
        """Copy the running loss and metrics and the callbacks' states, to save now or during validation."""
        return MidEpoch(metric_state(model), self._callback_states())

    def check_callbacks(self) -> None:
        """Raise `InputError` if a checkpoint can't hold the state of a callback."""
        self._states = {name: callback_state(name, callback.get_state()) for name, callback in self.callbacks.items()}

    def _callback_states(self) -> dict:
        """Return the callbacks' states by name; for one that a checkpoint can't hold, the previous state."""
        for name, callback in self.callbacks.items():
            try:
                self._states = self._states | {name: callback_state(name, callback.get_state())}
            except InputError as error:
                self._fail(error, "saving its previous state")
        return self._states

    def _content(self, model: keras.Model, epoch: int, batch: int = 0, mid_epoch: MidEpoch | None = None) -> Content:
        """Copy the state of `model` and of the run."""
        mid_epoch = mid_epoch or MidEpoch([], self._callback_states())
        state = State(
            epoch=epoch,
            batch=batch,
            network=dict(getattr(model, "network", {})),
            history=self.history,
            options=self.options,
            averaged=self.average is not None,
            normalization=None if self.normalization is None else self.normalization.shape,
            optimizer=optimizer_record(model.optimizer),
            metrics=metrics_manifest(model),
            callbacks=dict(mid_epoch.callbacks),
            seconds=self.seconds() if batch and self.seconds else 0.0,
        )
        arrays = arrays_of(model, self.average)
        arrays |= {f"run/metrics/{number}": values for number, values in enumerate(mid_epoch.metrics)}
        if self.normalization is not None:
            arrays["run/normalization"] = self.normalization
        return Content.of(model, state, arrays, lineage(self.history, self.changeable))

    def _write(self, path: Path, content: Content, score: Sequence[float], consequence: str) -> bool:
        """Write a checkpoint, and remove those no longer needed; runs in the thread."""
        try:
            if self.lock is not None:
                with suppress(OSError):  # the write below reports it
                    if not self.folder.exists():
                        self.folder.mkdir(parents=True)
                        self._fail(f"the folder {self.folder} was removed, with its checkpoints", "created it again")
                    self.lock.acquire()
            save_checkpoint(path, content)
        except Exception as error:  # such as a lack of memory: nobody else would learn of it before the next save
            self._fail(error if isinstance(error, (OSError, InputError)) else repr(error), consequence)
            return False
        self.saved = content.progress
        try:
            self._remove_superfluous(content.progress, score)
        except OSError as error:
            self._fail(error, "older checkpoints stay")
        return True

    def _fail(self, error: Exception | str, consequence: str) -> None:
        with self._counting:
            self.failures += 1
        _log.error("%s; %s", error, consequence)

    def _remove_superfluous(self, newest: tuple[int, int], score: Sequence[float]) -> None:
        named = {progress: path for path in self.folder.iterdir() if (progress := progress_named(path))}
        superfluous = {progress for progress in named if progress[1] and progress < newest}
        if self.keep is not None:
            epochs = sorted(progress for progress in named if not progress[1] and progress <= newest)
            best = max(epochs, key=lambda progress: score[progress[0] - 1 : progress[0]], default=None)
            superfluous |= {progress for progress in epochs[: -self.keep] if progress != best}
        for progress in superfluous:
            named[progress].unlink(missing_ok=True)


def find_checkpoint(name: str | None, folder: Path) -> Checkpoint | None:
    """Read the checkpoint `name`, or for "latest" the newest valid one in `folder`.

    Returns None if `name` is None, or `folder` holds no valid checkpoint.

    Raises:
        InputError: the file `name` is not a valid checkpoint.
    """
    if name is None:
        return None
    if name != "latest":
        return read_checkpoint(Path(name))
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except InputError as error:
            _log.warning("skipped: %s", error)
    _log.info("no checkpoint in %s: starting a fresh run", folder)
    return None


def newest_model(model: Path, *folders: Path) -> Path:
    """Return the file `model` if it exists, else the newest checkpoint in `folders`.

    Raises:
        InputError: there is neither.
    """
    if model.exists():
        return model
    newest = [path for folder in folders for path in list_checkpoints(folder)[-1:]]
    if not newest:
        searched = " or ".join(map(str, folders))
        raise InputError(f"{model} doesn't exist, and {searched} holds no checkpoint; name one with `model`")
    return max(newest, key=lambda path: path.stat().st_mtime)
