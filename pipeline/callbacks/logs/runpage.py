"""Show a run in the browser."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from os import PathLike
from pathlib import Path

from keras.src.utils.python_utils import pythonify_logs

from pipeline.callbacks.trainingmonitor import CurveWriter
from pipeline.checkpoints.history import epochs_of, is_curve
from pipeline.errors import InputError
from pipeline.files.atomic import check_folder, write_atomically
from pipeline.pages import Progress, RunFacts, progress_part, run_page


class RunPage(CurveWriter):
    """Write the curves, the record and the progress of a run as an HTML page that loads nothing else.

    The page is written after every epoch. Inside an epoch a thread writes it every few seconds; only the part with the
    progress is new then. The browser reloads it until the run ends. A failed write after an epoch is logged and
    counted, and the next epoch tries again.

    Args:
        path: the HTML file.
        seconds: time between two writes inside an epoch.

    Attributes:
        history: the run's history (see `pipeline.checkpoints.history`), set by `training.fit`.
        describe: returns what the history doesn't hold, set by `training.fit`.
        failures, is_written: as of `CurveWriter`.

    Raises:
        InputError: (a `ValueError`) `path` doesn't end in .html, or its folder can't be written to.
    """

    def __init__(self, path: str | PathLike, seconds: float = 5.0) -> None:
        super().__init__()
        self.path = Path(path)
        if self.path.suffix != ".html":
            raise InputError(f"the page {self.path} does not end in .html")
        check_folder(self.path.parent)
        self.seconds = seconds
        self.describe: Callable[[], RunFacts] = self._facts_of_fit
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future | None = None
        self._state, self._is_live, self._failure = "starting", True, ""
        self._skipped = 0  # epochs that are not in the history
        self._metrics: dict[str, float] = {}
        self._batch, self._rate = 0, None  # completed batches of the epoch, and batches per second
        self._next_look = 0.0
        self._last_look = (0, 0.0)  # the batch and the time of the last look

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._is_live = True
        self.write()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._state, self._batch, self._metrics = "training", 0, {}
        self._last_look = (-1, 0.0)
        self._skipped = epoch - epochs_of(self.history)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._batch = batch + 1
        now = time.monotonic()
        if now < self._next_look:
            return
        before, then = self._last_look
        if 0 <= before < self._batch:
            self._rate = (self._batch - before) / (now - then)
        self._last_look = self._batch, now
        numbers = pythonify_logs(logs)  # waits for the device
        self._metrics = {name: value for name, value in numbers.items() if is_curve(name, value)}
        self._write_progress(now)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._state = "validating"

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if (now := time.monotonic()) >= self._next_look:
            self._write_progress(now)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._state, self._batch, self._metrics = "training", 0, {}
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self.end()

    def end(self, failure: str = "") -> None:
        """Write the page for the last time: the run is finished or stopped, or ends with a `failure`."""
        self._is_live, self._failure = False, failure
        self.write()

    def write_files(self) -> None:
        if self._writing is not None:
            wait([self._writing])
        try:
            self._facts = self.describe()
            self._parts = run_page(self.history, self._facts)
            html = self._page(self._progress())
        except Exception as error:  # a page that can't be made must not end the run
            raise OSError(f"can't make {self.path}: {error}") from error
        write_atomically(self.path, html)

    def _write_progress(self, now: float) -> None:
        """Have the thread write the page, unless it is still writing, or no page was written yet."""
        self._next_look = now + self.seconds
        if self.is_written and (self._writing is None or self._writing.done()):
            # If that fails, the next one may succeed.
            progress = self._progress()
            self._writing = self._pool.submit(lambda: write_atomically(self.path, self._page(progress)))

    def _page(self, progress: Progress) -> bytes:
        return progress_part(progress, self._facts).join(self._parts).encode()

    def _progress(self) -> Progress:
        run, done = self.history["run"], epochs_of(self.history)
        steps = run.get("steps") or (self.params or {}).get("steps") or 0
        if not self._is_live:
            state = "finished" if done >= self._facts.epochs else "stopped"
            return Progress(f"failed: {self._failure}" if self._failure else state, done, self._batch, steps)
        batch_size = run.get("arguments", {}).get("batch_size")
        images_per_second = self._rate * batch_size if self._rate and batch_size else None
        left = self._seconds_left(steps)
        return Progress(self._state, done, self._batch, steps, images_per_second, left, self._metrics, self.seconds)

    def _seconds_left(self, steps: int) -> float | None:
        """Estimate the time for the rest of the run from the last epoch, or from the last batches; None if unknown."""
        *_, epoch = self.history.get("seconds") or [None]
        if epoch is None:
            epoch = steps / self._rate if self._rate else None
        left = self._facts.epochs - epochs_of(self.history) - (self._batch / steps if steps else 0.0)
        return None if epoch is None else max(left, 0.0) * epoch

    def _facts_of_fit(self) -> RunFacts:
        """Return what is known without `training.fit`."""
        return RunFacts(self.path.stem, (self.params or {}).get("epochs", 0) - self._skipped)
