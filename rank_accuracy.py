"""Measure the rank-1 and rank-5 accuracy of a trained model on the test set.

    python rank_accuracy.py
    python rank_accuracy.py --model output/train/checkpoints/epoch_70.hdf5 --split val
    python rank_accuracy.py --model output/resnet_cifar10.hdf5 --tta flip --report output/report
    python rank_accuracy.py --model output/resnet50_imagenet.hdf5
    python rank_accuracy.py --submission output/submission.txt

Scores every image of the test or validation set of the model's data set. Published, on Tiny ImageNet's test set:
57.27 % rank-1 and 81.34 % rank-5 with the learning rate set by hand, 57.93 % and 81.03 % with decay. On CIFAR-10's test
set: 93.79 % rank-1. ImageNet's figures are those of its 50,000 validation images, because the test labels are secret.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import imagenet_config, tiny_imagenet_config
from pipeline.cli import arguments, command, console, flags
from pipeline.cli.datasets import DATASETS


def parse_arguments() -> Namespace:
    tiny, file = tiny_imagenet_config, flags.file_path
    parser = arguments.Parser(__doc__)
    model = f"trained model or checkpoint (default: {tiny.MODEL}, else the newest checkpoint)"
    parser.add("model", file, "FILE", model, short="m")
    parser.add("dataset", None, None, "data set (default: the model's)", choices=DATASETS)
    variables = f"${tiny.DATA_VARIABLE} or ${imagenet_config.DATA_VARIABLE} if set"
    parser.add(
        "data", flags.path, "PATH", f"images, as in training (default: the data set's {variables}, else the model's)"
    )
    split = "score the test set, or the images that training validated on (default: test; ImageNet: all of val)"
    parser.add("split", None, None, split, choices=("test", "val"))
    parser.add("image_size", flags.image_size, "N", "size of ImageNet's images (default: the model's)")
    ratio = "resize ImageNet's images to N / R on the shorter side (default: the model's)"
    parser.add("eval_ratio", flags.view_ratio, "R", ratio)
    tta = "also measure with scores averaged over each image and its mirror image"
    parser.add("tta", None, None, tta, choices=("flip",))
    parser.add("batch_size", flags.count, "N", "images per batch (default: the training batch size)")
    parser.add("json", file, "FILE", "also write the result to FILE, as JSON")
    parser.add("report", file, "DIR", "also write a report to DIR: by class, confusions, worst mistakes, calibration")
    unlabelled = "write the predicted class of each unlabelled Tiny ImageNet image to FILE, as the challenge expects"
    parser.add("submission", file, "FILE", unlabelled)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        from pipeline.checkpoints import read_checkpoint
        from pipeline.checkpoints.folder import newest_model
        from pipeline.cli.scoring import check_outputs, open_images, predict, predict_unlabelled, report
        from pipeline.files.atomic import write_atomically
        from pipeline.io.images import list_images

    model_file = Path(tiny_imagenet_config.MODEL)
    folders = Path(tiny_imagenet_config.CHECKPOINTS), model_file.with_suffix("")
    checkpoint = read_checkpoint(args.model or newest_model(model_file, *folders))
    images = open_images(checkpoint, args)
    batches = images.batches
    check_outputs(args)
    unlabelled = list_images(tiny_imagenet_config.paths(images.data).unlabelled_images)[0] if args.submission else []
    model = checkpoint.build_model(args.image_size)

    print(f"model: {checkpoint.path}")
    print(f"split: {images.split}{' (held-out training images)' if images.held_out else ''}")
    if checkpoint.averages:
        print("weights: averaged")
    print(f"images: {batches.num_images}")
    if images.view:
        size, ratio = images.view["image_size"], images.view["eval_ratio"]
        print(f"view: the central {size}x{size} pixels of a shorter side of {round(size / ratio)}")
    result = {"model": str(checkpoint.path), "split": images.split, "images": batches.num_images} | images.view
    predictions, ranks_by_mean = predict(model, images)
    result |= {"held out": images.held_out, "averaged": bool(checkpoint.averages)} | show_ranks(predictions.ranks)
    if args.tta:
        result["tta flip"] = show_ranks(ranks_by_mean, ", mean of image and mirror image")
    if args.json:
        write_atomically(args.json, (json.dumps(result, indent=1) + "\n").encode())
        print(f"written: {args.json}")
    if args.report:
        report(args.report, predictions, images, result)
        print(f"written: {args.report / 'index.html'}")
    if args.submission:
        lines = predict_unlabelled(model, unlabelled, batches)
        write_atomically(args.submission, "".join(f"{line}\n" for line in lines).encode())
        print(f"written: {args.submission}, {len(lines):,} predictions")


def show_ranks(ranks, how: str = "") -> dict[str, float]:
    """Print rank-1 and rank-5 accuracy in percent, labelled with `how` they were measured; return them as fractions."""
    from pipeline.utils.ranked import within

    accuracies = {f"rank-{k}": within(ranks, k) for k in (1, 5)}
    for name, value in accuracies.items():
        print(f"{name}{how}: {100 * value:.2f}%")
    return accuracies


if __name__ == "__main__":
    command.run(main, tidy=True)
