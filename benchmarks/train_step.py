"""A training step of ResNet-56 beside the same network of stock Keras layers and in PyTorch, and its wait for data.

    python benchmarks/train_step.py [--batch_size 128] [--steps 3] [--repeats 7]

First the median seconds of a step, in one process, in turn, and the spread over the repeats. The Keras networks start
from the same weights and see the same batch, and their first losses are compared before anything is timed. PyTorch
runs eagerly, channels last; where it isn't installed, it is left out. Then, of both data sets' networks, `fit` over
augmented batches beside `fit` over one batch again and again: what it takes longer is what a step waits for data.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest import mock

import input_pipeline
import measure  # makes the project importable

from config import cifar10_config, tiny_imagenet_config
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
        import keras  # noqa: F401
    results = {f"a step of ResNet-56, batch {args.batch_size}": beside_peers(args)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (config, batches_of, batch_size) in {
            "CIFAR-10": (cifar10_config, in_memory, args.batch_size),
            "Tiny ImageNet": (tiny_imagenet_config, from_file, tiny_imagenet_config.DECAY["batch_size"]),
        }.items():
            batches = batches_of(Path(folder), batch_size, args.steps)
            results[f"{name}, fed"] = seconds = fed_and_repeated(compiled(config), batches, args.repeats)
            new, same = map(statistics.median, seconds.values())
            print(
                f"\n{name}, batch {batch_size}: {100 * share_of_waiting(seconds):.1f} % of a step is waiting for data"
            )
            print(f"  a step on augmented batches {new:.3f} s, on one and the same {same:.3f} s")
    measure.record("train_step", results)


def compiled(config: ModuleType, jit_compile: bool | str = "auto", **network: object):
    """The network of a data set, or a variant with other `network` arguments, from always the same weights."""
    import keras

    from pipeline.nn.conv import ResNet

    keras.utils.set_random_seed(0)
    model = ResNet.build(**config.IMAGES, **config.NETWORK | network, classes=config.CLASSES)
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    return model


def beside_peers(args) -> dict[str, list[float]]:
    """Seconds of a step on one batch, ours and the peers'."""
    import keras
    import numpy as np

    from pipeline.nn.conv import resnet

    config = cifar10_config
    with mock.patch.object(resnet, "BatchNormalization", keras.layers.BatchNormalization):
        stock = compiled(config)
    models = {"ours": compiled(config), "stock Keras layers": stock}
    if keras.backend.backend() == "tensorflow":
        models["ours through XLA"] = compiled(config, jit_compile=True)
    rng = np.random.default_rng(0)
    images = rng.normal(0, 60, (args.batch_size, *stock.input_shape[1:])).astype(np.float32)
    classes = rng.integers(0, config.CLASSES, args.batch_size)
    labels = np.eye(config.CLASSES, dtype=np.float32)[classes]
    losses = {name: float(model.train_on_batch(images, labels)[0]) for name, model in models.items()}
    print("loss of the first step: " + ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items()))

    steps = {name: lambda model=model: model.train_on_batch(images, labels) for name, model in models.items()}
    if measure.installed("torch"):
        import torch_resnet

        network = {name: config.NETWORK[name] for name in ("stages", "filters")}
        model = torch_resnet.build(config.IMAGES["depth"], config.CLASSES, **network)
        count = sum(weight.numel() for weight in model.parameters())
        trainable = sum(int(np.prod(weight.shape)) for weight in stock.trainable_weights)
        assert count == trainable, f"{count:,} weights in PyTorch, {trainable:,} in Keras"  # noqa: S101
        steps["PyTorch"] = torch_resnet.train_step(model, images, classes, config.PUBLISHED["reg"])
    ways = {name: seconds_of(step, args.steps) for name, step in steps.items()}
    results = measure.interleave(ways, args.repeats)
    measure.show(f"a step of ResNet-56, batch {args.batch_size}", results, "s", digits=3, more_is_better=False)
    return results


def in_memory(folder: Path, batch_size: int, steps: int, workers: int = 2):
    """As many augmented batches as `steps`, as the scripts for CIFAR-10 make them."""
    return input_pipeline.in_memory(batch_size * steps, batch_size, workers=workers)


def from_file(folder: Path, batch_size: int, steps: int, workers: int = 2):
    """As many augmented batches as `steps` out of a file in `folder`, as the scripts for Tiny ImageNet make them."""
    path = input_pipeline.write(folder / "images.hdf5", batch_size * steps)
    return input_pipeline.from_file(path, batch_size, workers=workers)


def fed_and_repeated(model, batches, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step of `fit` over `batches`, and over the first of them again and again."""
    from pipeline.callbacks import AsyncCallbackList
    from pipeline.io import Batches

    class Repeated(Batches):
        image_shape, batch = batches.image_shape, batches[0]

        def __getitem__(self, index):
            return self.batch

    repeated = Repeated(batches.labels, batches.classes, batches.batch_size, training=True)

    def fit_to(source) -> Callable[[], None]:
        def fit() -> None:
            with AsyncCallbackList(add_history=True, model=model, epochs=1, steps=len(source)) as callbacks:
                model.fit(source.for_keras(), shuffle=False, verbose=0, callbacks=callbacks)

        return fit

    ways = {"augmented": seconds_of(fit_to(batches), 1), "repeated": seconds_of(fit_to(repeated), 1)}
    seconds = measure.interleave(ways, repeats)
    return {name: [value / len(batches) for value in values] for name, values in seconds.items()}


def share_of_waiting(seconds: dict[str, list[float]]) -> float:
    """The share of a step that waits for data, of the medians that `fed_and_repeated` measured."""
    new, same = map(statistics.median, seconds.values())
    return 1.0 - same / new


def seconds_of(step: Callable[[], object], count: int) -> Callable[[], float]:
    """A way to measure the seconds of `step`, run `count` times after once unmeasured, in another's wake."""

    def measure_steps() -> float:
        step()
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count

    return measure_steps


if __name__ == "__main__":
    command.run(main)
