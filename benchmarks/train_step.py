"""One training step of ResNet-56 beside the same network of stock Keras layers and in PyTorch, in one process, in turn.

    python benchmarks/train_step.py [--batch_size 128] [--steps 3] [--repeats 7]

Prints the median seconds of a step and the spread over the repeats. The Keras networks start from the same weights and
see the same batch, and their first losses are compared before anything is timed. PyTorch runs eagerly, channels last;
where it isn't installed, it is left out. Then a step fed with augmented batches is timed beside one fed with the same
batch again: what it takes longer is what it waits for data.
"""

import statistics
import time
from collections.abc import Callable
from unittest import mock

import measure  # makes the project importable

from config import cifar10_config as config
from pipeline import arguments, command, console


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--batch_size", type=arguments.count, default=128, metavar="N", help="images (default: 128)")
    parser.add_argument("--steps", type=arguments.count, default=3, metavar="N", help="steps a repeat (default: 3)")
    parser.add_argument("--repeats", type=arguments.count, default=7, metavar="N", help="repeats (default: 7)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras
        import numpy as np

        from pipeline.io import ArrayBatches
        from pipeline.nn.conv import ResNet, resnet
        from pipeline.preprocessing import AffineAugmentation, MeanImagePreprocessor

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = ResNet.build(**config.IMAGES, **config.NETWORK, classes=config.CLASSES)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
        return model

    with mock.patch.object(resnet, "BatchNormalization", keras.layers.BatchNormalization):
        stock = build()
    ours = build()

    rng = np.random.default_rng(0)
    images = rng.normal(0, 60, (args.batch_size, *ours.input_shape[1:])).astype(np.float32)
    classes = rng.integers(0, config.CLASSES, args.batch_size)
    labels = np.eye(config.CLASSES, dtype=np.float32)[classes]
    losses = {
        name: float(model.train_on_batch(images, labels)[0]) for name, model in (("stock", stock), ("ours", ours))
    }
    print(f"loss of the first step: stock layers {losses['stock']:.6f}, ours {losses['ours']:.6f}")

    steps = {
        "ours": lambda: ours.train_on_batch(images, labels),
        "stock Keras layers": lambda: stock.train_on_batch(images, labels),
    }
    if measure.installed("torch"):
        import torch_resnet

        depth = config.IMAGES["depth"]
        network = {name: config.NETWORK[name] for name in ("stages", "filters")}
        model = torch_resnet.build(depth, config.CLASSES, **network)
        count = sum(weight.numel() for weight in model.parameters())
        trainable = sum(int(np.prod(weight.shape)) for weight in ours.trainable_weights)
        assert count == trainable, f"{count:,} weights in PyTorch, {trainable:,} in Keras"  # noqa: S101
        steps["PyTorch"] = torch_resnet.train_step(model, images, classes, config.NETWORK["reg"])
    ways = {name: seconds_of(step, args.steps) for name, step in steps.items()}
    results = {f"a step at batch {args.batch_size}": measure.interleave(ways, args.repeats)}
    for title, seconds in results.items():
        measure.show(title, seconds, "s", digits=3, more_is_better=False)

    pixels = rng.integers(0, 256, (50 * args.batch_size, *ours.input_shape[1:]), np.uint8)
    batches = ArrayBatches(
        pixels,
        np.arange(len(pixels)) % config.CLASSES,
        [str(number) for number in range(config.CLASSES)],
        args.batch_size,
        preprocessors=[MeanImagePreprocessor(pixels.mean(axis=0))],
        aug=AffineAugmentation(**config.AUGMENTATION),
        training=True,
        workers=2,
    ).generator()
    fed = {
        "ours": lambda: ours.train_on_batch(images, labels),
        "ours, fed": lambda: ours.train_on_batch(*next(batches)),
    }
    ways = {name: seconds_of(step, args.steps) for name, step in fed.items()}
    results["fed"] = measure.interleave(ways, args.repeats)
    same, new = (statistics.median(results["fed"][name]) for name in fed)
    print(
        f"\nfed with new batches a step takes {new:.3f} s, with one {same:.3f} s: {100 * (new / same - 1):.1f} % more"
    )
    measure.record("train_step", results)


def seconds_of(step: Callable[[], object], count: int) -> Callable[[], float]:
    """A way to measure the seconds of `step`, run `count` times."""

    def measure_steps() -> float:
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count

    return measure_steps


if __name__ == "__main__":
    command.run(main)
