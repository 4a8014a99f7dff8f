"""Compare training on this machine's GPU with its CPU, and measure speed: run this first on a machine with a GPU.

    KERAS_BACKEND=jax python benchmarks/gpu_check.py [--minutes 8] [--batch_sizes 128,256,512,1024]

Prints a row for each network, precision, compilation and batch size. Rows at the first batch size compare the losses of
two steps on one batch with the CPU's, from the same weights; the second loss depends on gradients and update. Then each
row measures images per second of `fit` over one repeated batch, and the fraction of a step that `fit` over augmented
batches waits for data. The most important rows come first; rows that there is no time for are reported. Exit code 1 if
a loss differs or a row fails.
"""

import gc
import json
import logging
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import measure  # makes the project importable
import train_step

from config import cifar10_config, tiny_imagenet_config
from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError

# At these learning rates the second loss is below the first by several times the tolerance, which reveals a wrong
# update, while a GPU's TF32 products of ten bits change it by less than half of the tolerance. At ten times ResNet-56's
# rate they would change it by more than the tolerance.
NETWORKS = {
    "CIFAR-10": (cifar10_config, train_step.in_memory, 1e-4),
    "Tiny ImageNet": (tiny_imagenet_config, train_step.from_file, 3e-3),
}
# Maximum relative difference of each loss. For ResNet-56 in mixed_bfloat16 on one CPU, both backends, with and without
# XLA, differ by up to 0.0018 in the first loss and 0.0023 in the second, because they round at different places. A
# slightly wrong update shows only in float32.
TOLERANCES = {"float32": 1e-3, "mixed_bfloat16": 5e-3}
# Steps per epoch at the first batch size: about a second on an H100.
STEPS, STEPS_ON_CPU = 100, 2
PASSED, FAILED, NOT_REACHED, OUT_OF_MEMORY = "passed", "FAILED", "not reached: no time left", "out of memory"
COLUMNS = "{:13}  {:14}  {:3}  {:>5}  {:>8}  {:>7}  {:6}  {}"


@dataclass
class Row:
    """A network in one setting, and its measurements."""

    network: str
    precision: str
    jit_compile: bool
    batch_size: int
    is_checked: bool = False
    is_timed: bool = True
    check: str = ""
    losses: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    images_per_second: float | None = None
    fraction_waiting: float | None = None
    note: str = NOT_REACHED

    def compare(self, device: list[float], cpu: list[float]) -> None:
        """Pass or fail the check, given the losses of two steps on the accelerator and on the CPU."""
        self.losses = {"device": device, "cpu": cpu}
        pairs = list(zip(device, cpu, strict=True))
        # A comparison with NaN is false, so that the check fails.
        is_close = all(abs(ours - theirs) <= TOLERANCES[self.precision] * abs(theirs) for ours, theirs in pairs)
        self.check = PASSED if is_close else FAILED
        self.note = ", ".join(f"loss {ours:.5f} (CPU {theirs:.5f})" for ours, theirs in pairs)

    def set_seconds(self, seconds: dict[str, list[float]]) -> None:
        """Set the seconds per step, measured by `train_step.fed_and_repeated`, and what follows from them."""
        self.seconds = seconds
        self.images_per_second = self.batch_size / seconds["repeated"][0]
        self.fraction_waiting = train_step.share_of_waiting(seconds)

    def __str__(self) -> str:
        rate = "" if self.images_per_second is None else f"{self.images_per_second:,.0f}"
        waiting = "" if self.fraction_waiting is None else f"{100 * self.fraction_waiting:.1f} %"
        setting = (self.network, self.precision, "on" if self.jit_compile else "off", self.batch_size)
        return COLUMNS.format(*setting, rate, waiting, self.check, self.note).rstrip()


