"""Measure images per second from a data file and from memory, and compare them with common alternatives.

    python benchmarks/input_pipeline.py [--repeats 5] [--seconds 2] [--growth]

The images are random: 64x64 in an HDF5 file like the build's, or 32x32 in memory. Peers augment the same images by the
same ranges: Keras' `ImageDataGenerator` over slices of the file through h5py (needs TensorFlow, which includes it),
Keras' preprocessing layers in `tf.data`, and albumentations. Peers that aren't installed are left out. --growth creates
a second file of 1,000,000 images (12.3 GB in the temporary folder), and compares rate and peak memory.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path

import measure  # makes the project importable

from config import cifar10_config, tiny_imagenet_config
from pipeline.cli import arguments, command, console, flags

BATCH_SIZE = 64
MEAN = {"R": 122.0, "G": 114.0, "B": 101.0}
CIFAR10_PUBLISHED, TINY_PUBLISHED = cifar10_config.PUBLISHED, tiny_imagenet_config.PUBLISHED
CIFAR10_MODERN, TINY_MODERN = cifar10_config.MODERN, tiny_imagenet_config.MODERN
PLAIN = {"schedule": "constant"}
# Each piece of a recipe that acts on batches, added to the modern recipe, and all together.
PIECES = {
    "modern": {},
    "modern, Cutout": {"cutout": 8},
    "modern, Mixup": {"mixup": 0.2},
    "modern, CutMix": {"cutmix": 1.0},
    "all, with label smoothing": {"cutout": 8, "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
}


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--repeats", type=flags.count, default=5, metavar="N", help="repeats (default: 5)")
    parser.add_argument(
        "--seconds", type=flags.positive, default=2, metavar="S", help="seconds per measurement (default: 2)"
    )
    parser.add_argument("--images", type=flags.count, default=10_000, metavar="N", help="images (default: 10000)")
    parser.add_argument("--growth", action="store_true", help="compare with a file of 1,000,000 images (12.3 GB)")
    parser.add_argument(
        "--peak_of", type=flags.file_path, metavar="FILE", help="print rate and peak memory for FILE, and exit"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.peak_of:
        rate = measure.rate(from_file(args.peak_of, recipe=PLAIN).generator(), args.seconds)
        rate()
        print(rate(), measure.peak_memory())
        return
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "images.hdf5", args.images)
        results = {}

        def compare(title: str, sources: dict[str, Iterator]) -> None:
            ways = {name: measure.rate(batches, args.seconds) for name, batches in sources.items()}
            results[title] = measure.interleave(ways, args.repeats)
            measure.show(title, results[title], "images/s", more_is_better=True)

        peers = {"ImageDataGenerator": image_data_generator, "Keras layers in tf.data": keras_layers}
        if measure.installed("albumentations"):
            peers["albumentations, one thread"] = albumentations
        with console.quiet_start():
            running = {name: make(path) for name, make in peers.items()}
            for batches in running.values():
                next(batches)
        compare(
            "64x64 from a file: rotation, zoom, shift, shear, flip",
            {"ours": from_file(path).generator(), "ours, two workers": from_file(path, workers=2).generator()}
            | running,
        )
        compare(
            "64x64 from a file: shuffled, minus the mean",
            {"ours": from_file(path, recipe=PLAIN).generator(), "memory map": memory_map(path)},
        )
        small = in_memory(50_000, 128)
        flow = image_data_generator_in_memory(small.images.images, small.labels)
        compare("32x32 from memory: shift and flip", {"ours": small.generator(), "ImageDataGenerator": flow})
        for title, make, recipe in (
            ("64x64 from a file: ours with the published recipe, and others", partial(from_file, path), TINY_MODERN),
            (
                "32x32 from memory: ours with the published recipe, and others",
                partial(in_memory, 50_000, 128),
                CIFAR10_MODERN,
            ),
        ):
            pieces = {name: make(recipe=recipe | changes).generator() for name, changes in PIECES.items()}
            compare(title, {"ours": make().generator()} | pieces)
        if args.growth:
            results["growth"] = growth(Path(folder), args)
    measure.record("input_pipeline", results)


def write(path: Path, count: int) -> Path:
    """Write a data file of `count` random images, and a mean beside it."""
    import numpy as np

    from pipeline.data.textfiles import write_mean
    from pipeline.io import HDF5DatasetWriter

    write_mean(path.with_name("mean.json"), MEAN)

    rng = np.random.default_rng(0)
    block = rng.integers(0, 256, (10_000, 64, 64, 3), np.uint8)
    with HDF5DatasetWriter((count, 64, 64, 3), path) as writer:
        writer.store_class_labels([f"class {number}" for number in range(200)])
        for start in range(0, count, len(block)):
            rows = block[: count - start]
            writer.add(rows, rng.integers(0, 200, len(rows)))
    return path


def from_file(path: Path, batch_size: int = BATCH_SIZE, recipe: dict = TINY_PUBLISHED, *, workers: int = 1):
    """Return batches from a data file, as the scripts for Tiny ImageNet make them with `recipe`."""
    from pipeline.cli.recipe import Recipe
    from pipeline.data import TinyImageNet

    source, made = TinyImageNet({"train": path, "val": path, "mean": path.with_name("mean.json")}), Recipe.of(recipe)
    return source.train_batches(batch_size, made.augmentation, made.mixing, workers=workers)


def in_memory(count: int, batch_size: int, recipe: dict = CIFAR10_PUBLISHED, *, workers: int = 1):
    """Return batches from memory, as the scripts for CIFAR-10 make them with `recipe`."""
    import numpy as np

    from pipeline.cli.recipe import Recipe
    from pipeline.data import CIFAR10
    from pipeline.io import ArrayImages

    class Random(CIFAR10):
        def load(self, split):
            return ArrayImages(
                np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8),
                np.arange(count) % cifar10_config.CLASSES,
                [str(number) for number in range(cifar10_config.CLASSES)],
            )

    made = Recipe.of(recipe)
    return Random().train_batches(batch_size, made.augmentation, made.mixing, workers=workers)


def slices(path: Path) -> Iterator:
    """Yield slices of the file in order, minus the mean, in float32: the common way to read."""
    import h5py
    import numpy as np

    bgr = np.array([MEAN["B"], MEAN["G"], MEAN["R"]], np.float32)
    with h5py.File(path) as file:
        images, labels = file["images"], file["labels"]
        while True:
            for start in range(0, len(images) - BATCH_SIZE + 1, BATCH_SIZE):
                stop = start + BATCH_SIZE
                yield images[start:stop].astype(np.float32) - bgr, labels[start:stop]


def memory_map(path: Path) -> Iterator:
    """Yield shuffled rows of the memory-mapped file, minus the mean, in float32."""
    import h5py
    import numpy as np

    bgr = np.array([MEAN["B"], MEAN["G"], MEAN["R"]], np.float32)
    with h5py.File(path) as file:
        labels = file["labels"][()]
        shape, place = file["images"].shape, file["images"].id.get_offset()
    images, rng = np.memmap(path, np.uint8, "r", place, shape), np.random.default_rng(0)
    while True:
        for rows in rng.permutation(len(images))[: len(images) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE):
            yield images[rows].astype(np.float32) - bgr, labels[rows]


def ranges(recipe: dict) -> dict:
    """Return the augmentation of `recipe` as arguments of `ImageDataGenerator`."""
    names = ("rotation_range", "zoom_range", "width_shift_range", "height_shift_range", "shear_range")
    return {name: recipe.get(name, 0.0) for name in names} | {"horizontal_flip": recipe["flip"] != "none"}


def image_data_generator_in_memory(images, labels) -> Iterator:
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    aug = ImageDataGenerator(**ranges(CIFAR10_PUBLISHED), fill_mode="nearest", featurewise_center=True)
    aug.fit(images[:1000])
    return aug.flow(images, labels, batch_size=128)


def image_data_generator(path: Path) -> Iterator:
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    aug = ImageDataGenerator(**ranges(TINY_PUBLISHED), fill_mode="nearest")
    for images, labels in slices(path):
        yield next(aug.flow(images, labels, batch_size=BATCH_SIZE))


def keras_layers(path: Path) -> Iterator:
    """Augment with one layer each for rotation, zoom, shift and flip, on all cores."""
    import keras
    import tensorflow as tf

    recipe = TINY_PUBLISHED
    layers = [
        keras.layers.RandomRotation(recipe["rotation_range"] / 360, fill_mode="nearest"),
        keras.layers.RandomZoom(recipe["zoom_range"], recipe["zoom_range"], fill_mode="nearest"),
        keras.layers.RandomTranslation(recipe["height_shift_range"], recipe["width_shift_range"], fill_mode="nearest"),
        keras.layers.RandomFlip("horizontal"),
    ]

    def vary(images, labels):
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    like = (tf.TensorSpec((None, 64, 64, 3)), tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(partial(slices, path), output_signature=like)
    return dataset.map(vary, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2).as_numpy_iterator()


def albumentations(path: Path) -> Iterator:
    import albumentations as library
    import cv2
    import h5py
    import numpy as np

    recipe = TINY_PUBLISHED
    zoom, shift = recipe["zoom_range"], recipe["width_shift_range"]
    vary = library.Compose(
        [
            library.Affine(
                scale=(1 - zoom, 1 + zoom),
                translate_percent=(-shift, shift),
                rotate=(-recipe["rotation_range"], recipe["rotation_range"]),
                shear=(-recipe["shear_range"], recipe["shear_range"]),
                border_mode=cv2.BORDER_REPLICATE,
                p=1.0,
            ),
            library.HorizontalFlip(p=0.5),
        ]
    )
    bgr = np.array([MEAN["B"], MEAN["G"], MEAN["R"]], np.float32)
    with h5py.File(path) as file:
        while True:
            for start in range(0, len(file["images"]) - BATCH_SIZE + 1, BATCH_SIZE):
                images = file["images"][start : start + BATCH_SIZE]
                yield np.stack([vary(image=image)["image"] for image in images]).astype(np.float32) - bgr, None


def growth(folder: Path, args) -> dict:
    """Compare rate and peak memory for files of 10,000 and 1,000,000 images, each in a process of its own."""
    files = {f"{count:,} images": write(folder / f"{count}.hdf5", count) for count in (10_000, 1_000_000)}
    rates, peaks = {name: [] for name in files}, {name: [] for name in files}
    for path in files.values():  # fill the page cache
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass
    for name, path in chain.from_iterable(repeat(list(files.items()), args.repeats)):
        words = [sys.executable, __file__, "--peak_of", path, "--seconds", str(args.seconds)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
        rate, peak = map(float, done.stdout.split())
        rates[name].append(rate)
        peaks[name].append(peak / 1e6)
    for title, values, unit in (("rate", rates, "images/s"), ("peak memory", peaks, "MB")):
        print(f"\ngrowth, {title}")
        for name, numbers in values.items():
            print(f"  {name:16}  {sorted(numbers)[len(numbers) // 2]:12,.0f} {unit}")
    return {"rate": rates, "peak": peaks}


if __name__ == "__main__":
    command.run(main)
