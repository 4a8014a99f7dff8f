"""Versions, device and commit, for the record of a run."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import keras


def versions() -> dict[str, str]:
    """Return the versions of Python and of each library that affects the numbers, by name."""
    packages = ("keras", keras.backend.backend(), "numpy", "h5py")
    return {
        "python": platform.python_version(),
        **{package: sys.modules[package].__version__ for package in packages},
        "opencv": cv2.__version__,
    }


def device() -> str:
    """Return the name of the device that computes."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    elif keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].device_kind
    return _processor()


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_accelerated() -> bool:
    """Return whether a GPU, or another device than the processor, computes."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.get_visible_devices("GPU"))
    import jax

    return jax.default_backend() != "cpu"


def peak_memory() -> str:
    """Describe the most memory that this process has used so far, and on a device of its own, the computation."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    text = f"{kilobytes * 1024 / 1e9:.1f} GB"
    if not is_accelerated():
        return text
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return f"{text}, and {peak / 1e9:.1f} GB on {device()}"


def code_commit() -> str | None:
    """Return the Git commit of this code, with `-dirty` if it was modified; None if unknown."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    # Without optional locks, which would update Git's index.
    git = ["git", "--no-optional-locks", "-C", str(root)]
    command = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else platform.machine()
