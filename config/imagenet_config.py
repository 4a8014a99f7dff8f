"""ImageNet (ILSVRC 2012): paths and official archives."""

from pathlib import Path
from types import SimpleNamespace

# The folder of the data set, unless --data or the environment variable names another.
DATA = "datasets/imagenet"
DATA_VARIABLE = "IMAGENET_DIR"
DATA_HELP = f"folder that holds ImageNet (default: ${DATA_VARIABLE} if set, else {DATA})"

# Places in the data set as distributed; of several, the first that exists.
PARTS = {
    "train_tar": "ILSVRC2012_img_train.tar",
    "val_tar": "ILSVRC2012_img_val.tar",
    "devkit": "ILSVRC2012_devkit_t12.tar.gz",
    "val_labels": "val_labels.txt",
    "kaggle_labels": "LOC_val_solution.csv",
    "words": "LOC_synset_mapping.txt",
}
FOLDERS = {
    "train_folders": ("train", "ILSVRC/Data/CLS-LOC/train"),
    "val_folders": ("val", "ILSVRC/Data/CLS-LOC/val"),
}

# MD5 digests of the official archives.
MD5 = {
    "train_tar": "1d675b47d978889d74fa0da5fadfb00e",
    "val_tar": "29b22e2961454d5413ddabcf34fc5622",
    "devkit": "fa75699e90414af021442c21a62c3abf",
}

# Readable names of the 1,000 classes: the words of their WordNet 3.0 synsets (Princeton University).
WORDS = Path(__file__).with_name("imagenet_words.txt")

# Subfolder of the built files, unless the build's --output names another folder.
BUILT = "hdf5"
MEAN = "mean.json"

# Shards of each split: 1.1 GB each of the original training images.
SHARDS = 128


def paths(data: str | None = None, output: str | None = None) -> SimpleNamespace:
    """Return the paths of the data set's `root` folder, its parts, the folder of `built` files, and the `mean` there.

    Args:
        data: the flag --data: the data set as distributed, or a folder that holds the built files.
        output: another folder for the built files.
    """
    root = Path(data or DATA)
    built = Path(output) if output else root if (root / MEAN).exists() else root / BUILT
    return SimpleNamespace(
        root=root,
        **{name: root / part for name, part in PARTS.items()},
        **{name: [root / part for part in parts] for name, parts in FOLDERS.items()},
        default_words=WORDS,
        built=built,
        mean=built / MEAN,
    )
