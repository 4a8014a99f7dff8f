"""Build ImageNet's shards and the mean colour of its training images."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pipeline.data.imagenet import inputs, labels
from pipeline.data.imagenet.images import ImageFiles, Split
from pipeline.data.imagenet.shardbuilder import Task, work
from pipeline.data.textfiles import CHANNELS, write_mean
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.files.hdf5 import MAX_TEXT
from pipeline.files.lock import Lock
from pipeline.files.sealed import BLOCK, read_seal
from pipeline.io import workers
from pipeline.io.images import first_of
from pipeline.io.shards import SHARD, ChannelSums, Shard, find_shards, shard_name
from pipeline.utils.progress import Progress

_log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"(train|val)-\d{3}-of-\d{3}\.hdf5|mean\.json")


def build(
    paths: SimpleNamespace,
    *,
    shards: int,
    shorter_side: int | None,
    accept_warnings: bool,
    overwrite: bool,
    progress: Progress,
) -> dict[str, float]:
    """Build the shards of both splits in the folder `paths.built`, and then the mean, `paths.mean`.

    Each core builds one shard at a time. A shard appears complete or not at all, and one that is there already is kept
    if it was built from the same images and options, so that a build that was stopped can go on.

    Args:
        paths: see `inputs.find`, `labels.read_labels`; and `words`, a table of readable class names, which may be
            missing, and `default_words`, used in its place.
        shards: number of shards of each split, 1 to `MAX_SHARDS`, or the number of images if that is smaller.
        shorter_side: encode images again, those with a longer shorter side resized to it; None stores the files as they
            are.
        accept_warnings: take images although the decoder warns about them; if False, refuse them.
        overwrite: remove the shards of an earlier build first.
        progress: shows progress.

    Returns:
        Mean of R, G and B over all pixels of the training images as stored, 0 to 255.

    Raises:
        InputError: images or labels are missing, damaged or contradictory, or the folder holds another build.
        OSError: the disk is full or fails.
    """
    # They load while this process lists the images.
    builders = workers.start(work, [(shorter_side, accept_warnings)] * workers.cores())
    try:
        train, val = inputs.find(paths, progress)
        classes = train.wordnet_ids, _read_words(paths, train.wordnet_ids)
        atomic.make_folder(paths.built)
        with Lock(paths.built):
            atomic.remove_unfinished(paths.built, _TEMPORARY)
            if overwrite:
                _remove(paths)
            plan = [
                _Planned(paths.built, split, number, count, classes, shorter_side)
                for split in (train, val)
                for count in [min(shards, len(split))]
                for number in range(count)
            ]
            missing = _missing(paths.built, plan)
            if shorter_side is None:
                _check_space(paths.built, sum(planned.bytes for planned in missing))
            try:
                sums = _build_all(builders, missing, progress)
            finally:
                _end(builders)
                atomic.remove_unfinished(paths.built, _TEMPORARY)
            atomic.flush(paths.built)
            trained = [planned.path for planned in plan if planned.split is train]
            return _write_mean(paths.mean, (sums.get(path) or _sums_of(path) for path in trained))
    finally:
        _end(builders)


@dataclass(frozen=True)
class _Planned:
    """A shard to build: its place, and what the content of its `Task` is made of, which takes less memory."""

    folder: Path
    split: Split
    number: int
    count: int
    classes: tuple[tuple[str, ...], tuple[str, ...]]
    shorter_side: int | None

    @property
    def path(self) -> Path:
        return self.folder / shard_name(self.split.name, self.number, self.count)

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def bytes(self) -> int:
        """Number of bytes of the images' files."""
        return sum(int(files.lengths.sum()) for _, files in self._files())

    @property
    def _indices(self) -> range:
        return range(self.number, len(self.split), self.count)

    def _files(self) -> Iterator[tuple[int, ImageFiles]]:
        return self.split.take(np.array(self._indices))

    def task(self) -> Task:
        files = list(self._files())
        total = len(self.split)
        # The mark is a digest of what determines the bytes of the shard, wherever the images lie.
        mark = hashlib.sha256(
            repr((self.split.name, self.number, self.count, total, self.shorter_side, self.classes)).encode()
        )
        for label, of_class in files:
            mark.update(repr((label, list(of_class.stored_names()), of_class.lengths.tolist())).encode())
        return Task(self.path, files, self.classes, self.number, self.count, total, mark.digest())


