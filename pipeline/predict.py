"""Classify photographs with a trained model.

    python -m pipeline.predict photo.jpg --model output/resnet50_imagenet.hdf5
    python -m pipeline.predict photos/ --model output/resnet_cifar10.hdf5 --top 3 --csv

Prints the most likely classes of each JPEG or PNG image, of any size, with their probabilities; a folder stands for all
images in it. The model's file is enough: it holds the names of the classes and the normalization. An image is turned as
its EXIF orientation says and resized, and its central square is classified, for ImageNet as in the evaluation. Images
that can't be read are reported at the end, and the others classified; the exit code is then 2.

Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError, as_input_error
from pipeline.utils.text import printable

if TYPE_CHECKING:
    import keras
    import numpy as np

    from pipeline.checkpoints import Checkpoint
    from pipeline.preprocessing import Normalization

_BATCH_SIZE = 32


def parse_arguments():
    parser = arguments.Parser(__doc__, prog="python -m pipeline.predict")
    parser.add_argument("images", nargs="+", type=flags.file_path, metavar="IMAGE", help="image, or folder of images")
    parser.add_argument("-m", "--model", type=flags.file_path, metavar="FILE", required=True, help="trained model")
    parser.add_argument("--top", type=flags.count, default=5, metavar="N", help="number of classes (default: 5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per image")
    form.add_argument("--csv", action="store_true", help="print a table: image, rank, class, probability")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        import keras  # noqa: F401  (TensorFlow prints while it loads)

        from pipeline.checkpoints import read_checkpoint

    files, refused = find_images(args.images)
    classifier = Classifier.of(read_checkpoint(args.model))
    show = show_json if args.json else CSV() if args.csv else show_lines
    for file, best in classify(classifier, files, args.top, refused):
        show(file, best)
    for message in refused:
        print(printable(message), file=sys.stderr)
    if refused:
        sys.exit(2)


def find_images(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the files among `paths` and the images in folders among them, and a message for each unreadable image."""
    from pipeline.io.images import list_folder

    files, refused = [], []
    for path in paths:
        if path.is_dir():
            listing = list_folder(path)
            files += listing.images
            refused += listing.unreadable.values()
            if not (listing.images or listing.unreadable):
                refused.append(f"folder {path} holds no images")
        else:
            files.append(str(path))
    return files, refused


@dataclass(frozen=True)
class Classifier:
    """A trained network, and how to make its images.

    Args:
        size: height and width of its images in pixels.
        ratio: side of the part of an image that it sees, as a fraction of the shorter side.
        colours: order of the channels, "RGB" or "BGR".
    """

    model: "keras.Model"
    preprocessor: "Normalization"
    class_names: Sequence[str]
    size: int
    ratio: float
    colours: str

    @classmethod
    def of(cls, checkpoint: "Checkpoint", precision: str | None = None) -> Self:
        """Create the classifier of a `checkpoint`; see `Checkpoint.build_model` for the `precision`.

        Raises:
            InputError: the checkpoint lacks something, or its network is for other images than photographs.
        """
        from pipeline.cli.datasets import dataset_of, source_class

        colours = source_class(dataset_of(checkpoint)).colours
        run, network = checkpoint.history["run"], checkpoint.network
        if checkpoint.preprocessor is None or len(run.get("classes", ())) != network["classes"]:
            raise InputError(
                f"{checkpoint.path} lacks the names of its classes, or the mean of its images, as files of earlier "
                "versions do; name a newer one"
            )
        if network["height"] != network["width"] or network["depth"] != 3:
            raise InputError(f"the network in {checkpoint.path} is not for square images in colour; name another")
        ratio = flags.saved_values(run.get("arguments", {}), ["eval_ratio"]).get("eval_ratio", 1.0)
        model = checkpoint.build_model(precision=precision)
        return cls(model, checkpoint.preprocessor, run["classes"], network["height"], ratio, colours)

    def view(self, file: str) -> "np.ndarray":
        """Read the image `file` as the network sees it, uint8 (size, size, 3).

        Raises:
            InputError: it can't be read, or is far longer than wide.
        """
        from pipeline.io.images import read_image
        from pipeline.preprocessing.view import central_view

        pixels = read_image(file)
        with as_input_error(InputError, f"image {file} "):
            view = central_view(pixels, self.size, self.ratio)
        return view[..., ::-1] if self.colours == "RGB" else view

    def probabilities(self, views: "Sequence[np.ndarray]", batch_size: int) -> "np.ndarray":
        """Return the probability of each class, float32 (n, classes), for up to `batch_size` images."""
        import numpy as np

        from pipeline.io.batches import scores_of

        return scores_of(self.model, self.preprocessor.preprocess_batch(np.stack(views)), batch_size)


def classify(
    classifier: Classifier, files: Sequence[str], top: int, refused: list[str]
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    """Yield each file with its `top` classes and their probabilities; append a message to `refused` for any other."""

    def views() -> Iterator[tuple]:
        for file in files:
            try:
                yield file, classifier.view(file)
            except InputError as error:
                refused.append(str(error))

    batch_size, source = min(_BATCH_SIZE, len(files)), views()
    while group := list(islice(source, batch_size)):
        names, images = zip(*group, strict=True)
        for file, scores in zip(names, classifier.probabilities(images, batch_size), strict=True):
            best = (-scores).argsort(kind="stable")[:top].tolist()
            yield file, [(classifier.class_names[label], float(scores[label])) for label in best]


def show_lines(file: str, best: Sequence[tuple[str, float]]) -> None:
    """Print the classes of a file, one a line."""
    print(printable(file))
    for name, probability in best:
        print(printable(f"  {100 * probability:6.2f} %  {name}"), flush=True)


def show_json(file: str, best: Sequence[tuple[str, float]]) -> None:
    """Print the classes of a file as a JSON object."""
    classes = [{"class": name, "probability": probability} for name, probability in best]
    print(json.dumps({"image": file, "classes": classes}), flush=True)


class CSV:
    """Print the classes of files as CSV, a row for each."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._writer.writerow(["image", "rank", "class", "probability"])

    def __call__(self, file: str, best: Sequence[tuple[str, float]]) -> None:
        for rank, (name, probability) in enumerate(best, start=1):
            self._writer.writerow([printable(file), rank, printable(name), probability])
        sys.stdout.flush()


if __name__ == "__main__":
    command.run(main)
