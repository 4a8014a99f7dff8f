"""One training step of ResNet-56 beside the same network of stock Keras layers, in one process, in turn.

    python benchmarks/train_step.py [--batch_size 128] [--steps 5] [--repeats 7]

Prints the median seconds of a step, the spread over the repeats, and the ratio. Both networks start from the same
weights and see the same batch, and their first losses are compared before anything is timed.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import cifar10_config as config
from pipeline import command, console


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=128, help="images a step (default: 128)")
    parser.add_argument("--steps", type=int, default=5, help="steps a repeat (default: 5)")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats (default: 7)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras
        import numpy as np

        from pipeline.nn.conv import ResNet, resnet

    def build() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = ResNet.build(**config.IMAGES, **config.NETWORK, classes=10)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "categorical_crossentropy", metrics=["accuracy"])
        return model

    with mock.patch.object(resnet, "BatchNormalization", keras.layers.BatchNormalization):
        models = {"stock": build()}
    models["ours"] = build()

    rng = np.random.default_rng(0)
    images = rng.normal(0, 60, (args.batch_size, *models["ours"].input_shape[1:])).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, args.batch_size)]
    losses = {name: float(model.train_on_batch(images, labels)[0]) for name, model in models.items()}
    print(f"loss of the first step: stock {losses['stock']:.6f}, ours {losses['ours']:.6f}")

    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.repeats):
        for name, model in models.items():
            start = time.perf_counter()
            for _ in range(args.steps):
                model.train_on_batch(images, labels)
            seconds[name].append((time.perf_counter() - start) / args.steps)

    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:>5}: {median:.3f} s a step ({min(values):.3f} to {max(values):.3f}), "
            f"{args.batch_size / median:.0f} images/s"
        )
    print(f"ratio: {statistics.median(seconds['stock']) / statistics.median(seconds['ours']):.2f}")


if __name__ == "__main__":
    command.run(main)
