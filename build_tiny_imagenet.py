"""Convert Tiny ImageNet to HDF5 files for training, validation and test, and compute the mean training colour.

    python build_tiny_imagenet.py --download
    python build_tiny_imagenet.py --data datasets/tiny-imagenet-200 --overwrite
    python build_tiny_imagenet.py --data /mnt/tiny-imagenet-200 --output datasets/tiny-imagenet

Reads the data set as distributed and writes train.hdf5, val.hdf5, test.hdf5 and mean.json to its subfolder hdf5/, or to
--output, which the other scripts then take as --data. 50 training images of each class become the test set; the
official validation set stays as it is.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import tiny_imagenet_config as config
from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__)
    arguments.add_data(parser, config)
    output = f"output folder (default: {config.BUILT}/ in the data set's folder)"
    parser.add("output", flags.path, "DIR", output, short="o")
    parser.add("download", None, None, "download the official archive (248 MB) first", action="store_true")
    parser.add("overwrite", None, None, "replace the files of an earlier build", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    from pipeline.data import tinyimagenetfiles
    from pipeline.io.imagereader import ImageReader

    paths = config.paths(args.data, args.output)
    outputs = [paths.train_hdf5, paths.val_hdf5, paths.test_hdf5, paths.mean]
    tinyimagenetfiles.check_outputs(outputs, args.overwrite)
    if not args.download and not paths.root.is_dir():
        raise InputError(f"folder {paths.root} is missing; get it with --download, or name another folder with --data")
    if args.download:
        if paths.root.exists():
            raise InputError(f"{paths.root} already exists; omit --download, or name another folder with --data")
        with console.progress("downloading", config.ARCHIVE["size"] / 1e6, "MB") as advance:
            tinyimagenetfiles.download(paths.root, **config.ARCHIVE, advance=lambda count: advance(count / 1e6))
        print(f"downloaded: {paths.root}")

    # Start the decoding processes first: they load while this process lists the images.
    with ImageReader((config.IMAGES["height"], config.IMAGES["width"])) as reader:
        from pipeline.data.tinyimagenetbuild import build

        mean = build(
            paths,
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
