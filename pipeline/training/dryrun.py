"""Try a run: time two training steps and a validation batch, and write nothing."""

import logging
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from pipeline.callbacks import EpochCheckpoint, WeightAverage
from pipeline.io.batches import Batches, data_errors
from pipeline.training.runs import Run
from pipeline.utils.environment import cores, device, is_accelerated, peak_memory
from pipeline.utils.text import duration

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

    The estimate is for a run that has the machine to itself; it includes neither compiling nor plots nor checkpoints.

    Args:
        averages: the callbacks among `callbacks` that average weights, started.
    """
    speed = _measure(run, model, train, val, averages)
    validation = (1 + len(averages)) * val.steps * combined(speed.validating, speed.val_reading, val.threads)
    epoch = train.steps * combined(speed.training, speed.reading, train.threads) + validation
    (done, trained), last = run.progress, run.last
    left = max(last - done - trained / train.steps, 0.0)
    again = ", and again with the averaged weights" if averages else ""
    shape = " x ".join(map(str, train.image_shape))
    for line in (
        "dry run: nothing is written",
        f"network: {model.count_params():,} parameters; {keras.backend.backend()} on {device()}",
        f"training: {train.num_images:,} images of {shape}, {train.steps:,} steps of {train.batch_size:,} per epoch",
        f"validation: {val.num_images:,} images, {val.steps:,} batches per epoch{again}",
        f"reading a batch: {speed.reading:.3g} s in one thread, of {train.threads}",
        f"first training step, with compiling: {speed.compiling:.1f} s",
        f"training step: {speed.training:.3g} s, {_rate(train.batch_size / speed.training)}",
        f"validation step: {speed.validating:.3g} s, {_rate(min(val.batch_size, val.num_images) / speed.validating)}",
        f"memory: {peak_memory()}",
        _describe_checkpoints(run, model, callbacks),
        f"time: {duration(epoch)} per epoch, {validation / epoch:.0%} of it validation; {duration(epoch * left)} "
        f"until epoch {last}",
    ):
        _log.info(line)


@dataclass(frozen=True)
class _Speed:
    """Seconds per batch: to read it in one thread, and to train on it, the first time and later, or validate it."""

    reading: float
    val_reading: float
    compiling: float
    training: float
    validating: float


def _measure(run: Run, model: keras.Model, train: Batches, val: Batches, averages: Sequence[WeightAverage]) -> _Speed:
    """Train two batches and validate one; repeat the second and the latter for a second, and take the median."""

    def train_on(batch: tuple) -> None:
        model.train_on_batch(*batch)
        for callback in averages:
            callback.average.update()

    with data_errors(train, val):
        train.set_epoch(run.progress[0])
        reading, batches = _timed(lambda: [train.make(index) for index in range(min(2, train.steps))])
        val_reading, val_batch = _timed(lambda: val.make(0))
    compiling, _ = _timed(lambda: train_on(batches[0]))
    training = _median(lambda: train_on(batches[-1]))
    model.test_on_batch(*val_batch)  # compiles
    validating = _median(lambda: model.test_on_batch(*val_batch))
    return _Speed(reading / len(batches), val_reading, compiling, training, validating)


def combined(computing: float, reading: float, threads: int) -> float:
    """Return the seconds per batch if `threads` threads read the next batches while one is computed.

    Args:
        computing: seconds that the step takes alone.
        reading: seconds that one thread takes to read a batch.
    """
    slowest = reading / min(threads, cores())
    # A processor that computes, too, has less time to read.
    return max(computing, slowest) if is_accelerated() else max(computing + reading / cores(), slowest)


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that `call` takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _median(call: Callable[[], object]) -> float:
    """Return the median of the seconds that `call` takes, over at least one second."""
    times = [_timed(call)[0]]
    while sum(times) < 1:
        times.append(_timed(call)[0])
    return statistics.median(times)


def _describe_checkpoints(run: Run, model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]) -> str:
    size, count = run.checkpoints.size_of(model, run.progress[0]), _saves(callbacks, run)
    there = next(folder for folder in (run.folder, *run.folder.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return f"checkpoints: {count:,} of {_bytes(size)}, {_bytes(count * size)} in all; {_bytes(free)} free"


def _saves(callbacks: Sequence[keras.callbacks.Callback], run: Run) -> int:
    """Return the number of checkpoints that the rest of the run leaves, the trained model included."""
    every = min((callback.every for callback in callbacks if isinstance(callback, EpochCheckpoint)), default=run.last)
    saved = sum(epoch % every == 0 or epoch == run.last for epoch in range(run.progress[0] + 1, run.last + 1))
    keep = run.checkpoints.keep
    return (saved if keep is None else min(saved, keep + 1)) + (run.model_path is not None)


def _bytes(count: float) -> str:
    for unit, size in {"GB": 1e9, "MB": 1e6}.items():
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} KB"


def _rate(images: float) -> str:
    return f"{images:,.0f} images/s" if images >= 10 else f"{images:.2g} images/s"