def parse_arguments() -> Namespace:
    parser = arguments.Parser(__doc__)
    parser.add(
        "minutes", flags.positive, "M", "time limit: start no row that would end later (default: 8)", default=8.0
    )
    sizes = "images per step; the losses are compared at the first (default: 128,256,512,1024)"
    parser.add("batch_sizes", flags.counts, "N,N,...", sizes, default=(128, 256, 512, 1024))
    steps = f"steps per epoch at the first batch size (default: {STEPS}, without an accelerator {STEPS_ON_CPU})"
    parser.add("steps", flags.count, "N", steps)
    parser.add("stages", flags.counts, "N,N,...", "bottleneck modules in each stage (default: those of each network)")
    parser.add(
        "filters", flags.counts, "N,N,...", "output channels of stem and stages (default: those of each network)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    deadline = time.monotonic() + 60 * args.minutes
    with console.quiet_start():
        import keras

        from pipeline.utils import environment
    # It warns about retracing if a program compiles more than a few networks.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    device, backend, platform = environment.device(), keras.backend.backend(), platform_of(keras.ops.zeros(1))
    print(f"{device}, {backend}")
    if platform == "cpu":
        print("no accelerator: the check compares the CPU with itself")
    args.steps = args.steps or (STEPS_ON_CPU if platform == "cpu" else STEPS)
    rows = plan(args.batch_sizes, backend)
    run(rows, partial(measure_row, args=args, platform=platform, references={}), deadline)
    results = {"device": device, "platform": platform, "backend": backend, "rows": [asdict(row) for row in rows]}
    measure.record("gpu_check", results)
    print(json.dumps(results))
    if failed := sum(row.check == FAILED for row in rows):
        sys.exit(command.fail(f"{failed} of {len(rows)} rows failed", 1))


def plan(batch_sizes: Sequence[int], backend: str) -> list[Row]:
    """Return the rows to measure, most important first."""
    first, *others = batch_sizes
    settings = [(network, precision) for precision in TOLERANCES for network in NETWORKS]
    compiled = [Row(*setting, True, first, is_checked=True) for setting in settings]
    larger = [Row(*setting, True, batch_size) for batch_size in others for setting in settings]
    # Without jit_compile, JAX compiles and runs one operation after the other: slow, and not used by any script.
    is_timed = backend == "tensorflow"
    plain = [Row(*setting, False, first, is_checked=True, is_timed=is_timed) for setting in settings]
    return compiled + (plain + larger if is_timed else plain[:2] + larger + plain[2:])


def run(rows: Sequence[Row], measure_row: Callable[[Row], None], deadline: float) -> None:
    """Measure and print each of `rows`, unless a row that takes as long as the last one would exceed the `deadline`."""
    print("\n" + COLUMNS.format("network", "precision", "jit", "batch", "images/s", "waiting", "check", "").rstrip())
    latest = 0.0
    for row in rows:
        start = time.monotonic()
        if start + latest < deadline:
            attempt(row, measure_row)
            latest = time.monotonic() - start
        print(row, flush=True)


def attempt(row: Row, measure_row: Callable[[Row], None]) -> None:
    """Measure `row`; record an error in it, so that the other rows follow."""
    row.note = ""
    try:
        measure_row(row)
    except InputError:
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ in ("ResourceExhaustedError", "MemoryError"):
            row.note = OUT_OF_MEMORY
        else:
            traceback.print_exc()
            row.check, row.note = FAILED, f"{type(error).__name__}: {error!s:.200}".partition("\n")[0]


def measure_row(row: Row, args: Namespace, platform: str, references: dict) -> None:
    """Compare and measure as `row` asks.

    Args:
        platform: platform of the default device, "cpu", "gpu" or "tpu".
        references: initial weights, and losses on the CPU, by network and precision; filled on demand.
    """
    import keras

    config, batches_of, learning_rate = NETWORKS[row.network]
    network = {name: getattr(args, name) for name in ("stages", "filters") if getattr(args, name)}
    steps = max(1, args.steps * args.batch_sizes[0] // row.batch_size)  # the same number of images in all rows

    def build(jit_compile: bool):
        optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
        return train_step.compiled(config, jit_compile, optimizer, **network)

    gc.collect()  # models have reference cycles, and the last row's may still hold device memory
    keras.config.set_dtype_policy(row.precision)
    with tempfile.TemporaryDirectory() as folder:
        batches = batches_of(Path(folder), row.batch_size, steps)
        model = build(row.jit_compile)
        if row.is_checked:
            same, key = train_step.repeated(batches), (row.network, row.precision)
            if key not in references:
                # On both backends, a model built and trained inside this context stays on the CPU.
                with keras.device("cpu:0"):
                    reference = build(jit_compile=keras.backend.backend() == "jax")  # the faster way on a CPU
                    references[key] = reference.get_weights(), two_losses(reference, same, "cpu")
            weights, losses = references[key]
            model.set_weights(weights)
            row.compare(two_losses(model, same, platform), losses)
        if row.is_timed:
            row.set_seconds(train_step.fed_and_repeated(model, batches, repeats=1))


def two_losses(model, batches, platform: str) -> list[float]:
    """Return the losses of two steps on `batches`; raise `RuntimeError` if they didn't run on `platform`."""
    # With `fit`, because `train_on_batch` would compile the network again.
    options = {"steps_per_epoch": 1, "shuffle": False, "verbose": 0}
    losses = [model.fit(batches.for_keras(), **options).history["loss"][0] for _ in range(2)]
    if (place := platform_of(model.trainable_variables[0].value)) != platform:
        raise RuntimeError(f"a step ran on the {place}; expected the {platform}")
    return losses


def platform_of(tensor) -> str:
    """Return the platform of `tensor`: "cpu", "gpu" or "tpu"."""
    if hasattr(tensor.device, "platform"):  # JAX
        return tensor.device.platform
    return tensor.device.rpartition("device:")[2].partition(":")[0].lower()


if __name__ == "__main__":
    command.run(main)
