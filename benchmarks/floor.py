"""Compute lower bounds of a training step from its operations and bytes, at this machine's rates.

    python benchmarks/floor.py [--batch_size 128]

Counts, for CIFAR-10's network, the multiplications and additions of each convolution (forward, and both gradients), and
the bytes of each convolution, batch normalization with its ReLU, and addition, with each float32 array read or written
once. The machine's rates are those of a large matrix product and a large copy, in the same library on the same cores. A
step takes at least the longer of both times.
"""

import statistics
import time

import measure  # makes the project importable

from config import cifar10_config as config
from pipeline.cli import arguments, command, console, flags


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--batch_size", type=flags.count, default=128, metavar="N", help="images (default: 128)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras

        from pipeline.nn.conv import ResNet

    model = ResNet.build(**config.IMAGES, **config.NETWORK, classes=config.CLASSES)
    operations, values = needs(model)
    operations, values = operations * args.batch_size, values * args.batch_size
    left, right = (keras.random.normal((4096, 4096)) for _ in range(2))
    large = keras.random.normal((1 << 26,))
    products = 2 * 4096**3 / seconds(lambda: left @ right)
    copies = 2 * 4 * (1 << 26) / seconds(lambda: large + 1.0)
    floors = {"operations_s": operations / products, "bytes_s": 4 * values / copies}
    print(f"operations: {operations / 1e9:.0f} GFLOP at {products / 1e9:.0f} GFLOP/s: {floors['operations_s']:.2f} s")
    print(f"bytes: {4 * values / 1e9:.1f} GB at {copies / 1e9:.1f} GB/s: {floors['bytes_s']:.2f} s")
    measure.record("floor", floors | {"operations": operations, "bytes": 4 * values})


def needs(model) -> tuple[int, int]:
    """Count the operations, and the values read or written, of training on one image."""
    operations = values = 0
    for layer in model.layers:
        if type(layer).__name__ not in ("Conv2D", "BatchNormalization", "Add"):
            continue
        out = size(layer.output)
        into = sum(map(size, layer.input if isinstance(layer.input, list) else [layer.input]))
        values += into + out  # forward
        if type(layer).__name__ == "Conv2D":
            height, width, channels, _ = layer.kernel.shape
            operations += 3 * 2 * out * height * width * channels
            values += 2 * (into + out)  # gradients of input and kernel
        elif type(layer).__name__ == "BatchNormalization":
            values += 3 * into + out  # reads input, output and gradient, writes a gradient
        else:
            values += out + into  # sum of the gradients of both paths
    return operations, values


def size(tensor) -> int:
    """Count the values of one image in `tensor`."""
    count = 1
    for length in tensor.shape[1:]:
        count *= length
    return count


def seconds(call) -> float:
    """Measure the median seconds of `call`, including its result."""
    import numpy as np

    times = []
    for _ in range(12):
        start = time.perf_counter()
        np.asarray(call()[:1])
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    command.run(main)
