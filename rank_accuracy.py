"""Measure rank-1 and rank-5 accuracy of a trained model on Tiny ImageNet.

    python rank_accuracy.py
    python rank_accuracy.py --model output/checkpoints/epoch_70.hdf5 --split val
    python rank_accuracy.py --submission output/submission.txt

Every image of the split is scored. Published, on the test set: 57.27 % rank-1 and 81.34 % rank-5 with the learning rate
set by hand, 57.93 % and 81.03 % with a decay.
"""

import json
from pathlib import Path

from config import tiny_imagenet_config as config
from pipeline import arguments, command, console
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        help=f"trained model or checkpoint (default: {config.MODEL}, else the newest checkpoint)",
    )
    arguments.add_tiny_imagenet(parser, config.DATA, config.DATA_VARIABLE)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="images to score (default: test)")
    parser.add_argument(
        "--batch_size", type=arguments.count, metavar="N", default=64, help="images a step (default: 64)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE too")
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="write the class predicted for each unlabelled test image to FILE, in the challenge's format",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with console.quiet_start():
        from pipeline.io import read_checkpoint
        from pipeline.io.atomic import make_folder, write_atomically
        from pipeline.io.checkpointfolder import newest_model
        from pipeline.io.images import list_images
        from pipeline.io.tinyimagenet import mean_batches
        from pipeline.utils.ranked import rank5_accuracy

    model_file = Path(config.MODEL)
    checkpoint = read_checkpoint(
        args.model or newest_model(model_file, Path(config.CHECKPOINTS), model_file.with_suffix(""))
    )
    places = config.places(args.data)
    split = {"test": places.test_hdf5, "val": places.val_hdf5}[args.split]
    batches = mean_batches(split, places.mean, batch_size=args.batch_size, workers=2)
    expected = config.IMAGES | {"classes": batches.classes}
    if batches.image_shape != (expected["height"], expected["width"], expected["depth"]):
        raise InputError(f"{split} holds images of shape {batches.image_shape}; expected {expected}")
    if not expected.items() <= checkpoint.network.items():
        raise InputError(f"{checkpoint.path} is a network for other images than {expected}, which {split} holds")
    if checkpoint.history["run"].get("classes", list(batches.class_names)) != list(batches.class_names):
        raise InputError(f"{checkpoint.path} was trained on other classes than {split} holds")
    for output in filter(None, (args.json, args.submission)):
        if output.is_dir():
            raise InputError(f"{output} is a folder; name a file")
        make_folder(output.parent)
    unlabelled = list_images(places.unlabelled_images) if args.submission else []
    model = checkpoint.build_model()

    print(f"model: {checkpoint.path}")
    rank_1, rank_5 = rank5_accuracy(model.predict(batches.for_keras(), verbose=0), batches.labels)
    print(f"images: {batches.num_images}")
    print(f"rank-1: {100 * rank_1:.2f}%")
    print(f"rank-5: {100 * rank_5:.2f}%")
    if args.json:
        result = {"model": str(checkpoint.path), "split": args.split, "images": batches.num_images}
        result |= {"rank-1": rank_1, "rank-5": rank_5}
        write_atomically(args.json, (json.dumps(result, indent=1) + "\n").encode())
        print(f"written: {args.json}")
    if args.submission:
        lines = predict_unlabelled(model, unlabelled, batches)
        write_atomically(args.submission, "".join(f"{line}\n" for line in lines).encode())
        print(f"written: {args.submission}, {len(lines):,} predictions")


def predict_unlabelled(model, paths: list[str], batches) -> list[str]:
    """File name and WordNet id of the class predicted, for each image at `paths`, prepared as `batches` are."""
    from pipeline.io.imagereader import ImageReader

    lines = []
    shape = (config.IMAGES["height"], config.IMAGES["width"])
    with ImageReader(shape) as reader, console.progress("predicting", len(paths), "images") as advance:
        for images in reader.read(paths):
            scores = model.predict_on_batch(batches.preprocess(images))
            names = [Path(path).name for path in paths[len(lines) : len(lines) + len(images)]]
            lines += [f"{name} {batches.label_names[c]}" for name, c in zip(names, scores.argmax(axis=1), strict=True)]
            advance(len(images))
    return lines


if __name__ == "__main__":
    command.run(main, tidy=True)
