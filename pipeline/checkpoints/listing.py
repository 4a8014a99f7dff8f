"""List the checkpoints of a folder. Needs no Keras."""

import re
from pathlib import Path

from pipeline.checkpoints.checkpoint import progress_in

NAMES = re.compile(r"epoch_(\d+)(?:_batch_(\d+))?\.hdf5")
"""File names of checkpoints."""


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in `folder`, ordered by the progress recorded in their seals, newest last.

    A file without a readable seal is ordered by its name.
    """
    found = []
    for path in folder.glob("*.hdf5"):
        progress = progress_in(path) or progress_named(path)
        if progress is not None:
            found.append((progress, path))
    return [path for _, path in sorted(found)]


def progress_named(path: Path) -> tuple[int, int] | None:
    """Return the epochs and batches in the name of a checkpoint; None for any other name."""
    match = NAMES.fullmatch(path.name)
    return match and (int(match[1]), int(match[2] or 0))
