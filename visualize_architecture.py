"""Print the layers of a network as a table, and draw its architecture.

    python visualize_architecture.py
    python visualize_architecture.py --dataset tiny_imagenet --output output/resnet_tinyimagenet_architecture.png

The drawing needs pydot (in requirements-dev.txt) and graphviz (a system package). The table needs neither.
"""

import math
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from pipeline.cli import arguments, command, console, flags
from pipeline.cli.datasets import DATASETS, config_of
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add("dataset", None, None, "data set (default: cifar10)", choices=DATASETS, default="cifar10")
    parser.add("stages", flags.counts, "N,N,...", "bottleneck modules in each stage (default: the data set's)")
    parser.add("filters", flags.counts, "N,N,...", "output channels of stem and stages (default: the data set's)")
    parser.add("classes", flags.count, "N", "number of classes (default: the data set's)")
    output = "the drawing, PNG, PDF or SVG (default: output/resnet_DATASET_architecture.png)"
    parser.add("output", drawing, "FILE", output, short="o")
    return parser.parse_args()


def drawing(text: str) -> Path:
    """Parse the name of a file that graphviz can draw."""
    path = flags.file_path(text)
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ArgumentTypeError(f"{text!r} does not end in .png, .pdf or .svg")
    return path


def size(layer) -> str:
    """Return the output size of a layer, height x width x channels."""
    return " x ".join(map(str, layer.output.shape[1:]))


def window(layer) -> str:
    """Describe the kernel, filters and stride of a convolution or pooling layer, such as "3 x 3, 64, stride 1"."""
    shape = getattr(layer, "kernel_size", None) or layer.pool_size
    channels = f", {layer.filters}" if hasattr(layer, "filters") else ""
    return f"{shape[0]} x {shape[1]}{channels}, stride {layer.strides[0]}"


def rows(model) -> Iterator[tuple[str, str, str]]:
    """Yield the name, output size and kernels of each part of a network of `ResNet.build`."""
    layers = {layer.name: layer for layer in model.layers}
    yield "conv1", size(layers["conv1"]), window(layers["conv1"])
    if "max_pool" in layers:
        yield "zero padding", size(layers["zero_padding"]), "1 x 1"
        yield "max pool", size(layers["max_pool"]), window(layers["max_pool"])
    stage = 2
    while f"conv{stage}_1_add" in layers:
        modules = sum(name.startswith(f"conv{stage}_") and name.endswith("_add") for name in layers)
        convolutions = [layers[f"conv{stage}_1_{number}_conv"] for number in (1, 2, 3)]
        content = "; ".join(f"{c.kernel_size[0]} x {c.kernel_size[1]}, {c.filters}" for c in convolutions)
        yield f"conv{stage}_x", size(layers[f"conv{stage}_1_add"]), f"[{content}] x {modules}"
        stage += 1
    yield "avg pool", size(layers["avg_pool"]), window(layers["avg_pool"])
    yield "linear", size(layers["flatten"]), ""
    yield "softmax", size(layers["softmax"]), ""


def print_table(model) -> None:
    """Print the parts of `model` as a Markdown table, and the number of parameters."""
    table = [("layer name", "output size", "kernels"), *rows(model)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    table.insert(1, tuple("-" * width for width in widths))
    for row in table:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    print(f"parameters: {model.count_params():,}, trainable: {trainable:,}")


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras

        from pipeline.nn.conv import ResNet

    config = config_of(args.dataset)
    network = config.NETWORK | {
        name: value for name in ("stages", "filters") if (value := getattr(args, name)) is not None
    }
    model = ResNet.build(**config.IMAGES, **network, classes=args.classes or config.CLASSES)
    print_table(model)

    path = args.output or Path(f"output/resnet_{args.dataset}_architecture.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # At a higher resolution the drawing of ResNet-56 is too tall for PNG viewers.
        keras.utils.plot_model(model, path, show_shapes=True, show_layer_names=True, dpi=60)
    except ImportError:
        print("not drawn: install pydot (pip install pydot) and graphviz (apt install graphviz)")
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror}") from error
    else:
        print(f"written: {path}")


if __name__ == "__main__":
    command.run(main)
