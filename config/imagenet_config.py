"""ImageNet (ILSVRC 2012): paths, official archives, network, recipes, and both ways of training."""

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

# Images keep their sizes on disk: training takes random crops of them, evaluation their central square.
IMAGE_SIZES = "any size"

# The input of the network, and its stem.
IMAGES = {"height": 224, "width": 224, "depth": 3, "dataset": "imagenet"}

# Classes of the full data set. The scripts count the classes in the data.
CLASSES = 1000

# ResNet-50: four stages of bottleneck modules.
NETWORK = {"stages": (3, 4, 6, 3), "filters": (64, 256, 512, 1024, 2048)}

# The size of its images, and how they are evaluated: the shorter side at 256 pixels, then the central square of 224.
VIEW = {"image_size": IMAGES["height"], "eval_ratio": 0.875}

# The recipe that GluonCV published for the same network, ResNet50_v2: 77.11 % rank-1 after 120 epochs. Its weight decay
# of 1e-4 is twice the L2 coefficient. Values that a recipe doesn't name are off; see --help.
PUBLISHED = {
    "schedule": "cosine",
    "warmup_epochs": 5,
    "nesterov": True,
    "reg": 5e-5,
    "crop_area": 0.08,
    "crop_ratio": 4 / 3,
    "color_jitter": 0.4,
    "flip": "random",
}

# The same network with later techniques; see docs/imagenet.md.
MODERN = PUBLISHED | {"label_smoothing": 0.1, "ema": 0.9999}

RECIPES = {"published": PUBLISHED, "modern": MODERN}

# Learning rate by hand: 0.1 up to epoch 30, 0.01 up to 60, 0.001 up to 80, 0.0001 up to 90 (Goyal et al.,
# arXiv:1706.02677, with batches of 256 images).
BY_HAND = NETWORK | VIEW | {"epochs": 90, "batch_size": 256, "lr": 0.1, "momentum": 0.9, "schedule": "constant"}

# Decay from 0.1 to 0. GluonCV: batches of 1024 images on 8 devices, at a rate of 0.4.
DECAY = NETWORK | VIEW | {"epochs": 120, "batch_size": 256, "lr": 0.1, "momentum": 0.9}

CHECKPOINTS = "output/train_imagenet/checkpoints"
MODEL = "output/resnet50_imagenet.hdf5"


def files(data: str | None = None) -> dict[str, Path]:
    """Return the paths of the built files, by the names "shards", a folder, and "mean"."""
    found = paths(data)
    return {"shards": found.built, "mean": found.mean}


def paths(data: str | None = None, output: str | None = None) -> SimpleNamespace:
    """Return the paths of the data set's `root` folder, its parts, the folder of `built` files, and the `mean` there.

    Args:
        data: the flag --data: the data set as distributed, or a folder that holds the built files.
        output: another folder for the built files.
    """
    root = Path(data or DATA)
    is_built = (root / MEAN).exists() or any(root.glob("*-of-*.hdf5"))
    built = Path(output) if output else root if is_built else root / BUILT
    return SimpleNamespace(
        root=root,
        **{name: root / part for name, part in PARTS.items()},
        **{name: [root / part for part in parts] for name, parts in FOLDERS.items()},
        default_words=WORDS,
        built=built,
        mean=built / MEAN,
    )
