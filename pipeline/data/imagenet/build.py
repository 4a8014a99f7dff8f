"""Build ImageNet's shards and the mean colour of its training images."""

import hashlib
import logging
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pipeline.data.imagenet import inputs, labels
from pipeline.data.imagenet.images import ImageFiles, Split
from pipeline.data.imagenet.shardbuilder import Result, Task, work
from pipeline.data.textfiles import CHANNELS, write_mean
from pipeline.errors import InputError
from pipeline.files import atomic
from pipeline.files.lock import Lock
from pipeline.files.sealed import BLOCK, read_seal
from pipeline.io import workers
from pipeline.io.shards import SHARD, ChannelSums, Shard, find_shards, mean_and_deviation, shard_name
from pipeline.utils.progress import Progress

_log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"(train|val)-[0-9]{3}-of-[0-9]{3}\.hdf5|mean\.json")


def build(
    paths: SimpleNamespace,
    *,
    shards: int,
    shorter_side: int | None,
    accept_warnings: bool,
    overwrite: bool,
    progress: Progress,
    md5: dict[Path, str] | None = None,
) -> dict[str, float]:
    """Build the shards of both splits in the folder `paths.built`, and then the mean, `paths.mean`.

    Each core builds one shard at a time. A shard appears complete or not at all, and one that is there already is kept
    if it was built with the same options from images of the same classes, file names and lengths, so that a build that
    was stopped can go on.

    Args:
        paths: see `inputs.locate`; and `words` and `default_words` (see `labels.read_words`).
        shards: number of shards of each split, 1 to `MAX_SHARDS`, or the number of images if that is smaller.
        shorter_side: encode images again, those with a longer shorter side resized to it; None stores the files as they
            are.
        accept_warnings: take images although the decoder warns about them; if False, refuse them.
        overwrite: remove the shards of an earlier build first.
        progress: shows progress.
        md5: digests of archives to compare first; see `inputs.check_md5`.

    Returns:
        Mean of R, G and B over all pixels of the training images as stored, 0 to 255.

    Raises:
        InputError: images or labels are missing, damaged or contradictory, or the folder holds another build.
        OSError: the disk is full or fails.
    """
    sources = inputs.locate(paths)
    _check_output(paths, sources)
    atomic.make_folder(paths.built)
    with Lock(paths.built):
        atomic.remove_unfinished(paths.built, _TEMPORARY)
        if md5 is not None:
            inputs.check_md5(md5, progress)
        try:
            # The workers load while this process lists the images.
            options = [(shorter_side, accept_warnings)] * min(workers.cores(), 2 * shards)
            with workers.started(work, options) as builders:
                train, val = inputs.find(paths, *sources, progress)
                classes = train.wordnet_ids, labels.read_words(paths.words, paths.default_words, train.wordnet_ids)
                plan = [
                    _Planned(paths.built, split, number, min(shards, len(split)), classes, shorter_side)
                    for split in (train, val)
                    for number in range(min(shards, len(split)))
                ]
                if overwrite:
                    _remove(paths)
                sums = _build_missing(paths, plan, builders, progress)
        finally:
            atomic.remove_unfinished(paths.built, _TEMPORARY)
        atomic.flush(paths.built)
        return _write_mean(paths.mean, (sums[planned.path] for planned in plan if planned.split is train))


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
    def encoded_bytes(self) -> int:
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


def _check_output(paths: SimpleNamespace, sources: tuple[Path, Path]) -> None:
    """Raise `InputError` if the output is inside a folder of images, where it would look like a class."""
    for source in sources:
        if source.is_dir() and paths.built.resolve().is_relative_to(source.resolve()):
            raise InputError(f"`output` {paths.built} is inside {source}, which holds images; name another folder")


def _remove(paths: SimpleNamespace) -> None:
    """Remove an earlier build. Training needs the mean, so it goes first: a part of a build can't be used."""
    for path in (paths.mean, *find_shards(paths.built)):
        path.unlink(missing_ok=True)
    atomic.flush(paths.built)


