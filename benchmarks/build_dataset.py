"""Measure the builds of Tiny ImageNet's and ImageNet's HDF5 files, and compare each with a minimal loop.

    python benchmarks/build_dataset.py [--data DIR] [--per_class 2000] [--repeats 3]
    python benchmarks/build_dataset.py --imagenet DIR [--repeats 3]

The peer is a loop of two threads that reads the same files, decodes them, and writes to one file: for Tiny ImageNet the
pixels, for ImageNet the files, or with a shorter side smaller copies. No labels, split, mean, digests or checks. Both
are measured as whole processes. Without --data, random JPEG images of 20 classes are created first; --data names a data
set in the official layout, whose hdf5/ is replaced; --imagenet names a folder with train/<class>/ and val/<class>/.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure  # makes the project importable

from pipeline.cli import arguments, command, flags

BARE_LOOP = """
import sys, cv2, glob
from concurrent.futures import ThreadPoolExecutor
paths = sorted(glob.glob(sys.argv[1] + "/train/*/images/*.JPEG") + glob.glob(sys.argv[1] + "/val/images/*.JPEG"))
cv2.setNumThreads(1)
with ThreadPoolExecutor(2) as pool, open(sys.argv[2], "wb") as file:
    for pixels in pool.map(cv2.imread, paths, chunksize=64):
        file.write(pixels)
"""

BARE_IMAGENET_LOOP = """
import sys, cv2, glob
import numpy as np
from concurrent.futures import ThreadPoolExecutor
paths = sorted(glob.glob(sys.argv[1] + "/train/*/*") + glob.glob(sys.argv[1] + "/val/*/*"))
shorter_side = int(sys.argv[3])
options = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
cv2.setNumThreads(1)
def convert(path):
    with open(path, "rb") as file:
        content = file.read()
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if not shorter_side:
        return content
    height, width = pixels.shape[:2]
    factor = shorter_side / min(height, width)
    if factor < 1:
        size = (round(width * factor), round(height * factor))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels, options)[1]
with ThreadPoolExecutor(2) as pool, open(sys.argv[2], "wb") as file:
    for content in pool.map(convert, paths):
        file.write(content)
"""


def parse_arguments():
    parser = arguments.Parser(__doc__)
    parser.add_argument("--data", type=flags.file_path, metavar="DIR", help="data set (default: random images)")
    parser.add_argument("--imagenet", type=flags.file_path, metavar="DIR", help="measure the build of ImageNet instead")
    parser.add_argument("--per_class", type=flags.count, default=2000, metavar="N", help="images (default: 2000)")
    parser.add_argument("--repeats", type=flags.count, default=3, metavar="N", help="repeats (default: 3)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        if args.imagenet:
            measure_imagenet(args.imagenet, Path(folder), args.repeats)
            return
        data = args.data or make(Path(folder) / "data", args.per_class)
        build = [sys.executable, measure.ROOT / "build_tiny_imagenet.py", "--data", data, "--overwrite"]
        bare = [sys.executable, "-c", BARE_LOOP, data, Path(folder) / "pixels"]
        ways = {"bare loop, two threads": process(bare), "ours": process(build)}
        results = {"build": measure.interleave(ways, args.repeats)}
    measure.show("build of the HDF5 files", results["build"], "s", digits=2, more_is_better=False)
    measure.record("build_dataset", results)


def measure_imagenet(data: Path, folder: Path, repeats: int) -> None:
    """Measure the build of ImageNet with and without a shorter side of 256 pixels."""
    for shorter_side in (0, 256):
        output = folder / f"hdf5-{shorter_side}"
        build = [sys.executable, measure.ROOT / "build_imagenet.py", "--data", data, "--output", output, "--overwrite"]
        build += ["--shorter_side", shorter_side] if shorter_side else []
        bare = [sys.executable, "-c", BARE_IMAGENET_LOOP, data, folder / "files", shorter_side]
        ways = {"bare loop, two threads": process(bare), "ours": process(build)}
        name = f"shorter side {shorter_side}" if shorter_side else "files as they are"
        results = measure.interleave(ways, repeats)
        measure.show(f"build of ImageNet's shards, {name}", results, "s", digits=2, more_is_better=False)
        measure.record("build_imagenet", {name: results})


def make(root: Path, per_class: int) -> Path:
    """Create a data set of 20 classes in the official layout."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    images = [cv2.imencode(".jpg", _random_image(rng))[1].tobytes() for _ in range(100)]
    ids = [f"n{number:08}" for number in range(20)]
    for wordnet_id in ids:
        folder = root / "train" / wordnet_id / "images"
        folder.mkdir(parents=True)
        for number in range(per_class):
            (folder / f"{wordnet_id}_{number}.JPEG").write_bytes(images[number % 100])
    (root / "val" / "images").mkdir(parents=True)
    names = [f"val_{number}.JPEG" for number in range(20 * per_class // 10)]
    for number, name in enumerate(names):
        (root / "val" / "images" / name).write_bytes(images[number % 100])
    lines = [f"{name}\t{ids[number % 20]}\n" for number, name in enumerate(names)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(ids))
    (root / "words.txt").write_text("".join(f"{wordnet_id}\tthing\n" for wordnet_id in ids))
    return root


def process(words: list) -> Callable[[], float]:
    """Return a function that measures the seconds of a process."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run(list(map(str, words)), check=True, capture_output=True)
        return time.perf_counter() - start

    return run


def _random_image(rng):
    """Create an image of smooth colours, which compresses like a photograph."""
    import cv2
    import numpy as np

    return cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)


if __name__ == "__main__":
    command.run(main)
