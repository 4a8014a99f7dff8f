"""Measure saving a checkpoint of ResNet-56, and compare it with Keras' `model.save` on the same disk.

    python benchmarks/checkpoint.py [--folder DIR] [--repeats 9] [--minutes 5]

Prints median and spread of the seconds over the repeats. Our file is digested, flushed to disk, read back and renamed,
and its folder is flushed; Keras truncates the old file and leaves the new one in the page cache. Then trains with a
checkpoint every 60 seconds, and prints the fraction of the time that checkpoints took.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure  # makes the project importable

from config import cifar10_config as config
from pipeline.cli import arguments, command, console, flags


def parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "--folder", type=flags.path, metavar="DIR", help="output folder (default: the system's temporary folder)"
    )
    parser.add_argument("--repeats", type=flags.count, default=9, metavar="N", help="repeats (default: 9)")
    parser.add_argument(
        "--minutes", type=flags.positive, default=5, metavar="M", help="minutes of training (default: 5)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras
        import numpy as np

        from pipeline.callbacks import BatchCheckpoint
        from pipeline.callbacks.stopping import StopRequest
        from pipeline.checkpoints.folder import CheckpointFolder
        from pipeline.nn.conv import ResNet

    network = {**config.IMAGES, **config.NETWORK, "classes": config.CLASSES}
    model = ResNet.build(**network)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"), "categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        checkpoints = CheckpointFolder(folder)
        ways = {
            "model.save, .keras": lambda: model.save(folder / "stock.keras"),
            "model.save, .h5": lambda: model.save(folder / "stock.h5"),
            "ours": lambda: checkpoints.save(model, 0, 1),
        }
        with console.quiet_start():  # Keras warns about every .h5 file
            results = measure.interleave({way: seconds_of(save) for way, save in ways.items()}, args.repeats)
        size = (folder / "epoch_0_batch_1.hdf5").stat().st_size

        rng, batch = np.random.default_rng(0), config.DECAY["batch_size"]
        images = rng.normal(0, 60, (batch, *model.input_shape[1:])).astype(np.float32)
        labels = np.eye(config.CLASSES, dtype=np.float32)[rng.integers(0, config.CLASSES, batch)]
        model.train_on_batch(images, labels)
        checkpoints = CheckpointFolder(folder)
        callback = BatchCheckpoint(checkpoints, StopRequest(), 10**9, lambda *progress: "continue", 60.0)
        callback.set_model(model)
        callback.on_epoch_begin(0)
        steps, spent, start = 0, 0.0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < 60 * args.minutes:
            model.train_on_batch(images, labels)
            end = time.perf_counter()
            callback.on_train_batch_end(steps)
            spent += time.perf_counter() - end
            steps += 1
    measure.show("a save of ResNet-56", results, "s", digits=3, more_is_better=False)
    print(f"a checkpoint is {size:,} bytes")
    print(f"{steps} steps in {elapsed:.0f} s, a checkpoint every 60 s: {100 * spent / elapsed:.2f} % of the time")
    measure.record("checkpoint", {"save": results, "bytes": size, "share of a training": spent / elapsed})


def seconds_of(save: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        save()
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    command.run(main)
