"""Measure saving and reading a checkpoint, and compare it with Keras' `model.save` on the same disk.

    python benchmarks/checkpoint.py [--dataset imagenet] [--folder DIR] [--repeats 9] [--minutes 5]

Prints median and spread of the seconds over the repeats, for ResNet-56 or ImageNet's ResNet-50, beside those of writing
and flushing as many bytes. Our file is digested, flushed to disk, read back and renamed, and its folder is flushed, all
in a thread; "ours" is the time that training waits, for a copy of the state. Keras truncates the old file and leaves
the new one in the page cache. Then trains ResNet-56 with a checkpoint every 60 seconds, and prints the fraction of the
time that it waited.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure  # makes the project importable

from pipeline.cli import arguments, command, console, flags
from pipeline.cli.datasets import config_of


def parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser(__doc__)
    parser.add(
        "dataset", None, None, "its network (default: cifar10)", choices=("cifar10", "imagenet"), default="cifar10"
    )
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
        from pipeline.checkpoints import read_checkpoint
        from pipeline.checkpoints.compiled import check_compiled
        from pipeline.checkpoints.folder import CheckpointFolder
        from pipeline.nn.conv import ResNet

    config = config_of(args.dataset)
    network = {**config.IMAGES, **config.NETWORK, "classes": config.CLASSES}
    model = ResNet.build(**network)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"), "categorical_crossentropy", metrics=["accuracy"])
    check_compiled(model)
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        checkpoints, file = CheckpointFolder(folder), folder / "epoch_0_batch_1.hdf5"
        mid_epoch = checkpoints.mid_epoch(model)
        checkpoints.save(model, 0, 1, mid_epoch)
        content = file.read_bytes()
        ways = {
            "write and flush": seconds_of(lambda: write_and_flush(folder / "plain", content)),
            "model.save, .keras": seconds_of(lambda: model.save(folder / "stock.keras")),
            "model.save, .h5": seconds_of(lambda: model.save(folder / "stock.h5")),
            "ours, until it is safe": seconds_of(lambda: checkpoints.save(model, 0, 1, mid_epoch)),
            "ours": seconds_of(lambda: checkpoints.start_save(model, 0, 1, mid_epoch), after=checkpoints.finish),
            "read_checkpoint": seconds_of(lambda: read_checkpoint(file)),
        }
        with console.quiet_start():  # Keras warns about every .h5 file
            results = measure.interleave(ways, args.repeats)
        measure.show(f"a checkpoint of {len(content):,} bytes", results, "s", digits=3, more_is_better=False)
        measured = {"dataset": args.dataset, "save": results, "bytes": len(content)}
        if args.dataset != "cifar10":
            measure.record("checkpoint", measured)
            return

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
    print(f"{steps} steps in {elapsed:.0f} s, a checkpoint every 60 s: {100 * spent / elapsed:.2f} % of the time")
    measure.record("checkpoint", measured | {"share of a training": spent / elapsed})


def write_and_flush(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def seconds_of(save: Callable[[], object], after: Callable[[], object] = lambda: None) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        save()
        seconds = time.perf_counter() - start
        after()
        return seconds

    return run


if __name__ == "__main__":
    command.run(main)
