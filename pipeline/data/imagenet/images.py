"""Lists of image files, compact enough for millions of files."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.data.textfiles import nfc


@dataclass(frozen=True)
class ImageFiles:
    """Image files in a folder or a tar archive, in the order of their names.

    Attributes:
        source: path of the folder or archive.
        names: file names as UTF-8 bytes, objects (n,), relative to the folder.
        offsets: offset of each file in the archive in bytes, int64 (n,); None for a folder.
        lengths: number of bytes of each file, int64 (n,).
    """

    source: str
    names: np.ndarray
    offsets: np.ndarray | None
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray) -> "ImageFiles":
        offsets = None if self.offsets is None else self.offsets[rows]
        return ImageFiles(self.source, self.names[rows], offsets, self.lengths[rows])

    def stored_names(self) -> Iterator[str]:
        """Yield the file names in the Unicode form in which they are stored and ordered."""
        return (nfc(name.decode()) for name in self.names)

    def places(self) -> Iterator[tuple[str, int | None, int]]:
        """Yield the path of each file, or of the archive and the offset in it, and the number of bytes."""
        for row, length in enumerate(self.lengths):
            if self.offsets is None:
                yield f"{self.source}/{self.names[row].decode()}", None, int(length)
            else:
                yield self.source, int(self.offsets[row]), int(length)


@dataclass(frozen=True)
class Split:
    """The images of a split: `name`, and the files of each class in the order of `wordnet_ids`."""

    name: str
    wordnet_ids: tuple[str, ...]
    files: list[ImageFiles]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(files) for files in self.files])

    def take(self, indices: np.ndarray) -> Iterator[tuple[int, ImageFiles]]:
        """Yield label and files of the images at the ascending `indices`, class by class."""
        labels = np.searchsorted(self._ends, indices, side="right")
        for label in np.unique(labels):
            start = self._ends[label] - len(self.files[label])
            yield int(label), self.files[label][indices[labels == label] - start]
