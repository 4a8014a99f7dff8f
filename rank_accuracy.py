"""Measure rank-1 and rank-5 accuracy of a trained model on its test set.

    python rank_accuracy.py
    python rank_accuracy.py --model output/train/checkpoints/epoch_70.hdf5 --split val
    python rank_accuracy.py --model output/resnet_cifar10.hdf5 --tta flip
    python rank_accuracy.py --submission output/submission.txt

Every image of the split is scored, of the data set that the model was trained on. Published, on Tiny
ImageNet's test set: 57.27 % rank-1 and 81.34 % rank-5 with the learning rate set by hand, 57.93 % and 81.03 % with a
decay; on CIFAR-10's test set: 93.79 % rank-1.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from config import tiny_imagenet_config
from pipeline.cli import arguments, command, console, flags
from pipeline.cli.datasets import DATASETS, dataset_of, open_source, place_of
from pipeline.errors import InputError


def parse_arguments() -> Namespace:
    tiny, file = tiny_imagenet_config, flags.file_path
    parser = arguments.Parser(__doc__)
    model = f"trained model or checkpoint (default: {tiny.MODEL}, else the newest checkpoint)"
    parser.add("model", file, "FILE", model, short="m")
    parser.add("dataset", None, None, "the data set (default: that of the model)", choices=DATASETS)
    place = f"of Tiny ImageNet the folder in {tiny.DATA_VARIABLE}; else what the model was trained on"
    parser.add("data", flags.path, "PATH", f"its place, as the training scripts take it (default: {place})")
    split = "images to score: the test set, or what training validated on (default: test)"
    parser.add("split", None, None, split, choices=("test", "val"), default="test")
    tta = "score the mirrored image too, and the mean of both, on lines of their own"
    parser.add("tta", None, None, tta, choices=("flip",))
    parser.add("batch_size", flags.count, "N", "images a step (default: that of training)")
    parser.add("json", file, "FILE", "write the result to FILE too")
    unlabelled = "write the class predicted for each unlabelled image of Tiny ImageNet to FILE, as the challenge asks"
    parser.add("submission", file, "FILE", unlabelled)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        from pipeline.checkpoints import read_checkpoint
        from pipeline.checkpoints.folder import newest_model
        from pipeline.files.atomic import check_folder, write_atomically
        from pipeline.io.batches import predict
        from pipeline.io.images import list_images
        from pipeline.preprocessing import Mirror

    model_file = Path(tiny_imagenet_config.MODEL)
    folders = Path(tiny_imagenet_config.CHECKPOINTS), model_file.with_suffix("")
    checkpoint = read_checkpoint(args.model or newest_model(model_file, *folders))
    batches, data, held_out = images_to_score(checkpoint, args)
    for output in filter(None, (args.json, args.submission)):
        if output.is_dir():
            raise InputError(f"{output} is a folder; name a file")
        check_folder(output.parent)
    unlabelled = list_images(tiny_imagenet_config.places(data).unlabelled_images)[0] if args.submission else []
    model = checkpoint.build_model()

    print(f"model: {checkpoint.path}")
    print(f"split: {args.split}{', training images held out' if held_out else ''}")
    if checkpoint.averages:
        print("weights: averaged")
    print(f"images: {batches.num_images}")
    result = {"model": str(checkpoint.path), "split": args.split, "images": batches.num_images, "held out": held_out}
    scores = predict(model, batches)
    result |= {"averaged": bool(checkpoint.averages)} | show_ranks(scores, batches.labels)
    if args.tta:
        batches.aug = Mirror()
        scores = (scores + predict(model, batches)) / 2
        result["tta flip"] = show_ranks(scores, batches.labels, ", mean over the image and its mirror image")
    if args.json:
        write_atomically(args.json, (json.dumps(result, indent=1) + "\n").encode())
        print(f"written: {args.json}")
    if args.submission:
        lines = predict_unlabelled(model, unlabelled, batches)
        write_atomically(args.submission, "".join(f"{line}\n" for line in lines).encode())
        print(f"written: {args.submission}, {len(lines):,} predictions")


def images_to_score(checkpoint, args: Namespace) -> tuple:
    """The batches to score, the place of their data set, and whether they were held out of training.

    Raises:
        InputError: flags contradict the checkpoint, or the images can't be read or are others than it asks for.
    """
    run = checkpoint.history["run"]
    # What its run was given, which may be from before there was such a flag.
    trained = {"data": None, "limit": None, "holdout": None, "batch_size": 64}
    trained |= flags.saved_values(run.get("arguments", {}), trained)
    dataset = dataset_of(checkpoint, args.dataset)
    data = place_of(dataset, args.data, trained["data"])
    source = open_source(dataset, data, trained["limit"], trained["holdout"])
    if checkpoint.mean is not None:
        source.normalize_by(checkpoint.mean)
    if args.submission and dataset != "tiny_imagenet":
        raise InputError(f"--submission is of Tiny ImageNet, and {checkpoint.path} a network for {dataset}")
    if args.tta and not source.mirrors:
        raise InputError(f"{data} are not what they show once they are mirrored; leave --tta flip out")
    batch_size = args.batch_size or trained["batch_size"]
    batches = (source.test_batches if args.split == "test" else source.val_batches)(batch_size, workers=2)
    check_images(checkpoint, batches, args.split)
    depends = args.split == "val" or (checkpoint.mean is None and source.normalizes_choice)
    if source.is_choice and depends and source.digest() != run.get("data"):
        raise InputError(
            "the images are not those that the network was trained on, or in another order, so that --limit and "
            "--holdout choose other ones; name the data of its training with --data"
        )
    return batches, data, args.split == "val" and trained["holdout"] is not None


def check_images(checkpoint, batches, split: str) -> None:
    """Raise `InputError` if `checkpoint` is of a network for other images or classes than those of `batches`."""
    shown = "images of {height}x{width}x{depth} and {classes} classes".format
    found = dict(zip(("height", "width", "depth"), batches.image_shape, strict=True)) | {"classes": batches.classes}
    if not found.items() <= checkpoint.network.items():
        held = f"the {split} split holds {shown(**found)}"
        raise InputError(f"{checkpoint.path} is a network for {shown(**checkpoint.network)}; {held}")
    if checkpoint.history["run"].get("classes", list(batches.class_names)) != list(batches.class_names):
        raise InputError(f"{checkpoint.path} was trained on other classes than the {split} split holds")


def show_ranks(scores, labels, how: str = "") -> dict[str, float]:
    """Print rank-1 and rank-5 accuracy, and `how` they were measured, and return them by name."""
    from pipeline.utils.ranked import rank5_accuracy

    ranks = dict(zip(("rank-1", "rank-5"), rank5_accuracy(scores, labels), strict=True))
    for name, value in ranks.items():
        print(f"{name}{how}: {100 * value:.2f}%")
    return ranks


def predict_unlabelled(model, paths: list[str], batches) -> list[str]:
    """File name and WordNet id of the class predicted, for each image at `paths`, prepared as `batches` are."""
    from pipeline.io.imagereader import ImageReader

    predicted, shape = [], batches.image_shape[:2]
    with ImageReader(shape) as reader, console.progress("predicting", len(paths), "images") as advance:
        for images in reader.read(paths):
            predicted += model.predict_on_batch(batches.preprocess(images)).argmax(axis=1).tolist()
            advance(len(images))
    names = batches.images.label_names
    return [f"{Path(path).name} {names[label]}" for path, label in zip(paths, predicted, strict=True)]


if __name__ == "__main__":
    command.run(main, tidy=True)
