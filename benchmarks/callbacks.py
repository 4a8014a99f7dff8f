"""Measure what a training step costs more while the run can be steered, and is shown in the browser and logged.

    python benchmarks/callbacks.py

Trains a small network, whose steps are short, on random images: epochs with the run's own callbacks, and epochs that
also look for requests of `pipeline.steer`, write the page for the browser, --csv and --tensorboard. Needs
requirements-tensorboard.txt.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure

from pipeline.cli import console, flags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=flags.count, default=390, metavar="N", help="steps per epoch (default: 390)")
    parser.add_argument("--repeats", type=flags.count, default=25, metavar="N", help="repeats (default: 25)")
    args = parser.parse_args()
    with console.quiet_start():
        import keras
        import numpy as np

        from pipeline.callbacks import AsyncCallbackList, BatchCheckpoint, CSVLog, LearningRate, RunPage, TensorBoardLog
        from pipeline.callbacks.steering import Requests, Steering
        from pipeline.callbacks.stopping import StopMenu, StopRequest
        from pipeline.checkpoints.folder import CheckpointFolder
        from pipeline.data import ArraySource
        from pipeline.files.requests import Inbox
        from pipeline.nn.conv import ResNet
        from pipeline.utils.identity import new_identity

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (32 * args.steps, 32, 32, 3), np.uint8), np.arange(32 * args.steps) % 10
    batches = ArraySource((images, labels), (images[:32], labels[:32])).train_batches(32, seed=1, workers=2)
    model = ResNet.build(32, 32, 3, classes=10, stages=(1, 1), filters=(16, 16, 32))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])

    class Callbacks(AsyncCallbackList):
        """Begin once, as the callbacks of a run do, however often `fit` is called."""

        def on_train_begin(self, logs: dict | None = None) -> None:
            if not hasattr(self, "has_begun"):
                self.has_begun = super().on_train_begin(logs)

        def on_train_end(self, logs: dict | None = None) -> None:
            pass

    def milliseconds_per_step(callbacks: list) -> Callable[[], float]:
        every = Callbacks(callbacks, model=model, add_history=True)

        def run() -> float:
            batches.set_epoch(0)
            start = time.perf_counter()
            with every:
                model.fit(batches.for_keras(), epochs=1, shuffle=False, verbose=0, callbacks=every)
            return 1e3 * (time.perf_counter() - start) / args.steps

        return run

    with tempfile.TemporaryDirectory() as name:
        folder, identity, stop = Path(name), new_identity(), StopRequest()
        checkpoints = CheckpointFolder(folder, {"loss": [], "run": {"sittings": [{"id": identity}]}})
        menu = StopMenu(stop, None, LearningRate(), args.steps, 2)
        steering = Steering(Requests(stop, [Inbox(folder, "train", identity)]), checkpoints, menu)
        without = BatchCheckpoint(checkpoints, stop, args.steps + 1, menu)
        with_steering = BatchCheckpoint(checkpoints, stop, args.steps + 1, menu, steering=steering)
        for callback in (without, with_steering):
            callback.on_epoch_end = lambda epoch, logs=None: None  # it would fill the history
        board = TensorBoardLog(folder / "board")
        board.bind("train", identity, 1)
        page = RunPage(folder / "page.html")
        ways = {
            measure.OURS: milliseconds_per_step([CSVLog(folder / "log.csv"), board, page, with_steering]),
            "page alone": milliseconds_per_step([page, without]),
            "steering alone": milliseconds_per_step([with_steering]),
            "without": milliseconds_per_step([without]),
        }
        results = measure.interleave(ways, args.repeats)
    measure.show("milliseconds per training step", results, "ms", digits=3, more_is_better=False)
    measure.record("callbacks", results)


if __name__ == "__main__":
    main()
