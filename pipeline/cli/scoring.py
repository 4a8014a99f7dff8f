"""Score a checkpoint on the images of its data set."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import keras
import numpy as np

from pipeline.checkpoints import Checkpoint
from pipeline.cli import console, flags
from pipeline.cli.datasets import dataset_of, open_source, path_of, view_flags
from pipeline.errors import InputError
from pipeline.evaluation import Predictions, check_report_folder, write_report
from pipeline.files.atomic import check_folder
from pipeline.io.batches import Batches, scores
from pipeline.io.imagereader import ImageReader
from pipeline.preprocessing import Mirror
from pipeline.utils.ranked import ranks

_WORKERS = 2


@dataclass(frozen=True)
class Images:
    """The images to score a network on.

    Args:
        data: path of their data set; None for its default.
        split: "test" or "val".
        held_out: True if they are training images that training held out.
        colours: order of their channels, "RGB" or "BGR".
        view: how they are resized, by the names of flags; empty for images of one size.
        batches: the images in order.
        mirrored: the same images, mirrored; None if they aren't needed.
    """

    data: str | None
    split: str
    held_out: bool
    colours: str
    view: dict[str, float]
    batches: Batches
    mirrored: Batches | None


def open_images(checkpoint: Checkpoint, args: Namespace) -> Images:
    """Open the images that the flags `args` of rank_accuracy.py and the `checkpoint` name.

    Raises:
        InputError: a flag contradicts the checkpoint, or the images can't be read or don't fit it.
    """
    run = checkpoint.history["run"]
    # Checkpoints from before a flag existed lack it.
    trained = {"data": None, "batch_size": 64}
    trained |= flags.saved_values(run.get("arguments", {}), trained)
    dataset = dataset_of(checkpoint, args.dataset)
    data = path_of(dataset, args.data, trained["data"])
    if args.submission and dataset != "tiny_imagenet":
        raise InputError(f"--submission is for Tiny ImageNet; {checkpoint.path} was trained on {dataset}; omit it")
    given = {name: value for name in ("image_size", "eval_ratio") if (value := getattr(args, name)) is not None}
    if unfit := sorted(given.keys() - set(view_flags(dataset))):
        raise InputError(
            f"--{unfit[0]} is for images of any size; {checkpoint.path} was trained on {dataset}, whose images have "
            "one; omit it"
        )
    size = {"image_size": checkpoint.network["height"]}
    source = open_source(dataset, data, run.get("arguments", {}) | size | given)
    if checkpoint.preprocessor is not None:
        source.normalize_by(checkpoint.preprocessor)
    if args.tta and not source.mirrors:
        raise InputError(f"--tta flip: mirroring changes the meaning of {data}; omit it")
    if args.split == "test" != source.evaluation_split:
        raise InputError(f"--split test: the labels of {dataset}'s test images are secret; use --split val")
    as_validated = args.split == "val"
    split = args.split or source.evaluation_split
    make_batches = source.val_batches if as_validated else source.test_batches
    batch_size = args.batch_size or trained["batch_size"]
    batches = make_batches(batch_size, workers=_WORKERS)
    _check_images(checkpoint, batches, split, args.image_size)
    depends = as_validated or (checkpoint.preprocessor is None and source.normalizes_subset)
    if source.is_subset and depends and source.digest() != run.get("data"):
        raise InputError(
            f"{data or dataset} doesn't hold the images that {checkpoint.path} was trained on, in the same order, so "
            "the run's --limit or --holdout would select others; name the training data with --data"
        )
    mirrored = make_batches(batch_size, workers=_WORKERS, aug=Mirror()) if args.tta else None
    view = {name: getattr(source, name) for name in view_flags(dataset)}
    held_out = as_validated and source.holdout is not None
    return Images(data, split, held_out, source.colours, view, batches, mirrored)


def _check_images(checkpoint: Checkpoint, batches: Batches, split: str, image_size: int | None) -> None:
    """Raise `InputError` unless the network in `checkpoint` fits the images and classes of `batches`."""
    expected = checkpoint.network | ({"height": image_size, "width": image_size} if image_size else {})
    shown = "images of {height}x{width}x{depth} and {classes} classes".format
    found = dict(zip(("height", "width", "depth"), batches.image_shape, strict=True)) | {"classes": batches.classes}
    if not found.items() <= expected.items():
        raise InputError(
            f"the {split} split has {shown(**found)}; expected {shown(**expected)}, as {checkpoint.path}; name the "
            "training data with --data"
        )
    if checkpoint.history["run"].get("classes", list(batches.class_names)) != list(batches.class_names):
        raise InputError(
            f"the {split} split has other classes than {checkpoint.path} was trained on; name its data with --data"
        )


def check_outputs(args: Namespace) -> None:
    """Raise `InputError` unless the files and the report that the flags `args` name can be written."""
    for flag in ("json", "submission"):
        if (output := getattr(args, flag)) is None:
            continue
        if output.is_dir():
            raise InputError(f"{output} is a folder; name a file")
        check_folder(output.parent)
        if args.report and output.parent.resolve() == args.report.resolve():
            raise InputError(f"--{flag} {output} is in the folder of --report; name another place")
    if args.report:
        check_report_folder(args.report)


def predict(model: keras.Model, images: Images) -> tuple[Predictions, np.ndarray]:
    """Return the predictions, and the rank of each image's class by the mean scores of image and mirror image.

    Without mirrored images the ranks, integers (n,), are those of the predictions. Keeps the scores of one batch only.
    """
    batches, mirrored = images.batches, images.mirrored
    own, by_mean, done = [], [], 0
    both = zip(scores(model, batches), scores(model, mirrored) if mirrored else repeat(None), strict=False)
    with console.progress("scoring", batches.num_images, "images") as advance:
        for plain, other in both:
            labels = batches.labels[done : done + len(plain)]
            own.append(Predictions.of(plain, labels))
            by_mean.append(own[-1].ranks if other is None else ranks((plain + other) / 2, labels))
            done += len(plain)
            advance(len(plain))
    return Predictions.joined(own), np.concatenate(by_mean)


def report(folder: Path, predictions: Predictions, images: Images, facts: Mapping[str, object]) -> list[Path]:
    """Write a report on the `predictions` for `images` to `folder`; return its files."""
    held = images.batches.images

    def pixels_of(rows: np.ndarray) -> np.ndarray:
        pixels = held.read(rows).astype(np.uint8)
        return pixels if images.colours == "RGB" else pixels[..., ::-1]

    return write_report(folder, predictions, held.label_names, held.class_names, facts, pixels_of)


def predict_unlabelled(model: keras.Model, paths: Sequence[str], batches: Batches) -> list[str]:
    """Predict the class of each image at `paths`; return a line "FILE WORDNET_ID" for each.

    Images are preprocessed as in `batches`.
    """
    predicted, shape = [], batches.image_shape[:2]
    with ImageReader(shape) as reader, console.progress("predicting", len(paths), "images") as advance:
        for images in reader.read(paths):
            predicted += model.predict_on_batch(batches.preprocess(images)).argmax(axis=1).tolist()
            advance(len(images))
    names = batches.images.label_names
    return [f"{Path(path).name} {names[label]}" for path, label in zip(paths, predicted, strict=True)]
