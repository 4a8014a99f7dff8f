"""Write a network from `pipeline.formats.network` in each format, with TensorFlow.

Where the format has names, the input is `images`, the output `probabilities`.
"""

import tempfile
from pathlib import Path

import keras
import tensorflow as tf


def write_keras(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file."""
    model.save(path)


def write_saved_model(model: keras.Model, path: Path) -> None:
    """Write a SavedModel into the folder `path`, with the signature `serving_default`."""
    archive, _ = _archive(model)
    archive.write_out(path, verbose=False)


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write an ONNX file."""
    import tf2onnx

    _, endpoint = _archive(model)
    converted, _ = tf2onnx.convert.from_function(endpoint, endpoint.input_signature)
    for value in (*converted.graph.input, *converted.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    path.write_bytes(converted.SerializeToString())


def write_litert(model: keras.Model, path: Path) -> None:
    """Write a LiteRT file, of LiteRT's own operations only."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, Path(folder))
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


WRITERS = {"keras": write_keras, "saved_model": write_saved_model, "onnx": write_onnx, "litert": write_litert}


def _archive(model: keras.Model) -> tuple:
    """Return an export of `model`, and its endpoint, a function of TensorFlow."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = [keras.InputSpec(shape=model.input_shape, dtype="uint8", name="images")]
    endpoint = archive.add_endpoint("serve", lambda images: {"probabilities": model(images, training=False)}, signature)
    return archive, endpoint
