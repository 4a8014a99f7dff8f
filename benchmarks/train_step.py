"""Compare a training step of ResNet-56 with stock Keras layers and PyTorch, and measure its wait for data.

    python benchmarks/train_step.py [--batch_size 128] [--steps 3] [--repeats 7]

First, median and spread of the seconds per step. The Keras networks start from the same weights and see the same batch;
their first losses are compared before measuring. PyTorch runs eagerly, channels last, if it is installed. Then, for
the networks of both data sets, `fit` over augmented batches beside `fit` over one repeated batch: the difference is the
wait for data. Finally, the cost of warm-up, Nesterov momentum and averaged weights in a step of `fit`.
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
from pipeline.cli import arguments, command, console, flags


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--batch_size", type=flags.count, default=128, metavar="N", help="images (default: 128)")
    parser.add_argument("--steps", type=flags.count, default=3, metavar="N", help="steps per repeat (default: 3)")
    parser.add_argument("--repeats", type=flags.count, default=7, metavar="N", help="repeats (default: 7)")
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
            print(f"\n{name}, batch {batch_size}: {100 * share_of_waiting(seconds):.1f} % of a step waits for data")
            print(f"  step on augmented batches {new:.3f} s, on a repeated batch {same:.3f} s")
    results["recipe"] = with_recipe(args)
    measure.record("train_step", results)


def compiled(config: ModuleType, jit_compile: bool | str = "auto", optimizer=None, **network: object):
    """Build and compile a data set's network, or a variant with other `network` arguments, with fixed weights."""
    import keras

    from pipeline.nn.conv import ResNet

    keras.utils.set_random_seed(0)
    model = ResNet.build(**config.IMAGES, **config.NETWORK | network, classes=config.CLASSES)
    optimizer = optimizer or keras.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    return model


def beside_peers(args) -> dict[str, list[float]]:
    """Measure the seconds per step on one batch, ours and the peers'."""
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
    """Return `steps` augmented batches, as the scripts for CIFAR-10 make them."""
    return input_pipeline.in_memory(batch_size * steps, batch_size, workers=workers)


def from_file(folder: Path, batch_size: int, steps: int, workers: int = 2):
    """Return `steps` augmented batches from a file in `folder`, as the scripts for Tiny ImageNet make them."""
    path = input_pipeline.write(folder / "images.hdf5", batch_size * steps)
    return input_pipeline.from_file(path, batch_size, workers=workers)


def fed_and_repeated(model, batches, repeats: int) -> dict[str, list[float]]:
    """Measure the seconds per step of `fit` over `batches`, and over the first of them repeated."""
    ways = {"augmented": fit_to(model, batches), "repeated": fit_to(model, repeated(batches))}
    return seconds_of_fits(ways, len(batches), repeats)


def with_recipe(args) -> dict[str, list[float]]:
    """Measure the seconds per step of `fit` on one batch, plain and with each recipe piece that is part of a step."""
    from pipeline.callbacks import WeightAverage
    from pipeline.nn.optimizer import WarmupSGD

    batches = repeated(in_memory(Path(), args.batch_size, args.steps))
    pieces = compiled(cifar10_config, optimizer=WarmupSGD(1e-3, momentum=0.9, nesterov=True, warmup_steps=10**6))

    class Averaging(WeightAverage):
        """Without validation of the averages, which is not part of a step."""

        def on_epoch_end(self, epoch, logs=None):
            pass

    average = Averaging(0.999, None)
    plain, name = compiled(cifar10_config), "with warm-up, Nesterov and averaged weights"
    ways = {"ours": fit_to(plain, batches), name: fit_to(pieces, batches, average)}
    results = seconds_of_fits(ways, args.steps, args.repeats)
    measure.show(f"a step of fit, batch {args.batch_size}", results, "s", digits=3, more_is_better=False)
    return results


def repeated(batches):
    """Return the first of `batches`, repeated to the same number of batches."""
    from pipeline.io import Batches

    class Repeated(Batches):
        batch = batches[0]

        def __getitem__(self, index):
            return self.batch

    return Repeated(batches.images, batches.batch_size, training=True)


def fit_to(model, batches, *callbacks) -> Callable[[], None]:
    """Return a function that trains `model` for an epoch over `batches`, as the scripts call `fit`."""
    from pipeline.callbacks import AsyncCallbackList

    def fit() -> None:
        options = {"add_history": True, "model": model, "epochs": 1, "steps": len(batches)}
        with AsyncCallbackList(list(callbacks), **options) as called:
            model.fit(batches.for_keras(), shuffle=False, verbose=0, callbacks=called)

    return fit


def seconds_of_fits(ways: dict[str, Callable], steps: int, repeats: int) -> dict[str, list[float]]:
    """Measure the seconds per step of each of `ways`, which train `steps` steps."""
    seconds = measure.interleave({name: seconds_of(fit, 1) for name, fit in ways.items()}, repeats)
    return {name: [value / steps for value in values] for name, values in seconds.items()}


def share_of_waiting(seconds: dict[str, list[float]]) -> float:
    """Return the fraction of a step spent waiting for data, from the medians of `fed_and_repeated`."""
    new, same = map(statistics.median, seconds.values())
    return 1.0 - same / new


def seconds_of(step: Callable[[], object], count: int) -> Callable[[], float]:
    """Return a function that measures the seconds of `step` over `count` calls, after an unmeasured one."""

    def measure_steps() -> float:
        step()
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count

    return measure_steps


if __name__ == "__main__":
    command.run(main)
