"""Measure how many images of ImageNet a core prepares per second, and compare with common alternatives.

    python benchmarks/imagenet_input.py --data DIR [--smaller DIR] [--repeats 5] [--seconds 3]

--data names the shards of build_imagenet.py with the images as they are, --smaller those of the same images built with
--shorter_side 256. All alternatives cut the same random crops, resize them to 224x224 pixels and mirror half of them.
The peers get the files in memory; ours are read from the shards and checked. Rates are per second of processor time, so
that several threads don't count as a faster core. Peers that aren't installed are left out.

Then measures whole batches for training, as the published recipe makes them, with one and with two workers; and trains
ResNet-50 for --steps steps, to see what fraction of the time they wait for their batches.
"""

import io
import time
from collections.abc import Callable, Iterator

import measure  # makes the project importable

from pipeline.cli import arguments, command, console, flags

BATCH_SIZE = 50
STEP_SIZE = 32
SIZE = 224


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--data", type=flags.file_path, required=True, metavar="DIR", help="shards, as they are")
    parser.add_argument("--smaller", type=flags.file_path, metavar="DIR", help="shards with --shorter_side 256")
    parser.add_argument("--repeats", type=flags.count, default=5, metavar="N", help="repeats (default: 5)")
    parser.add_argument("--seconds", type=flags.positive, default=3, metavar="S", help="per measurement (default: 3)")
    parser.add_argument("--steps", type=flags.whole, default=8, metavar="N", help="steps of ResNet-50 (default: 8)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        from pipeline.io.shards import EncodedImages, Shards
        from pipeline.preprocessing import RandomCrop

        shards = Shards(args.data, "train")
        files = [shards.encoded(index) for index in range(min(len(shards), 1000))]
        crop = RandomCrop(crop_area=0.08, crop_ratio=4 / 3, flip="random")
        jitter = RandomCrop(crop_area=0.08, crop_ratio=4 / 3, flip="random", color_jitter=0.4)
        originals = EncodedImages(shards, SIZE)
        # Before TensorFlow is loaded, whose threads would disturb them.
        workers = {"one worker": 1, "ours": 2}
        ways = {name: whole_batches(originals, jitter, count, args.seconds) for name, count in workers.items()}
        batches = measure.interleave(ways, args.repeats)
        sources = {
            "ours": ours(originals, crop),
            "ours, colours changed": ours(originals, jitter),
            "ours, for evaluation": ours(originals, None),
            "Pillow, averaged by area": pillow(files, crop),
        }
        if measure.installed("tensorflow"):
            sources["tf.data, decode_and_crop_jpeg, by area"] = tf_data(files, crop, "area")
            sources["tf.data, decode_and_crop_jpeg, bilinear"] = tf_data(files, crop, "bilinear")
        if measure.installed("torchvision"):
            sources["torchvision, antialiased"] = torchvision(files, crop)
        if args.smaller:
            smaller = EncodedImages(Shards(args.smaller, "train"), SIZE)
            sources |= {"ours, smaller copies": ours(smaller, crop)}
            sources |= {"ours, smaller copies, colours changed": ours(smaller, jitter)}
        for source in sources.values():
            next(source)
    ways = {name: rate(source, args.seconds) for name, source in sources.items()}
    results = measure.interleave(ways, args.repeats)
    measure.show("random crops at 224x224, one core", results, "images/s", more_is_better=True)

    title = "whole batches of the published recipe, ours with two workers"
    measure.show(title, batches, "images/s", more_is_better=True)
    share, seconds = waiting(originals, jitter, args.steps) if args.steps else (None, None)
    if args.steps:
        print(f"a step of ResNet-50 with {STEP_SIZE} images takes {seconds:.2f} s and waits {100 * share:.2f} % of it")
    measure.record("imagenet_input", {"crops": results, "batches": batches, "waiting": share, "step": seconds})


def training_batches(images, aug, batch_size: int, workers: int):
    """Make batches for training, with a mean and a deviation like ImageNet's."""
    from pipeline.io import Batches
    from pipeline.preprocessing import StandardPreprocessor

    normalization = StandardPreprocessor([104, 117, 124], [57, 57, 58])
    options = {"aug": aug, "training": True, "workers": workers}
    return Batches(images, batch_size, preprocessors=[normalization], **options)


def whole_batches(images, aug, workers: int, seconds: float) -> Callable[[], float]:
    """Return a function that measures the images per second of time with `workers` threads."""
    batches = training_batches(images, aug, BATCH_SIZE, workers)
    stream = batches.generator()

    def run() -> float:
        for _ in range(2 * workers + 1):  # those made ahead
            next(stream)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            count += len(next(stream)[0])
        return count / (time.perf_counter() - start)

    return run


def waiting(images, aug, steps: int) -> tuple[float, float]:
    """Train ResNet-50; return the fraction of time spent waiting for batches, and the median seconds of a step."""
    import statistics

    import keras

    from config import imagenet_config as config
    from pipeline.nn.conv import ResNet

    model = ResNet.build(**config.IMAGES, **config.NETWORK, classes=len(images.class_names))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
    stream = training_batches(images, aug, STEP_SIZE, workers=2).generator()
    model.train_on_batch(*next(stream))  # compiles
    waited, trained = 0.0, []
    for _ in range(steps):
        start = time.perf_counter()
        batch = next(stream)
        ready = time.perf_counter()
        model.train_on_batch(*batch)
        waited += ready - start
        trained.append(time.perf_counter() - ready)
    return waited / (waited + sum(trained)), statistics.median(trained)


def rate(batches: Iterator, seconds: float) -> Callable[[], float]:
    """Return a function that measures the images per second of processor time."""

    def run() -> float:
        count, start, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < seconds:
            count += len(next(batches))
        return count / (time.process_time() - used)

    return run


def batches_of(count: int, crop) -> Iterator[tuple]:
    """Yield indices of a batch, and their draws, epoch by epoch."""
    from itertools import count as numbers

    from pipeline.utils.randomness import permutation

    for epoch in numbers():
        order = permutation(0, epoch, count)
        for start in range(0, count - BATCH_SIZE + 1, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            yield rows, None if crop is None else crop.draws(0, epoch, rows)


def ours(images, crop) -> Iterator:
    for rows, draws in batches_of(len(images), crop):
        yield images.read(rows, crop, draws)


def pillow(files: list[bytes], crop) -> Iterator:
    import numpy as np
    from PIL import Image

    for rows, draws in batches_of(len(files), crop):
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
        for position, (row, numbers) in enumerate(zip(rows, draws, strict=True)):
            image = Image.open(io.BytesIO(files[row])).convert("RGB")
            top, left, height, width = crop.box(image.height, image.width, numbers)
            box = (left, top, left + width, top + height)
            resized = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX, box=box))
            batch[position] = resized[:, ::-1] if numbers[0] < 0.5 else resized
        yield batch


