"""Build Tiny ImageNet's training, validation and test set as HDF5 files, and the training set's mean colour.

    python build_tiny_imagenet.py --download
    python build_tiny_imagenet.py --data datasets/tiny-imagenet-200 --overwrite

Reads the data set as it is distributed and writes train.hdf5, val.hdf5, test.hdf5 and mean.json into its folder hdf5/.
50 training images of each class become the test set; the official validation set stays what it is.
"""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from config import tiny_imagenet_config as config
from pipeline import arguments, console
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.io.imagereader import ImageReader


def parse_arguments():
    parser = arguments.Parser(__doc__)
    arguments.add_tiny_imagenet(parser, config.DATA, config.DATA_VARIABLE)
    parser.add_argument("--download", action="store_true", help="fetch the official archive (248 MB) first")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier build")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from pipeline.io import tinyimagenet
    from pipeline.io.imagereader import ImageReader

    places = config.places(args.data)
    outputs = [places.train_hdf5, places.val_hdf5, places.test_hdf5, places.mean]
    check_outputs(outputs, args.overwrite)
    if not args.download and not places.root.is_dir():
        raise InputError(f"folder {places.root} is missing; --download fetches it, --data names another")
    if args.download:
        with console.progress("downloading", config.ARCHIVE["size"] / 1e6, "MB") as advance:
            tinyimagenet.download(places.root, **config.ARCHIVE, advance=lambda count: advance(count / 1e6))
        print(f"downloaded: {places.root}")

    # Its processes start while the paths are listed.
    with ImageReader((config.IMAGES["height"], config.IMAGES["width"])) as reader:
        mean = build(places, outputs, args.overwrite, reader)
    print("mean: " + ", ".join(f"{channel} {value:.2f}" for channel, value in mean.items()))
    for path in outputs:
        print(f"written: {path}")


def check_outputs(outputs: list[Path], overwrite: bool) -> None:
    for path in outputs:
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; --overwrite replaces what an earlier build wrote")


def build(places: SimpleNamespace, outputs: list[Path], overwrite: bool, reader: "ImageReader") -> dict[str, float]:
    """Write `outputs`, the files of the training, validation and test set and of the mean; return the mean."""
    from pipeline.io import atomic, tinyimagenet
    from pipeline.io.lock import locked

    wordnet_ids = tinyimagenet.read_wordnet_ids(places.wordnet_ids)
    words = tinyimagenet.read_words(places.word_labels, wordnet_ids)
    train_paths, train_ids = tinyimagenet.list_train(places.train_images, wordnet_ids)
    val_paths, val_ids = tinyimagenet.list_val(places.val_images, places.val_mappings, wordnet_ids)
    for wordnet_id, count in Counter(train_ids).items():
        if count <= config.TEST_IMAGES_PER_CLASS:
            raise InputError(
                f"{places.train_images / wordnet_id} holds {count} images; expected more than the "
                f"{config.TEST_IMAGES_PER_CLASS} that become test images"
            )
    folder = places.mean.parent
    atomic.make_folder(folder)
    with locked(folder):
        check_outputs(outputs, overwrite)
        atomic.remove_unfinished(folder)
        with tempfile.TemporaryDirectory(prefix="build.", suffix=".tmp", dir=folder) as name:
            staging = [Path(name) / path.name for path in outputs]
            train_hdf5, val_hdf5, test_hdf5, mean_json = staging
            # Decoding begins here, while scikit-learn loads, which takes as long as a fifth of it.
            val_images = reader.read(val_paths)
            train_labels, val_labels, train_rows, test_rows = label_and_split(wordnet_ids, train_ids, val_ids)
            write_split(val_hdf5, val_images, val_labels, wordnet_ids, words)
            train_images = reader.read([train_paths[row] for row in train_rows])
            mean = write_split(train_hdf5, train_images, train_labels[train_rows], wordnet_ids, words)
            test_images = reader.read([train_paths[row] for row in test_rows])
            write_split(test_hdf5, test_images, train_labels[test_rows], wordnet_ids, words)
            tinyimagenet.write_mean(mean_json, mean)
            # Whatever needs the data needs the mean: with it gone first and back last, no mixture counts as a build.
            places.mean.unlink(missing_ok=True)
            atomic.flush(folder)
            for temporary, path in zip(staging, outputs, strict=True):
                os.replace(temporary, path)
            atomic.flush(folder)
    return mean


def label_and_split(wordnet_ids: Sequence[str], train_ids: Sequence[str], val_ids: Sequence[str]) -> tuple:
    """The labels of the training and of the validation images, the rows of the former that stay, and those that go."""
    import numpy as np
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelEncoder

    encoder = LabelEncoder().fit(wordnet_ids)
    train_labels, val_labels = encoder.transform(train_ids), encoder.transform(val_ids)
    train_rows, test_rows = train_test_split(
        np.arange(len(train_labels)),
        test_size=config.TEST_IMAGES_PER_CLASS * len(wordnet_ids),
        stratify=train_labels,
        random_state=config.SPLIT_SEED,
    )
    counts = np.bincount(train_labels[test_rows])
    if np.any(counts != config.TEST_IMAGES_PER_CLASS):
        raise InputError(
            f"the classes differ too much in number of images: {counts.min()} to {counts.max()} of each would become "
            f"test images; expected {config.TEST_IMAGES_PER_CLASS}"
        )
    return train_labels, val_labels, train_rows, test_rows


def write_split(path: Path, images: Iterator, labels: Sequence[int], wordnet_ids: tuple, words: tuple) -> dict:
    """Write `images`, as `ImageReader` yields them, with their labels to the HDF5 file `path`; return their mean."""
    import cv2
    import numpy as np

    from pipeline.io import HDF5DatasetWriter

    start, done = time.perf_counter(), 0
    height, width, channels = (config.IMAGES[name] for name in ("height", "width", "depth"))
    sums = np.zeros(channels)
    with (
        # The images come many at a time already.
        HDF5DatasetWriter((len(labels), height, width, channels), path, buffer_size=1) as writer,
        console.progress(path.name, len(labels), "images") as advance,
    ):
        writer.store_class_labels(wordnet_ids, words)
        for decoded in images:
            writer.add(decoded, labels[done : done + len(decoded)])
            sums += cv2.sumElems(decoded.reshape(-1, width, channels))[:channels]
            done += len(decoded)
            advance(len(decoded))
    seconds = time.perf_counter() - start
    print(f"{path.name}: {done:,} images of {len(wordnet_ids)} classes in {seconds:.1f} s", flush=True)
    blue, green, red = sums / (done * height * width)
    return {"R": red, "G": green, "B": blue}


if __name__ == "__main__":
    console.run(main)
