"""Saving a checkpoint of ResNet-56 beside Keras' own `model.save` on the same disk, in turn.

    python benchmarks/checkpoint.py [--folder DIR] [--repeats 9]

Prints the median seconds, the spread over the repeats, and the difference. Ours is digested, flushed to the disk, read
back, renamed, and its folder flushed; Keras' truncates the old file and leaves the new one to the system.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import cifar10_config as config
from pipeline import arguments, command, console


def parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser(__doc__)
    parser.add_argument("--folder", metavar="DIR", help="where to write (default: the system's temporary folder)")
    parser.add_argument("--repeats", type=arguments.count, default=9, metavar="N", help="repeats (default: 9)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras
        import numpy as np

        from pipeline.io.checkpointfolder import CheckpointFolder
        from pipeline.nn.conv import ResNet

    network = {**config.IMAGES, **config.NETWORK, "classes": config.CLASSES}
    model = ResNet.build(**network)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9, name="sgd"), "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    for variable in model.optimizer.variables[2:]:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        checkpoints = CheckpointFolder(folder, network)
        ways = {
            "model.save, .keras": lambda: model.save(folder / "stock.keras"),
            "model.save, .h5": lambda: model.save(folder / "stock.h5"),
            "ours": lambda: checkpoints.save(model, 0, 1),
        }
        seconds = {way: [] for way in ways}
        with console.quiet_start():  # Keras warns at each .h5 file
            for repeat in range(args.repeats + 1):
                for way, save in ways.items():
                    start = time.perf_counter()
                    save()
                    if repeat:  # the first one of each warms up
                        seconds[way].append(time.perf_counter() - start)
        size = (folder / "epoch_0_batch_1.hdf5").stat().st_size
    for way, values in seconds.items():
        print(f"{way:20} {statistics.median(values):6.3f} s ({min(values):.3f} to {max(values):.3f})")
    print(f"a checkpoint is {size:,} bytes")


if __name__ == "__main__":
    command.run(main)
