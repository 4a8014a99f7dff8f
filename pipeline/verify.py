"""Check that files are complete, undamaged, and in a format of this project, before you use them.

    python -m pipeline.verify output/resnet_cifar10/checkpoints datasets/tiny-imagenet-200
    python -m pipeline.verify --json output/resnet_cifar10.hdf5 output/resnet_cifar10.json

Run it in the project's folder, or set PYTHONPATH to that folder. Takes checkpoints, data files, shards, CIFAR-10
archives, histories and images, and folders of these. Reads all images of a data file or shard and checks their digest,
and in a shard the checksum and size of each; decodes all image files; builds no network. Exit code 0 if every file is
sound, 1 if one is not, 2 for a usage error.
"""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.cli import arguments, command, console, flags
from pipeline.errors import InputError
from pipeline.utils.text import printable

_HDF5_SUFFIXES = {".hdf5", ".hdf", ".h5"}
_ARCHIVE_SUFFIXES = {".gz", ".tgz", ".tar"}


@dataclass(frozen=True)
class Finding:
    """The result for a file, or for the images of a folder; `about` describes it, or the problem."""

    path: str
    kind: str
    sound: bool
    about: str


def parse_arguments():
    parser = arguments.Parser(__doc__, prog="python -m pipeline.verify")
    parser.add_argument("paths", nargs="+", type=flags.file_path, metavar="PATH", help="file or folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    for path in args.paths:
        if not path.exists():
            raise InputError(f"{path} doesn't exist; name a checkpoint, data file, history, image or folder")
    sound = True
    for path in args.paths:
        for finding in findings(path):
            sound &= finding.sound
            print(json.dumps(asdict(finding)) if args.json else _line(finding), flush=True)
    if not sound:
        sys.exit(1)


def findings(path: Path) -> Iterator[Finding]:
    """Check the file or folder `path`; yield a finding for each file, and one for all images of a folder.

    Raises:
        InputError: the folder holds nothing to check.
    """
    from pipeline.io.images import list_files, list_folder

    listing = list_folder(path) if path.is_dir() else list_files([str(path)])
    others = [Path(file) for file in listing.others]
    if path.is_dir():
        others = [file for file in others if _is_to_check(file)]
        if not (listing.images or listing.unreadable or others):
            raise InputError(f"folder {path} holds no checkpoint, data file, history or image")
    unsound = set()
    for file in sorted(others):
        for finding in check_file(file):
            yield finding
            if not finding.sound:
                unsound.add(file)
    if path.is_dir():
        for folder in sorted({file.parent for file in others}):
            yield from check_shard_sets(folder, unsound)
    for file, wrong in listing.unreadable.items():
        yield Finding(file, "image", False, wrong)
    if listing.images:
        yield from check_folder_images(path, listing.images)


def check_file(path: Path) -> Iterator[Finding]:
    """Check the file `path`, which is not an image; yield a finding, and one for each damaged image in a shard."""
    from pipeline.checkpoints.checkpoint import CHECKPOINT
    from pipeline.files.regular import open_regular
    from pipeline.files.sealed import read_seal
    from pipeline.io.hdf5dataset import DATA
    from pipeline.io.shards import SHARD

    checks = {
        "checkpoint": _checkpoint, "data file": _data_file, "mean": _mean, "history": _history, "archive": _archive
    }  # fmt: skip
    if path.suffix.lower() == ".json":
        kind = "mean" if path.name == "mean.json" else "history"
    elif path.suffix.lower() in _ARCHIVE_SUFFIXES:
        kind = "archive"
    else:
        kind = next((kind.name for kind in (CHECKPOINT, DATA, SHARD) if read_seal(path, kind)), None)
    try:
        os.close(open_regular(path))
        if kind is None:
            raise InputError(f"{path} is not a file of this project, or its first bytes are damaged")
        if kind == SHARD.name:
            yield from _shard(path)
        else:
            yield Finding(str(path), kind, True, checks[kind](path))
    except InputError as error:
        yield Finding(str(path), kind or "unknown", False, arguments.with_flags(str(error)))
    except OSError as error:
        yield Finding(str(path), "unknown", False, f"can't read {path}: {error.strerror or error}")


def check_shard_sets(folder: Path, unsound: Container[Path] = ()) -> Iterator[Finding]:
    """Check that the shards in `folder` are complete and belong together, and that the mean is theirs.

    Yields a finding for each split. `unsound` are files that are known to be damaged.
    """
    from pipeline.io.shards import Shards, find_shards

    found = find_shards(folder)
    for split in sorted({match["split"] for match in found.values()}):
        damaged = sum(path in unsound for path, match in found.items() if match["split"] == split)
        try:
            if damaged:
                raise InputError(f"folder {folder} holds {damaged} damaged {split} shards; see above")
            shards = Shards(folder, split)
            if split == "train":
                _check_mean(folder / "mean.json", shards)
        except InputError as error:
            yield Finding(str(folder), "shards", False, str(error))
            continue
        about = (
            f"{len(shards):,} {split} images of {len(shards.label_names):,} classes, shards: {len(shards.shards)}, "
            f"digest {shards.digest()}"
        )
        shards.close()
        yield Finding(str(folder), "shards", True, about)


def _check_mean(path: Path, shards) -> None:
    """Raise `InputError` unless the file `path` holds the mean and deviation of the training `shards`."""
    from pipeline.data.textfiles import CHANNELS, read_mean
    from pipeline.io.shards import mean_and_deviation

    if not path.exists():
        raise InputError(f"folder {path.parent} holds training shards, but no {path.name}; run the build again")
    stored = read_mean(path)
    expected = mean_and_deviation(shard.sums for shard in shards.shards)
    for values, numbers in zip(stored, expected, strict=True):
        for channel, number in zip(CHANNELS, numbers, strict=True):
            value = None if values is None else values[channel]
            if value is None or abs(value - number) > 1e-6:
                found = f"{channel} {value}; expected {number:.6f}"
                raise InputError(f"{path} holds {found}, that of the shards beside it; run the build again")


def check_folder_images(root: Path, paths: list[str]) -> Iterator[Finding]:
    """Decode all images at `paths`; yield a finding for each broken one, and the totals."""
    from pipeline.io.imagereader import check_images

    shapes, broken = Counter(), 0
    with console.progress(str(root), len(paths), "images") as advance:
        for path, result in zip(paths, check_images(paths), strict=True):
            if isinstance(result, str):
                broken += 1
                yield Finding(path, "image", False, result)
            else:
                shapes[f"{result[1]}x{result[0]}"] += 1
            advance(1)
    sizes = ", ".join(f"{count:,} of {size}" for size, count in shapes.most_common(3))
    more = ", ..." if len(shapes) > 3 else ""
    if shapes:
        total = f"{shapes.total():,} image{'s' if shapes.total() > 1 else ''}"
        yield Finding(str(root), "images", True, f"{total}, all complete: {sizes}{more}")
    if broken:
        yield Finding(str(root), "images", False, f"{broken:,} of {len(paths):,} images are not sound")


def _checkpoint(path: Path) -> str:
    from pipeline.checkpoints.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path, arrays=False)
    script = checkpoint.history["run"].get("script", "no script")
    batch = f", batch {checkpoint.batch}" if checkpoint.batch else ""
    weights_only = ", weights only" if checkpoint.optimizer is None else ""
    return f"epoch {checkpoint.epoch}{batch} of {script}, {checkpoint.network['classes']} classes{weights_only}"