def tf_data(files: list[bytes], crop, method: str) -> Iterator:
    import tensorflow as tf

    shapes = [tf.io.extract_jpeg_shape(file).numpy()[:2] if file.startswith(b"\xff\xd8") else None for file in files]

    def samples() -> Iterator[tuple]:
        for rows, draws in batches_of(len(files), crop):
            for row, numbers in zip(rows, draws, strict=True):
                if shapes[row] is not None:
                    yield files[row], crop.box(*map(int, shapes[row]), numbers), bool(numbers[0] < 0.5)

    def prepare(file, box, mirror):
        image = tf.io.decode_and_crop_jpeg(file, box, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE), method=method)
        return tf.cond(mirror, lambda: tf.image.flip_left_right(image), lambda: image)

    signature = (tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32), tf.TensorSpec((), tf.bool))
    dataset = tf.data.Dataset.from_generator(samples, output_signature=signature)
    dataset = dataset.map(prepare, num_parallel_calls=1).batch(BATCH_SIZE).prefetch(1)
    options = tf.data.Options()
    options.autotune.enabled = False
    yield from dataset.with_options(options).as_numpy_iterator()


def torchvision(files: list[bytes], crop) -> Iterator:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(1)
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    for rows, draws in batches_of(len(files), crop):
        batch = []
        for row, numbers in zip(rows, draws, strict=True):
            image = decode_jpeg(tensors[row], mode=ImageReadMode.RGB)
            box = crop.box(*image.shape[1:], numbers)
            image = functional.resized_crop(image, *box, size=[SIZE, SIZE], antialias=True)
            batch.append(functional.horizontal_flip(image) if numbers[0] < 0.5 else image)
        yield torch.stack(batch)


if __name__ == "__main__":
    command.run(main)
