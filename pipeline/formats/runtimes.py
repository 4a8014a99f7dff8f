"""Run an exported network with the runtime of its format, in a process that loads nothing else of this project."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from signal import Signals

import numpy as np

_PROGRAM = "import sys; from pipeline.formats.runtimes import main; main(*sys.argv[1:])"
# A check takes seconds; on a busy machine loading TensorFlow alone may take a minute.
SECONDS = 600

# A function from uint8 RGB images to probabilities.
Run = Callable[[np.ndarray], np.ndarray]


def load_keras(path: str) -> Run:
    """Load a `.keras` file."""
    import keras

    return keras.models.load_model(path).predict_on_batch


def load_saved_model(path: str) -> Run:
    """Load a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # its signatures don't keep it alive
    return lambda images: loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"].numpy()


def load_onnx(path: str) -> Run:
    """Load an ONNX file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def load_litert(path: str) -> Run:
    """Load a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(path).get_signature_runner()  # resizes its tensors for each batch
    return lambda images: run(images=images)["probabilities"]


# Name, module and loader of the runtime of each format.
RUNTIMES = {
    "keras": ("Keras", "keras", load_keras),
    "saved_model": ("TensorFlow", "tensorflow", load_saved_model),
    "onnx": ("ONNX Runtime", "onnxruntime", load_onnx),
    "litert": ("LiteRT", "ai_edge_litert", load_litert),
}


def run_exported(form: str, path: Path, images: np.ndarray) -> tuple[np.ndarray, str]:
    """Run the network `path` of the format `form`; return the probabilities, and name and version of the runtime.

    Args:
        images: uint8 RGB (n, height, width, 3). The first one runs alone, the others in larger batches.

    Raises:
        ChildProcessError: the runtime can't load or run the file, or takes longer than `SECONDS`.
    """
    name, root = RUNTIMES[form][0], Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "images.npy"), Path(folder, "result.npz")
        np.save(given, images)
        command = [sys.executable, "-c", _PROGRAM, form, path.absolute(), given, result]
        options = {"cwd": root, "capture_output": True, "text": True, "errors": "replace", "timeout": SECONDS}
        try:
            done = subprocess.run(command, **options)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise ChildProcessError(f"{name} did not run the exported network within {SECONDS} seconds") from None
        if done.returncode < 0:
            raise ChildProcessError(f"{name} was killed by {Signals(-done.returncode).name}")
        if done.returncode:
            reason = (done.stderr.splitlines() or ["no message"])[-1]
            raise ChildProcessError(f"{name} can't run the exported network: {reason:.300}")
        with np.load(result) as arrays:
            return arrays["probabilities"], str(arrays["runtime"])


def main(form: str, path: str, images: str, result: str) -> None:
    """Run the network `path` on the images in a file; write probabilities and runtime to the file `result`."""
    name, module, load = RUNTIMES[form]
    run, rows = load(path), np.load(images)
    # One image, then several: a network takes any number.
    batches = np.split(rows, range(1, len(rows), 16))
    probabilities = np.concatenate([run(batch) for batch in batches])
    np.savez(result, probabilities=probabilities, runtime=f"{name} {import_module(module).__version__}")