def _data_file(path: Path) -> str:
    from pipeline.io import HDF5Images

    images = HDF5Images(path, classes=1 << 16)
    with console.progress(path.name, math.prod(images.shape) / 1e6, "MB") as advance:
        images.check_images(lambda count: advance(count / 1e6))
    images.close()
    count, height, width, channels = images.shape
    return f"{count:,} images of {width}x{height}x{channels}, {len(images.label_names)} classes"


def _shard(path: Path) -> Iterator[Finding]:
    from pipeline.io.shards import Shard

    shard, sound = Shard(path), True
    with console.progress(path.name, shard.lengths.sum() / 1e6, "MB") as advance:
        for wrong in shard.check(lambda count: advance(count / 1e6)):
            sound = False
            yield Finding(str(path), "shard", False, wrong)
    shard.close()
    if sound:
        about = f"{len(shard):,} of {shard.total:,} images of {len(shard.label_names):,} classes"
        yield Finding(str(path), "shard", True, about)


def _history(path: Path) -> str:
    from pipeline.checkpoints.history import epochs_of, read_history

    history = read_history(path)
    return f"{epochs_of(history)} epochs of {history['run'].get('script', 'no script')}"


def _archive(path: Path) -> str:
    from pipeline.data import CIFAR10

    source = CIFAR10(str(path))
    counts = " and ".join(f"{len(source.whole(split)):,}" for split in ("train", "test"))
    return f"{source.name}, {counts} images of {'x'.join(map(str, source.image_shape))}, digest {source.digest()}"


def _mean(path: Path) -> str:
    from pipeline.data.textfiles import read_mean

    mean, deviation = read_mean(path)
    parts = [mean] if deviation is None else [mean, deviation]
    return "; deviation ".join(", ".join(f"{channel} {value:.2f}" for channel, value in part.items()) for part in parts)


def _is_to_check(path: Path) -> bool:
    """Return whether `path`, found in a folder, has a format of this project, or is JSON that can't be read."""
    from pipeline.checkpoints.history import CURVES
    from pipeline.files.strictjson import read_json

    if path.suffix.lower() != ".json" or path.name == "mean.json":
        is_archive = path.suffix.lower() in _ARCHIVE_SUFFIXES and path.name.startswith("cifar-10-")
        return is_archive or path.name == "mean.json" or path.suffix.lower() in _HDF5_SUFFIXES
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return True
    return isinstance(content, dict) and not content.keys().isdisjoint({*CURVES, "run"})


def _line(finding: Finding) -> str:
    if finding.sound:
        return printable(f"sound: {finding.path}: {finding.kind}, {finding.about}")
    return printable(f"NOT SOUND: {finding.about}")


if __name__ == "__main__":
    command.run(main, tidy=True)  # a progress bar hides the cursor
