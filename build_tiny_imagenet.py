"""Build Tiny ImageNet's training, validation and test set as HDF5 files, and the training set's mean colour.

    python build_tiny_imagenet.py --download
    python build_tiny_imagenet.py --data datasets/tiny-imagenet-200 --overwrite
    python build_tiny_imagenet.py --data /mnt/tiny-imagenet-200 --output datasets/tiny-imagenet

Reads the data set as it is distributed and writes train.hdf5, val.hdf5, test.hdf5 and mean.json into its folder hdf5/,
or into --output, which the other scripts then take as --data. 50 training images of each class become the test set; the
official validation set stays what it is.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # which python -P and PYTHONSAFEPATH leave out

from config import tiny_imagenet_config as config
from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__)
    arguments.add_data(parser, config)
    place = f"folder to write to (default: {config.BUILT}/ in the data set's folder)"
    parser.add("output", flags.path, "DIR", place, short="o")
    parser.add("download", None, None, "fetch the official archive (248 MB) first", action="store_true")
    parser.add("overwrite", None, None, "replace the files of an earlier build", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from pipeline.data import tinyimagenetfiles
    from pipeline.io.imagereader import ImageReader

    places = config.places(args.data, args.output)
    outputs = [places.train_hdf5, places.val_hdf5, places.test_hdf5, places.mean]
    tinyimagenetfiles.check_outputs(outputs, args.overwrite)
    if not args.download and not places.root.is_dir():
        raise InputError(f"folder {places.root} is missing; --download fetches it, --data names another")
    if args.download:
        if places.root.exists():
            raise InputError(f"{places.root} exists already; leave --download out, or name another folder with --data")
        with console.progress("downloading", config.ARCHIVE["size"] / 1e6, "MB") as advance:
            tinyimagenetfiles.download(places.root, **config.ARCHIVE, advance=lambda count: advance(count / 1e6))
        print(f"downloaded: {places.root}")

    # Its processes start while the rest loads and the paths are listed.
    with ImageReader((config.IMAGES["height"], config.IMAGES["width"])) as reader:
        from pipeline.data.tinyimagenetbuild import build

        mean = build(
            places,
            reader,
            test_images=config.TEST_IMAGES_PER_CLASS,
            seed=config.SPLIT_SEED,
            overwrite=args.overwrite,
            progress=console.progress,
        )
    print("mean: " + ", ".join(f"{channel} {value:.2f}" for channel, value in mean.items()))
    for path in outputs:
        print(f"written: {path}")


if __name__ == "__main__":
    command.run(main, tidy=True)