def _build_missing(
    paths: SimpleNamespace, plan: list[_Planned], builders: list[workers.Worker], progress: Progress
) -> dict[Path, ChannelSums]:
    """Build the planned shards that aren't there yet; return the sums of all by their path."""
    sums = _complete(paths, plan)
    missing = [planned for planned in plan if planned.path not in sums]
    if plan[0].shorter_side is None:
        _check_space(paths.built, sum(planned.encoded_bytes for planned in missing))
    try:
        _build_all(builders, missing, sums, progress)
    except BaseException:
        _log.info(f"{len(sums):,} of {len(plan):,} shards are complete; the same command goes on with the others")
        raise
    return sums


def _complete(paths: SimpleNamespace, plan: list[_Planned]) -> dict[Path, ChannelSums]:
    """Return the sums of each planned shard that is there already, by its path.

    Raises:
        InputError: a file there is damaged, or of another build.
    """
    sums, expected = {}, {planned.path: planned for planned in plan}
    remedy = "repeat the command that built it, name another `output`, or remove that build with `overwrite`"
    for path, match in find_shards(paths.built).items():
        if path not in expected:
            raise InputError(f"{path} already exists, of a build with {int(match['count'])} shards; {remedy}")
        seal = read_seal(path, SHARD)
        if seal is None:
            raise SHARD.damaged(path, "it has no seal")
        if seal.mark != expected[path].task().mark:
            differing = "from other images, labels or class names, or with another `shorter_side`"
            raise InputError(f"{path} already exists, built {differing}; {remedy}")
        if path.stat().st_size == BLOCK + seal.length:  # else it lost its end in a power failure
            shard = Shard(path)
            shard.close()
            sums[path] = shard.sums
    if paths.mean.exists() and not sums:
        raise InputError(f"{paths.mean} already exists, of another data set; name another `output`, or use `overwrite`")
    if sums:
        _log.info(f"{len(sums):,} of {len(plan):,} shards are complete already")
    return sums


def _check_space(folder: Path, needed: int) -> None:
    """Raise `OSError` if the disk of `folder` has less room than `needed` bytes: better now than after an hour."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"can't write to {folder}: {needed:,} bytes needed, {free:,} free")


def _other_build(path: Path) -> InputError:
    return InputError(
        f"{path} already exists, built from other images or with other options; use `overwrite` to replace the build"
    )


def _build_all(
    builders: list[workers.Worker], plan: list[_Planned], sums: dict[Path, ChannelSums], progress: Progress
) -> None:
    """Build the planned shards, one on each core at a time; add the sums of each to `sums` once it is complete.

    Raises:
        InputError: images were refused; the shards without such images are complete.
        OSError: the disk failed.
    """
    left, idle, busy = iter(plan), list(builders), {}
    refused: dict[Path, list[str]] = {}
    published: deque[tuple[Future, Result]] = deque()
    with (
        progress(f"building {len(plan):,} shards", sum(map(len, plan)), "images") as advance,
        # Flushing a shard takes long; the workers go on meanwhile.
        ThreadPoolExecutor(1) as publisher,
    ):
        while True:
            while idle and (planned := next(left, None)):
                worker = idle.pop()
                with worker.alive():
                    worker.connection.send(planned.task())
                busy[worker.connection] = worker
            while published and (published[0][0].done() or not busy):
                future, result = published.popleft()
                future.result()
                sums[result.task_path] = result.sums
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
                    published.append((publisher.submit(_publish, message.finished, message.task_path), message))
    messages = [text for path in sorted(refused) for text in refused[path]]
    for text in messages[1:]:
        _log.info(f"refused, too: {text}")
    if messages:
        more = f" ({len(messages) - 1:,} more, listed above)" if len(messages) > 1 else ""
        raise InputError(f"{messages[0]}{more}")


def _publish(finished: Path, path: Path) -> None:
    atomic.flush(finished)
    os.replace(finished, path)


def _write_mean(path: Path, sums: Iterable[ChannelSums]) -> dict[str, float]:
    """Write mean and deviation to the file `path`, given the sums of all training shards; return the mean."""
    mean, deviation = (dict(zip(CHANNELS, of, strict=True)) for of in mean_and_deviation(sums))
    write_mean(path, mean, deviation)
    return mean