def _read_words(paths: SimpleNamespace, wordnet_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of each class; its id if the default table doesn't have it."""
    if not paths.words.exists():
        words = labels.read_words(paths.default_words, wordnet_ids)
        return tuple(words.get(wordnet_id, wordnet_id) for wordnet_id in wordnet_ids)
    words = labels.read_words(paths.words, wordnet_ids)
    for wordnet_id in wordnet_ids:
        if not words.get(wordnet_id):
            raise InputError(f"{paths.words} has no words for class {wordnet_id}")
        if len(words[wordnet_id].encode()) > MAX_TEXT:
            raise InputError(f"{paths.words}: the words of class {wordnet_id} have more than {MAX_TEXT} bytes")
    return tuple(words[wordnet_id] for wordnet_id in wordnet_ids)


def _remove(paths: SimpleNamespace) -> None:
    """Remove an earlier build. Training needs the mean, so it goes first: a part of a build can't be used."""
    for path in (paths.mean, *find_shards(paths.built)):
        path.unlink(missing_ok=True)
    atomic.flush(paths.built)


def _missing(folder: Path, plan: list[_Planned]) -> list[_Planned]:
    """Return the planned shards that `folder` doesn't hold yet."""
    missing, expected = [], {planned.path for planned in plan}
    for path in find_shards(folder):
        if path not in expected:
            raise _other_build(path)
    for planned in plan:
        if not planned.path.exists():
            missing.append(planned)
            continue
        seal = read_seal(planned.path, SHARD)
        if seal is None or seal.mark != planned.task().mark:
            raise _other_build(planned.path)
        if planned.path.stat().st_size != BLOCK + seal.length:  # lost in a power failure
            missing.append(planned)
    if len(missing) < len(plan):
        _log.info(f"{len(plan) - len(missing):,} of {len(plan):,} shards are complete already")
    return missing


def _check_space(folder: Path, needed: int) -> None:
    """Raise `OSError` if the disk of `folder` has less room than `needed` bytes: better now than after an hour."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"can't write to {folder}: {needed:,} bytes needed, {free:,} free")


def _other_build(path: Path) -> InputError:
    return InputError(
        f"{path} already exists, built from other images or with other options; use `overwrite` to replace the build"
    )


def _build_all(builders: list[workers.Worker], plan: list[_Planned], progress: Progress) -> dict[Path, ChannelSums]:
    """Build the planned shards, one on each core at a time; return the sums of each by its path.

    Raises:
        InputError: images were refused; the shards without such images are complete.
        OSError: the disk failed.
    """
    left, idle, busy = iter(plan), list(builders), {}
    sums, refused = {}, {}
    with (
        progress(f"building {len(plan):,} shards", sum(map(len, plan)), "images") as advance,
        # Flushing a shard takes long; the workers go on meanwhile.
        ThreadPoolExecutor(1) as publisher,
    ):
        published = []
        while True:
            while idle and (planned := next(left, None)):
                worker = idle.pop()
                with worker.alive():
                    worker.connection.send(planned.task())
                busy[worker.connection] = worker
            if not busy:
                break
            for connection in wait(busy):
                with busy[connection].alive():
                    message = connection.recv()
                if isinstance(message, int):
                    advance(message)
                    continue
                idle.append(busy.pop(connection))
                if message.failure:
                    raise OSError(message.failure)
                for warning in message.warnings:
                    _log.warning(warning)
                if message.refused:
                    refused[message.task_path] = message.refused
                if message.finished:
                    sums[message.task_path] = message.sums
                    published.append(publisher.submit(_publish, message.finished, message.task_path))
        for future in published:
            future.result()
    if refused:
        raise InputError(first_of([text for path in sorted(refused) for text in refused[path]]))
    return sums


def _publish(finished: Path, path: Path) -> None:
    atomic.flush(finished)
    os.replace(finished, path)


def _end(builders: list[workers.Worker]) -> None:
    """End the workers, and wait until they have ended: they may be writing."""
    for worker in builders:
        worker.connection.close()
        worker.process.terminate()
    for worker in builders:
        worker.process.join()


def _sums_of(path: Path) -> ChannelSums:
    """Return the sums of a shard that an earlier process built."""
    shard = Shard(path)
    shard.close()
    return shard.sums


def _write_mean(path: Path, sums: Iterable[ChannelSums]) -> dict[str, float]:
    """Write mean and deviation to the file `path`, given the sums of all training shards; return the mean."""
    total = ChannelSums()
    for part in sums:
        total.add(part)
    mean, deviation = (dict(zip(CHANNELS, of, strict=True)) for of in (total.mean(), total.deviation()))
    write_mean(path, mean, deviation)
    return mean
