"""Run a script and stop it at a chosen point: python faults.py KIND NUMBER SCRIPT [ARGUMENT...]

KIND is one of:
    SIGINT, SIGTERM, SIGKILL              that signal at the end of batch NUMBER, of training or validation
    save                                  SIGKILL just before step NUMBER of writing files (open, write, flush, fsync,
                                          rename, fsync of the folder)
    storm in fsync, storm in savefig      ten times SIGINT at call NUMBER of that function, in a save or in a plot
    pause                                 wait forever just before data file NUMBER of a build is complete, or, with
                                          shards, before message NUMBER of a process that builds them
    publish                               SIGKILL just before shard NUMBER of a build gets its final name
    none                                  nothing
Points are counted from 1 over the whole process; if there are fewer than NUMBER, the script ends by itself.
"""

import os
import runpy
import signal
import sys
import time
from itertools import count
from pathlib import Path

kind, number, script, *arguments = sys.argv[1:]
points = count(1)


def pass_point(which, times=1):
    if next(points) == int(number):
        for _ in range(times):
            os.kill(os.getpid(), which)
            time.sleep(0.02)  # signals that arrive together count as one


def before(owner, name, which=signal.SIGKILL, times=1):
    original = getattr(owner, name)

    def stopping(*args, **options):
        pass_point(which, times)
        return original(*args, **options)

    setattr(owner, name, stopping)


def stop_in_saves():
    import builtins
    import io

    class File(io.FileIO):
        """Write half of the data before the point where the process may be killed."""

        def writelines(self, parts):
            whole = b"".join(parts)
            self.write(whole[: len(whole) // 2])
            pass_point(signal.SIGKILL)
            self.write(whole[len(whole) // 2 :])

        def flush(self):
            pass_point(signal.SIGKILL)

    original = builtins.open

    def opening(path, mode="r", *args, **options):
        if str(path).endswith(".tmp") and mode == "wb":
            pass_point(signal.SIGKILL)
            return File(path, "w")
        return original(path, mode, *args, **options)

    builtins.open = opening
    for name in ("fsync", "replace"):
        before(os, name)


def stop_at_batches():
    from pipeline.callbacks import AsyncCallbackList

    for phase in ("train", "test"):
        name = f"on_{phase}_batch_end"
        original = getattr(AsyncCallbackList, name)

        def ending(self, *args, original=original):
            pass_point(getattr(signal, kind))
            return original(self, *args)

        setattr(AsyncCallbackList, name, ending)


def storm():
    from matplotlib.figure import Figure

    name = kind.removeprefix("storm in ")
    before({"fsync": os, "savefig": Figure}[name], name, signal.SIGINT, times=10)


def pause():
    from pipeline.io.hdf5datasetwriter import HDF5DatasetWriter

    original = HDF5DatasetWriter.close

    def closing(self):
        if next(points) == int(number):
            signal.pause()
        original(self)

    HDF5DatasetWriter.close = closing
    from pipeline.data.imagenet import build

    original_wait = build.wait

    def waiting(connections):
        if next(points) == int(number):
            signal.pause()
        return original_wait(connections)

    build.wait = waiting


sys.path.insert(0, str(Path(script).parent))
if kind == "save":
    stop_in_saves()
elif kind.startswith("storm"):
    storm()
elif kind == "pause":
    pause()
elif kind == "publish":
    from pipeline.data.imagenet import build

    before(build, "_publish")
elif kind != "none":
    stop_at_batches()
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
