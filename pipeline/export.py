"""Export a trained network to a format that other programs run without this project.

    python -m pipeline.export --model output/resnet_cifar10.hdf5 --format onnx exported
    python -m pipeline.export --model output/resnet_cifar10.hdf5 --format litert app/cifar10.tflite

The exported network takes uint8 RGB images (n, height, width, 3) of its size, and gives float32 probabilities
(n, classes): normalization and order of colours are inside. OUTPUT is a file with the format's suffix (.keras, .onnx,
.tflite), or a folder for model.keras, model.onnx or model.tflite, or for the SavedModel. The names of the classes go to
labels.txt beside it.

The format's own runtime, in a process of its own, then classifies images of the model's data set. Unless it gives the
probabilities of the trained network, nothing is written, and the exit code is 1. The formats onnx and litert need
requirements-export.txt. Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import os
import signal
import sys
from argparse import Namespace

from pipeline.cli import arguments, command, console, flags
from pipeline.cli.backend import choose_backend
from pipeline.errors import InputError, as_input_error
from pipeline.formats.output import LABELS, SUFFIXES, Output, check_packages, labels_of
from pipeline.predict import Classifier
from pipeline.utils.signals import handle_stops

# Number of images to check an exported network with.
_IMAGES = 64
_BATCH_SIZE = 16
# Largest difference of a probability; rounding makes about 1e-6.
_TOLERANCE = 1e-4


def parse_arguments() -> Namespace:
    parser = arguments.Parser(__doc__, prog="python -m pipeline.export")
    parser.add_argument("output", type=flags.file_path, metavar="OUTPUT", help="file or folder to write")
    parser.add_argument("-m", "--model", type=flags.file_path, metavar="FILE", required=True, help="trained model")
    parser.add_argument("--format", choices=SUFFIXES, required=True, help="format of the exported network")
    parser.add("data", flags.path, "PATH", "images to check it with (default: those that rank_accuracy.py scores)")
    parser.add("overwrite", None, None, "replace an earlier export", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    output = Output.at(args.output, args.format)
    check_packages(args.format)
    if (backend := choose_backend()) != "tensorflow":
        raise InputError(f"only TensorFlow exports, and Keras' backend is {backend}; set KERAS_BACKEND=tensorflow")
    # A GPU would round products to TF32. The runtime's process inherits this.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with console.quiet_start():
        import numpy as np

        from pipeline.checkpoints import read_checkpoint
        from pipeline.formats import runtimes
        from pipeline.formats.network import classifier_of
        from pipeline.formats.writers import WRITERS

    checkpoint = read_checkpoint(args.model)
    classifier = Classifier.of(checkpoint, precision="float32")
    labels = labels_of(classifier.class_names)
    output.check(labels, args.overwrite)
    images = first_images(checkpoint, args.data)
    print(f"model: {checkpoint.path}, epoch {checkpoint.epoch}{', averaged weights' * checkpoint.averaged}")
    print(f"format: {args.format}", flush=True)
    batches = np.split(images, range(_BATCH_SIZE, len(images), _BATCH_SIZE))
    expected = np.concatenate([classifier.probabilities(batch, _BATCH_SIZE) for batch in batches])

    with output.staged() as staged:
        with console.hidden_stderr():
            network = classifier_of(classifier.model, classifier.preprocessor, classifier.colours)
            WRITERS[args.format](network, staged.model)
        (staged.folder / LABELS).write_bytes(labels)
        rgb = images if classifier.colours == "RGB" else images[..., ::-1]
        found, runtime = runtimes.run_exported(args.format, staged.model, rgb)
        difference = np.abs(found - expected).max()
        if not difference <= _TOLERANCE:  # or it is not a number
            wrong = f"{runtime} gives other probabilities than {checkpoint.path}, by up to {difference:.2g}"
            sys.exit(command.fail(f"{wrong}; expected at most {_TOLERANCE:g}; nothing was written", 1))
        handle_stops(signal.SIG_IGN)  # moving takes an instant
        output.take(staged)

    print(f"written: {output.model}, {output.size():,} bytes")
    print(f"written: {output.folder / LABELS}, {len(classifier.class_names):,} classes")
    print(f"input: images, uint8 (n, {classifier.size}, {classifier.size}, 3), RGB")
    print(f"output: probabilities, float32 (n, {len(classifier.class_names)})")
    print(f"largest difference from the trained network: {difference:.1e} in {len(images)} images, with {runtime}")


def first_images(checkpoint, data: str | None):
    """Return the first images, up to `_IMAGES`, that rank_accuracy.py scores, in the network's order of colours.

    Returns:
        uint8 (n, size, size, 3).

    Raises:
        InputError: they can't be read, or don't fit the checkpoint.
    """
    import numpy as np

    from pipeline.cli.scoring import open_images

    others = ("dataset", "split", "image_size", "eval_ratio", "tta", "batch_size", "submission")
    args = Namespace(data=data, **dict.fromkeys(others))
    with as_input_error(InputError, "can't check the export with images from `data`: "):
        images = open_images(checkpoint, args).batches.images
        return images.read(np.arange(min(len(images), _IMAGES)))


if __name__ == "__main__":
    command.run(main, tidy=True)
