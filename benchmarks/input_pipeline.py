"""Augmented batches of Tiny ImageNet's images a second, beside Keras' `ImageDataGenerator` over the same file, in turn.

    python benchmarks/input_pipeline.py --data datasets/tiny-imagenet-200 [--workers 2] [--repeats 7]

Prints the median images a second, the spread over the repeats, and the ratio. The peer is the usual path: a slice of
the HDF5 file through h5py, the mean subtracted, and `ImageDataGenerator.flow` with the published ranges. Needs
TensorFlow, which ships `ImageDataGenerator`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import tiny_imagenet_config as config
from pipeline import arguments, command, console


def parse_arguments() -> argparse.Namespace:
    parser = arguments.Parser(__doc__)
    arguments.add_tiny_imagenet(parser, config.DATA, config.DATA_VARIABLE)
    parser.add_argument("--workers", type=arguments.count, default=2, metavar="N", help="our threads (default: 2)")
    parser.add_argument("--batch_size", type=arguments.count, default=64, metavar="N", help="images (default: 64)")
    parser.add_argument("--repeats", type=arguments.count, default=7, metavar="N", help="repeats (default: 7)")
    parser.add_argument("--seconds", type=arguments.positive, default=3, metavar="S", help="of each (default: 3)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    places = config.places(args.data)
    with console.quiet_start():
        from pipeline.io.tinyimagenet import mean_batches
        from pipeline.preprocessing import AffineAugmentation

    ours = mean_batches(
        places.train_hdf5,
        places.mean,
        batch_size=args.batch_size,
        aug=AffineAugmentation(**config.AUGMENTATION),
        training=True,
        workers=args.workers,
    )
    sources = {"ImageDataGenerator": peer(places, args.batch_size), "ours": ours.generator()}
    rates = {name: [] for name in sources}
    for batches in sources.values():
        next(batches)
    for _ in range(args.repeats):
        for name, batches in sources.items():
            rates[name].append(images_a_second(batches, args.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:20} {medians[name]:8,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})")
    print(f"ratio: {medians['ours'] / medians['ImageDataGenerator']:.1f}")


def peer(places, batch_size: int) -> Iterator:
    """The usual path: batches of a shuffled file in order, each image less the mean, then varied one by one."""
    import h5py
    import numpy as np

    with console.quiet_start():
        import tensorflow as tf

    from pipeline.io.tinyimagenet import read_mean

    mean = read_mean(places.mean)
    bgr = np.array([mean[channel] for channel in "BGR"], np.float32)
    aug = tf.keras.preprocessing.image.ImageDataGenerator(**config.AUGMENTATION, fill_mode="nearest")
    with h5py.File(places.train_hdf5) as file:
        images, labels = file["images"], file["labels"]
        while True:
            for start in range(0, len(images) - batch_size + 1, batch_size):
                batch = images[start : start + batch_size].astype(np.float32) - bgr
                yield next(aug.flow(batch, labels[start : start + batch_size], batch_size=batch_size))


def images_a_second(batches: Iterator, seconds: float) -> float:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[0])
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    command.run(main)
