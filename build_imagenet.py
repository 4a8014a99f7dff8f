"""Convert ImageNet (ILSVRC 2012) to sealed shards of its JPEG files, and compute the mean training colour.

    python build_imagenet.py --data datasets/imagenet
    python build_imagenet.py --data datasets/imagenet --shorter_side 256
    python build_imagenet.py --data /mnt/imagenet --output datasets/imagenet --check_md5

--data names the folder that holds the official archives ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or the
folders train/<WordNet id>/ and val/, or Kaggle's folder ILSVRC/. They are read in place, and each image is decoded once
to check it. Writes shards, such as train-000-of-128.hdf5, and mean.json to the subfolder hdf5/, or to --output. If the
build is stopped, the same command goes on with the shards that are missing.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # python -P and PYTHONSAFEPATH leave it out

from config import imagenet_config as config
from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError


def parse_arguments():
    parser = arguments.Parser(__doc__)
    arguments.add_data(parser, config)
    output = f"output folder (default: {config.BUILT}/ in the data set's folder)"
    parser.add("output", flags.path, "DIR", output, short="o")
    smaller = (
        "store copies whose shorter side has at most N pixels (JPEG, quality 90, 4:2:0); default: the files as they are"
    )
    parser.add("shorter_side", flags.count, "N", smaller)
    shards = f"files for each of train and val, 1 to 256 (default: {config.SHARDS})"
    parser.add("shards", flags.shards, "N", shards, default=config.SHARDS)
    parser.add("check_md5", None, None, "first compare the archives with the official MD5 digests", action="store_true")
    warnings = "take images that the JPEG decoder warns about, and name each; default: refuse them"
    parser.add("accept_warnings", None, None, warnings, action="store_true")
    parser.add("overwrite", None, None, "remove an earlier build first", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    paths = config.paths(args.data, args.output)
    if not paths.root.is_dir():
        raise InputError(f"folder {paths.root} is missing; name the folder of ImageNet with --data")
    from pipeline.data.imagenet.build import build

    mean = build(
        paths,
        shards=args.shards,
        shorter_side=args.shorter_side,
        accept_warnings=args.accept_warnings,
        overwrite=args.overwrite,
        progress=console.progress,
        md5={getattr(paths, name): digest for name, digest in config.MD5.items()} if args.check_md5 else None,
    )
    print("mean: " + ", ".join(f"{channel} {value:.2f}" for channel, value in mean.items()))
    print(f"written: {paths.built}")


if __name__ == "__main__":
    command.run(main, tidy=True)
