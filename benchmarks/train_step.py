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
        for name, source in {"CIFAR-10": cifar10, "Tiny ImageNet": tiny_imagenet}.items():
            results[f"{name}, waiting for data"] = fed_and_repeated(name, *source(Path(folder), args), args)
    measure.record("train_step", results)


def compiled(config: ModuleType, jit_compile: bool | str = "auto"):
    """The network of a data set, from always the same weights."""
    import keras

    from pipeline.nn.conv import ResNet

    keras.utils.set_random_seed(0)
    model = ResNet.build(**config.IMAGES, **config.NETWORK, classes=config.CLASSES)
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
        steps["PyTorch"] = torch_resnet.train_step(model, images, classes, config.NETWORK["reg"])
    ways = {name: seconds_of(step, args.steps) for name, step in steps.items()}
    results = measure.interleave(ways, args.repeats)
    measure.show(f"a step of ResNet-56, batch {args.batch_size}", results, "s", digits=3, more_is_better=False)
    return results


def cifar10(folder: Path, args) -> tuple:
    """The network, and augmented batches out of memory."""
    return compiled(cifar10_config), input_pipeline.in_memory(args.batch_size * args.steps, args.batch_size, workers=2)


def tiny_imagenet(folder: Path, args) -> tuple:
    """The network, and augmented batches out of a file."""
    batch_size = tiny_imagenet_config.SGD["batch_size"]
    path = input_pipeline.write(folder / "images.hdf5", batch_size * args.steps)
    return compiled(tiny_imagenet_config), input_pipeline.from_file(path, batch_size, workers=2)


def fed_and_repeated(name: str, model, batches, args) -> dict[str, list[float]]:
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

    ways = {source: seconds_of(fit_to(source), 1) for source in (batches, repeated)}
    seconds = measure.interleave(dict(zip(("augmented", "repeated"), ways.values(), strict=True)), args.repeats)
    results = {name: [value / len(batches) for value in values] for name, values in seconds.items()}
    new, same = (statistics.median(values) for values in results.values())
    print(f"\n{name}, batch {batches.batch_size}: {100 * (new - same) / new:.1f} % of a step is waiting for data")
    print(f"  a step on augmented batches {new:.3f} s, on one and the same {same:.3f} s")
    return results


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
