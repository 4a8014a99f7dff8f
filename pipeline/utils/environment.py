"""What a run ran on, for its record."""

import platform
import sys
from pathlib import Path

import cv2
import keras


def versions() -> dict[str, str]:
    """The version of Python and of each library that numbers depend on, by name."""
    packages = ("keras", keras.backend.backend(), "numpy", "h5py")
    return {
        "python": platform.python_version(),
        **{package: sys.modules[package].__version__ for package in packages},
        "opencv": cv2.__version__,
    }


def device() -> str:
    """The name of what the steps run on."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    elif keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return jax.devices()[0].device_kind
    return _processor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else platform.machine()
