"""Convert a checkpoint to the current format, or extract its weights.

    python -m pipeline.upgrade output/resnet_cifar10/checkpoints/epoch_40.hdf5 epoch_40.hdf5
    python -m pipeline.upgrade --weights_only output/resnet_cifar10.hdf5 resnet_cifar10_weights.hdf5

A file of format 2 holds everything needed to classify an image. Format 1 lacks the mean that is subtracted from images;
it is recomputed from the training images. Training resumes exactly from both. --weights_only at least halves the size;
training can't resume from such a file, which names no folder of the machine that it was trained on. If the run averaged
weights, the file holds the averages.
"""

from dataclasses import fields, replace

from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__, prog="python -m pipeline.upgrade")
    parser.add_argument("old", type=flags.file_path, metavar="OLD", help="a trained model or a checkpoint")
    parser.add_argument("new", type=flags.model_file, metavar="NEW", help="the file to write")
    parser.add("data", flags.path, "PATH", "training images, needed for format 1 (default: the checkpoint's path)")
    parser.add("weights_only", None, None, "omit everything that only training needs", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.new.exists():
        raise InputError(f"{args.new} already exists; name another file")
    with console.quiet_start():
        from pipeline.checkpoints import Content, read_checkpoint, save_checkpoint
        from pipeline.checkpoints.history import lineage
        from pipeline.checkpoints.state import FORMAT, State
        from pipeline.cli.datasets import dataset_of
        from pipeline.files.atomic import check_folder, make_folder

    checkpoint = read_checkpoint(args.old)
    if checkpoint.format == FORMAT and not args.weights_only:
        raise InputError(f"{args.old} already has format {FORMAT}; add --weights_only to extract its weights")
    check_folder(args.new.parent)
    normalization = checkpoint.arrays.get("run/normalization")
    if normalization is None:
        normalization = mean_of_training(checkpoint, args.data)
    if "dataset" not in checkpoint.history["run"]:
        checkpoint.history["run"]["dataset"] = dataset_of(checkpoint)
    arrays = dict(checkpoint.arrays) | {"run/normalization": normalization}
    state = State(**{field.name: getattr(checkpoint, field.name) for field in fields(State)})
    state = replace(state, normalization=normalization.shape)
    if args.weights_only:
        if checkpoint.batch:
            raise InputError(f"{args.old} is inside epoch {checkpoint.epoch + 1}; name one from the end of an epoch")
        kept = ("model_weights/", "run/normalization")
        arrays = {name: values for name, values in arrays.items() if name.startswith(kept)}
        state = replace(state, averaged=False, optimizer=None, metrics=[], callbacks={}, options={})
        forget_images(checkpoint.history["run"])
    changeable = flags.changeable(checkpoint.history["run"].get("arguments", {}))
    mark = lineage(checkpoint.history, changeable)
    make_folder(args.new.parent)
    save_checkpoint(args.new, Content.of(checkpoint.build_model(), state, arrays, mark))
    read_checkpoint(args.new)
    print(f"written: {args.new}, format {FORMAT}{', weights only' if args.weights_only else ''}")


def forget_images(run: dict) -> None:
    """Remove the path of the images from the record of a `run`: elsewhere they are at their default path."""
    from pipeline.data.cifar10 import DIGITS

    if run.get("arguments", {}).get("data") not in (None, DIGITS):
        run["arguments"]["data"] = None


def mean_of_training(checkpoint, data: str | None):
    """Return the float32 mean to subtract, from the training images of `checkpoint` at `data`, else at its own path.

    Raises:
        InputError: the images can't be read, or are not the ones that it was trained on.
    """
    from pipeline.cli.datasets import dataset_of, open_source, path_of

    dataset, run = dataset_of(checkpoint), checkpoint.history["run"]
    saved = run.get("arguments", {})
    path = path_of(dataset, data, flags.saved_values(saved, ["data"]).get("data"))
    source = open_source(dataset, path, saved)
    if source.digest() != run.get("data"):
        raise InputError(
            f"{path or dataset} is not the data that {checkpoint.path} was trained on; name it with --data"
        )
    return source.normalization.parameters


if __name__ == "__main__":
    command.run(main, tidy=True)
