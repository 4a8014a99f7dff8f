"""Checkpoints: one HDF5 file that stock Keras opens and that an exact resume needs nothing beside.

    bytes 0-511      user block: magic, length and SHA-256 of every byte after it, so that damage shows before any HDF5
                     code touches the file; epoch and batch, so that the newest of many is found without reading all
    /                attributes backend, keras_version, model_config as Keras writes them, stock layers only
    /model_weights   as Keras lays them out
    /run/state       JSON: epoch, batch, network, history, options
    /run/optimizer   the optimizer's variables by their paths: iteration, learning rate, momentum
    /run/metrics     inside an epoch the running loss and accuracy, variables by their number

`keras.models.load_model(path, compile=False)` reads the first two groups. `read_checkpoint` deserialises no code and
no Keras configuration: the caller rebuilds the network, and arrays are taken by exact name, shape and dtype.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from pipeline.errors import InputError
from pipeline.io.atomic import write_atomically
from pipeline.io.history import check_history, epochs_of
from pipeline.nn.conv import ResNet
from pipeline.nn.normalization import stock_config

MAGIC = b"ResNet run 1\n"
_HEADER = struct.Struct("<16sQ32sQQ")
_USER_BLOCK = 512


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of its run; `restore` brings its arrays back.

    `epoch` counts completed epochs, `batch` completed batches of the epoch under way. `network` holds the arguments
    of `ResNet.build`, `history` the run so far (see `pipeline.io.history`), `options` how the process that wrote it
    went about it (see `pipeline.arguments`), `metrics` the running loss and accuracy inside an epoch, `content` the
    file's HDF5 part.
    """

    path: Path
    epoch: int
    batch: int
    backend: str
    network: dict
    history: dict
    options: dict
    metrics: tuple[np.ndarray, ...]
    content: bytes

    def build_model(self) -> keras.Model:
        """The network with its weights, uncompiled, for evaluation."""
        model = ResNet.build(**self.network)
        self.restore(model)
        return model

    def restore_metrics(self, model: keras.Model) -> None:
        """Put the running loss and accuracy of a checkpoint inside an epoch back into the metrics of `model`.

        Raises:
            InputError: the checkpoint holds other metrics.
        """
        # Keras makes the variables when it first measures something.
        nothing = keras.ops.zeros((1, *model.output_shape[1:]))
        model.compute_metrics(None, nothing, nothing)
        variables = model.metrics_variables
        if [(v.shape, v.dtype) for v in self.metrics] != [(tuple(v.shape), np.dtype(v.dtype)) for v in variables]:
            raise InputError(f"checkpoint {self.path} lacks the running loss and accuracy; take an earlier one")
        for variable, values in zip(variables, self.metrics, strict=True):
            variable.assign(values)

    def restore(self, model: keras.Model) -> None:
        """Give `model`, and its optimizer if it is compiled, the checkpoint's values to the bit.

        Raises:
            InputError: an array that the model needs is missing or has another shape or dtype.
        """
        targets = _weights_by_name(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
            targets |= _optimizer_by_name(optimizer)
        with _open(self.content, self.path) as file:
            values = {name: _read_array(file, name, variable, self.path) for name, variable in targets.items()}
        for name, variable in targets.items():
            variable.assign(values[name])


def metric_state(model: keras.Model) -> list[np.ndarray]:
    """The running loss and accuracy of `model`, to be saved inside an epoch."""
    return [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables]


def save_checkpoint(
    path: Path,
    model: keras.Model,
    *,
    epoch: int,
    batch: int,
    network: dict,
    history: dict,
    options: dict,
    metrics: Sequence[np.ndarray] = (),
) -> None:
    """Write the state of a compiled `model` after `epoch` epochs and `batch` batches of the next, atomically.

    `metrics` is the `metric_state` of the model inside an epoch.

    Raises:
        WriteError: the file could not be written whole; the one that was there is untouched.
    """
    state = {"epoch": epoch, "batch": batch, "network": network, "history": history, "options": options}
    versions = {"backend": keras.backend.backend(), "keras_version": keras.__version__}
    # In memory, so that the digest is known before the first byte reaches the disk.
    with h5py.File("checkpoint", "w", driver="core", backing_store=False, userblock_size=_USER_BLOCK) as file:
        file.attrs.update(versions | {"model_config": stock_config(model)})
        weights = file.create_group("model_weights")
        weights.attrs.update(versions | {"layer_names": _names(layer.name for layer in model.layers)})
        for layer in model.layers:
            weights.create_group(layer.name).attrs["weight_names"] = _names(weight.path for weight in layer.weights)
        weights.create_group("top_level_model_weights").attrs["weight_names"] = _names(())
        file["run/state"] = np.frombuffer(json.dumps(state, allow_nan=False).encode(), np.uint8)
        for name, variable in (_weights_by_name(model) | _optimizer_by_name(model.optimizer)).items():
            file[name] = keras.ops.convert_to_numpy(variable)
        for number, values in enumerate(metrics):
            file[f"run/metrics/{number}"] = values
        file.flush()
        content = file.id.get_file_image()
    header = _HEADER.pack(MAGIC, len(content), hashlib.sha256(content).digest(), epoch, batch)
    write_atomically(path, header.ljust(_USER_BLOCK, b"\0"), content)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in the file `path`, its digest checked first. A name that ends in `.hdf` finds `.hdf5`.

    Raises:
        InputError: the file is missing, is no checkpoint of this project, or is damaged.
    """
    if path.suffix == ".hdf" and not path.exists():
        path = path.with_suffix(".hdf5")
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise InputError(f"can't read checkpoint {path}: {error.strerror}") from error
    if len(whole) < _USER_BLOCK or not whole.startswith(MAGIC):
        raise InputError(f"{path} is not a checkpoint of this project; expected a file that its training wrote")
    _, length, digest, *progress = _HEADER.unpack_from(whole)
    content = whole[_USER_BLOCK:]
    if len(content) != length:
        raise InputError(f"checkpoint {path} is damaged: {len(content)} bytes of {length}; take an earlier one")
    if hashlib.sha256(content).digest() != digest:
        raise InputError(f"checkpoint {path} is damaged: its digest differs; take an earlier one")
    with _open(content, path) as file:
        try:
            state = json.loads(file["run/state"][()].tobytes())
            epoch, batch, network, options = (state[name] for name in ("epoch", "batch", "network", "options"))
            history = check_history(state["history"])
            backend = str(file.attrs["backend"])
            metrics = tuple(file[f"run/metrics/{number}"][()] for number in range(len(file.get("run/metrics", ()))))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"checkpoint {path} holds no state of a run: {error}") from error
    if (epoch, type(batch), type(network), type(options)) != (epochs_of(history), int, dict, dict) or batch < 0:
        raise InputError(f"checkpoint {path} holds a state of a run that contradicts itself")
    if progress != [epoch, batch]:
        raise InputError(f"checkpoint {path} is damaged: its first bytes tell of another epoch; take an earlier one")
    return Checkpoint(path, epoch, batch, backend, network, history, options, metrics, content)


def progress_in(path: Path) -> tuple[int, int] | None:
    """The completed epochs and batches that the first bytes of a checkpoint tell of; None if it is none."""
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
    except OSError:
        return None
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        return None
    *_, epoch, batch = _HEADER.unpack(header)
    return epoch, batch


def _weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    return {f"model_weights/{layer.name}/{weight.path}": weight for layer in model.layers for weight in layer.weights}


def _optimizer_by_name(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    return {f"run/optimizer/{variable.path}": variable for variable in optimizer.variables}


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names])


def _open(content: bytes, path: Path) -> h5py.File:
    try:
        return h5py.File(h5py.h5f.open_file_image(content))
    except (OSError, ValueError) as error:
        raise InputError(f"checkpoint {path} holds no HDF5 file: {error}") from error


def _read_array(file: h5py.File, name: str, variable: keras.Variable, path: Path) -> np.ndarray:
    shape, dtype = tuple(variable.shape), np.dtype(variable.dtype)
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        raise InputError(f"checkpoint {path} lacks {name}; it belongs to another network")
    # The width of the step counter is the backend's own choice.
    same_dtype = stored.dtype == dtype or (shape == () and {stored.dtype.kind, dtype.kind} <= {"i", "u"})
    if stored.shape != shape or not same_dtype:
        raise InputError(f"checkpoint {path}: {name} is {stored.dtype} {stored.shape}; expected {dtype} {shape}")
    return stored[()].astype(dtype)
