"""Try a run: time two training steps and a validation batch, and write nothing."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence

import keras

from pipeline.callbacks import EpochCheckpoint, WeightAverage
from pipeline.checkpoints.compiled import arrays_of
from pipeline.io.batches import Batches, data_errors
from pipeline.runs import Run
from pipeline.utils.environment import device, is_accelerated, peak_memory

_log = logging.getLogger(__name__)


def dry_run(
    run: Run,
    model: keras.Model,
    train: Batches,
    val: Batches,
    averages: Sequence[WeightAverage],
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train two batches and validate one; report sizes, memory, speed, and an estimate of the time for the run.

    The validation is done twice, because the first one compiles it, as the first training step does. The estimate is
    for a run that has its processor for itself; it includes neither plots nor checkpoints.

    Args:
        averages: the callbacks among `callbacks` that average weights, started.
    """

    def train_on(batch: tuple) -> None:
        model.train_on_batch(*batch)
        for callback in averages:
            callback.average.update()

    (done, trained), last = run.progress, run.last
    with data_errors(train, val):
        train.set_epoch(done)
        reading, batches = _timed(lambda: [train.make(index) for index in range(min(2, train.steps))])
        reading /= len(batches)
        compiling, _ = _timed(lambda: train_on(batches[0]))
        training, _ = _timed(lambda: train_on(batches[-1]))
        val_reading, batch = _timed(lambda: val.make(0))
        model.test_on_batch(*batch)
        validating, _ = _timed(lambda: model.test_on_batch(*batch))
    passes = 1 + len(averages)
    validation = passes * val.steps * _combined(validating, val_reading, val.threads)
    epoch = train.steps * _combined(training, reading, train.threads) + validation
    shape = " x ".join(map(str, train.image_shape))
    checkpoint = sum(values.nbytes for values in arrays_of(model, run.checkpoints.average).values())
    count = _saves(callbacks, run)
    there = next(folder for folder in (run.folder, *run.folder.absolute().parents) if folder.exists())
    for line in (
        "dry run: nothing is written",
        f"network: {model.count_params():,} parameters; {keras.backend.backend()} on {device()}",
        f"training: {train.num_images:,} images of {shape}, {train.steps:,} steps of {train.batch_size:,} per epoch",
        f"validation: {val.num_images:,} images, {val.steps:,} batches{', twice,' if passes > 1 else ''} per epoch",
        f"reading: {reading:.3g} s a batch on each of {train.threads} threads",
        f"training step: {training:.3g} s, {train.batch_size / training:,.0f} images/s; the first, with compiling, "
        f"{compiling:.1f} s",
        f"validation step: {validating:.3g} s, {len(batch[0]) / validating:,.0f} images/s",
        f"memory: {peak_memory()}",
        f"checkpoints: {count:,} of {_bytes(checkpoint)}, {_bytes(count * checkpoint)} in all; "
        f"{_bytes(shutil.disk_usage(there).free)} free",
        f"time: {_duration(epoch)} per epoch, {validation / epoch:.0%} of it validation; "
        f"{_duration(epoch * max(last - done - trained / train.steps, 0))} until epoch {last}",
    ):
        _log.info(line)


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that `call` takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _combined(computing: float, reading: float, threads: int) -> float:
    """Return the seconds per batch if the next batches are read by `threads` threads while one is computed."""
    cores = os.cpu_count() or 1
    if is_accelerated():
        return max(computing, reading / min(threads, cores))
    return computing + reading / cores  # both need the processor


def _saves(callbacks: Sequence[keras.callbacks.Callback], run: Run) -> int:
    """Return the number of checkpoints that the rest of the run leaves, the trained model included."""
    every = min((callback.every for callback in callbacks if isinstance(callback, EpochCheckpoint)), default=run.last)
    saved = sum(epoch % every == 0 or epoch == run.last for epoch in range(run.progress[0] + 1, run.last + 1))
    keep = run.checkpoints.keep
    return (saved if keep is None else min(saved, keep + 1)) + (run.model_path is not None)


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    for unit, length in {"hours": 3600, "minutes": 60}.items():
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"
