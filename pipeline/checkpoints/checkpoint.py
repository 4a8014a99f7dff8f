"""Checkpoints: one HDF5 file that stock Keras opens and that an exact resume needs nothing beside.

    bytes 0-511         the seal (see `pipeline.files.sealed`), so that damage shows before any HDF5 code touches the
                        file; its two numbers are epoch and batch, its mark says whose it is (see `lineage`), so that
                        of many files the newest, and those of a run, are found without reading all
    /                   attributes backend, keras_version, model_config as Keras writes them, stock layers only
    /model_weights      as Keras lays them out; the averaged weights if the run keeps them, which are those to evaluate
    /run/state          JSON (see `pipeline.checkpoints.state`)
    /run/normalization  what is subtracted from an image, (height, width, channels) or (channels,)
    /run/raw            only with averages: the weights that training goes on with, by their paths, as conv1/kernel
    /run/optimizer      the optimizer's arrays, by their numbers in the manifest of the state
    /run/metrics        the same of the loss and the metrics, inside an epoch

`keras.models.load_model(path, compile=False)` reads the first two groups. `read_checkpoint` deserialises no code and
no Keras configuration: which arrays there must be, of which shape, follows from the arguments of `ResNet.build` and
the manifests. Format 1 has no normalization, and SGD's arrays in /run/optimizer/sgd by their names.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pipeline.checkpoints.history import PRECISIONS, is_start_of, lineages
from pipeline.checkpoints.state import State, parse_state
from pipeline.errors import InputError, refusing
from pipeline.files.hdf5 import (
    check_attributes,
    check_disjoint,
    check_members,
    dataset_of,
    group_of,
    variable_text_attribute,
)
from pipeline.files.sealed import BLOCK, Kind, blocks, open_sealed, read_seal
from pipeline.files.strictjson import MAX_BYTES, parse_json
from pipeline.nn.conv.layout import Layer, layers

if TYPE_CHECKING:  # Checking a file needs no Keras.
    import keras

# The digit is that of the seal; the state has a format of its own.
CHECKPOINT = Kind(b"ResNet run 1\n", "checkpoint", "take an earlier one")

# State, configuration, and what HDF5 needs of its own for each array.
_MAX_BESIDE = 3 * MAX_BYTES
_INTEGERS = ("int32", "int64", "uint32", "uint64")
# What a network's Keras configuration is made of, beside its layers: classes and where Keras would import them from.
_CLASSES = {"DTypePolicy", "Functional", "GlorotUniform", "L2", "Ones", "Zeros", "__keras_tensor__"}
_MODULES = {
    "keras", "keras.initializers", "keras.layers", "keras.regularizers", "keras.src.models.functional", None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checkpoint(State):
    """A state and its arrays; `restore` brings them back.

    Args:
        path: its file.
        arrays: the file's arrays by their names, if they were asked for.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]

    @property
    def progress(self) -> tuple[int, int]:
        """The completed epochs, and batches of the one under way."""
        return self.epoch, self.batch

    @property
    def metric_state(self) -> list[np.ndarray]:
        """The running loss and metrics inside an epoch."""
        return [values for name, values in self.arrays.items() if name.startswith("run/metrics/")]

    @property
    def averages(self) -> dict[str, np.ndarray]:
        """The averaged weights by the paths of their variables; empty if the run keeps none."""
        if not self.averaged:
            return {}
        of_model = {name: values for name, values in self.arrays.items() if name.startswith("model_weights/")}
        return {name.split("/", 2)[2]: values for name, values in of_model.items()}

    @property
    def mean(self) -> np.ndarray | None:
        """The mean to subtract from an image, float32; None in files of format 1, which lack it."""
        return self.arrays.get("run/normalization")

    @property
    def backend(self) -> str:
        """The Keras backend that the run ran on last."""
        sittings = self.history["run"].get("sittings")
        return sittings[-1]["backend"] if sittings else "tensorflow"

    @property
    def precision(self) -> str:
        """The Keras dtype policy that the run computes in."""
        return self.history["run"].get("precision", PRECISIONS[0])

    def build_model(self) -> "keras.Model":
        """The network with its weights, averaged if the run averages them, uncompiled, for evaluation.

        It computes in the precision that it was trained in, whatever Keras' dtype policy is.
        """
        import keras

        from pipeline.checkpoints.compiled import weights_by_name
        from pipeline.nn.conv import ResNet

        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = ResNet.build(**self.network)
        finally:
            keras.config.set_dtype_policy(policy)
        self._assign(weights_by_name(model))
        return model

    def restore(self, model: "keras.Model") -> None:
        """Give the compiled `model` and its optimizer the values to go on training with, to the bit.

        Raises:
            InputError: the file holds weights alone, or another optimizer, other metrics or another network than the
                model has.
        """
        from pipeline.checkpoints.compiled import (
            check_same_arrays,
            check_same_optimizer,
            metrics_manifest,
            optimizer_by_name,
            optimizer_record,
            raw_by_name,
            weights_by_name,
        )

        if self.optimizer is None:
            raise InputError(
                f"checkpoint {self.path} holds weights alone: it lacks the optimizer's state to go on with"
            )
        with refusing(InputError, f"checkpoint {self.path} is of another run: "):
            check_same_optimizer(self.optimizer, optimizer_record(model.optimizer))
            check_same_arrays(self.metrics, metrics_manifest(model), "metrics")
        weights = raw_by_name(model) if self.averaged else weights_by_name(model)
        self._assign(weights | optimizer_by_name(model.optimizer))

    def restore_metrics(self, model: "keras.Model") -> None:
        """Put the running loss and metrics of a checkpoint inside an epoch back into those of `model`."""
        from pipeline.checkpoints.compiled import metrics_by_name

        self._assign(metrics_by_name(model))

    def _assign(self, variables: "Mapping[str, keras.Variable]") -> None:
        values = {name: self._value(name, variable) for name, variable in variables.items()}
        for name, variable in variables.items():
            variable.assign(values[name])

    def _value(self, name: str, variable: "keras.Variable") -> np.ndarray:
        shape, dtype = tuple(variable.shape), np.dtype(variable.dtype)
        stored = self.arrays.get(name)
        if stored is None:
            raise InputError(f"checkpoint {self.path} lacks {name}; it belongs to another network")
        # The width of the step counter is the backend's own choice.
        same_dtype = stored.dtype == dtype or (shape == () and {stored.dtype.kind, dtype.kind} <= {"i", "u"})
        if stored.shape != shape or not same_dtype:
            raise InputError(f"{self.path}: {name} is {stored.dtype} {stored.shape}; expected {dtype} {shape}")
        return stored.astype(dtype)


def read_checkpoint(path: Path, *, arrays: bool = True) -> Checkpoint:
    """The checkpoint in the file `path`, its digest checked first. A name that ends in `.hdf` finds `.hdf5`.

    Args:
        arrays: take the arrays into memory; without them the checkpoint can't be restored.

    Raises:
        InputError: the file is missing, is no checkpoint of this project, is damaged, or holds anything that a
            checkpoint of its network does not.
    """
    if path.suffix == ".hdf" and not path.exists():
        path = path.with_suffix(".hdf5")
    with open_sealed(path, CHECKPOINT) as (file, source, seal):
        with refusing(ValueError, f"{path} is not a checkpoint of this project: "):
            state = _read_state(file)
            network = list(layers(**state.network))
            stored = dict(_check_arrays(file, network, state))
            if seal.length > sum(array.nbytes for array in stored.values()) + _MAX_BESIDE:
                raise InputError(f"it has {seal.length:,} bytes, far more than its arrays")
            check_disjoint(stored.values())
            _check_attributes(file, network)
            _check_config(file, blocks(source.fileno(), 0, BLOCK + seal.length), network)
        if seal.numbers != (state.epoch, state.batch):
            raise CHECKPOINT.damaged(path, "its first bytes tell of another epoch")
        values = {name: stored[name][()] for name in stored} if arrays else {}
        return Checkpoint(path=path, arrays=values, **vars(state))


def is_checkpoint_of(path: Path, history: dict, changeable: Collection[str] = (), *, whole: bool = False) -> bool:
    """Return whether the file `path` is a checkpoint on the way to `history` (see `is_start_of`).

    A seal that says so is believed, unless the file is to be sound as a `whole`. One that doesn't may be from before
    seals said so, or from other arguments: then the file is read.
    """
    seal = read_seal(path, CHECKPOINT)
    if seal and not whole and seal.mark in lineages(history, *seal.numbers, changeable):
        return True
    try:
        checkpoint = read_checkpoint(path, arrays=False)
    except InputError:
        return False
    return is_start_of(checkpoint.history, history, checkpoint.batch, changeable)


def progress_in(path: Path) -> tuple[int, int] | None:
    """The completed epochs and batches that the first bytes of a checkpoint tell of; None if it is none."""
    seal = read_seal(path, CHECKPOINT)
    return seal and seal.numbers


def _read_state(file: h5py.File) -> State:
    """The state in /run/state, each part checked."""
    run = group_of(file, "run")
    stored = dataset_of(run, "state", ["u1"], (None,))
    if stored.size > MAX_BYTES:
        raise InputError(f"its state has {stored.size:,} bytes; expected at most {MAX_BYTES:,}")
    state = parse_state(stored[()].tobytes())
    if state.format == 1 and len(group_of(group_of(run, "optimizer"), "sgd")) == 2:  # without momentum
        return replace(state, optimizer=state.optimizer | {"arrays": state.optimizer["arrays"][:2]})
    return state


def _check_arrays(file: h5py.File, network: Sequence[Layer], state: State) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets of weights, normalization, optimizer and, inside an epoch, metrics by their names.

    Raises:
        InputError: one of them is missing or anything else, or there is more in `file`.
    """
    slots = state.optimizer["arrays"] if state.optimizer else ()
    metrics = state.metrics if state.batch else ()
    # The names of the optimizer's arrays, and the group that they are in.
    places, prefix = list(map(str, range(len(slots)))), "run/optimizer"
    members = {"state": None}
    if state.format == 1:
        places, prefix = [entry["name"] for entry in slots], "run/optimizer/sgd"
        members["optimizer"] = {"sgd": dict.fromkeys(places)}
    elif slots:
        members["optimizer"] = dict.fromkeys(places)
    if metrics:
        members["metrics"] = dict.fromkeys(map(str, range(len(metrics))))
    if state.normalization is not None:
        members["normalization"] = None
    if state.averaged:
        members["raw"] = {layer.name: dict.fromkeys(layer.weights) for layer in network if layer.weights}
    weights = {layer.name: {layer.name: dict.fromkeys(layer.weights)} if layer.weights else {} for layer in network}
    check_members(file, {"model_weights": weights | {"top_level_model_weights": {}}, "run": members})
    for layer in network:
        for weight, shape in layer.weights.items():
            name = f"{layer.name}/{weight}"
            yield _dataset(file, f"model_weights/{layer.name}/{name}", ["f4"], shape)
            if state.averaged:
                yield _dataset(file, f"run/raw/{name}", ["f4"], shape)
    if state.normalization is not None:
        yield _dataset(file, "run/normalization", ["f4"], tuple(state.normalization))
    for number, (entry, place) in enumerate(zip(slots, places, strict=True)):
        _, stored = _dataset(file, f"{prefix}/{place}", _dtypes(entry), tuple(entry["shape"]))
        yield f"run/optimizer/{number}", stored
    for number, entry in enumerate(metrics):
        yield _dataset(file, f"run/metrics/{number}", _dtypes(entry), tuple(entry["shape"]))


def _dataset(file: h5py.File, name: str, dtypes: Sequence[str], shape: tuple[int, ...]) -> tuple[str, h5py.Dataset]:
    """The dataset at `name`, all of whose groups are there, and that name before it."""
    group, _, last = name.rpartition("/")
    return name, dataset_of(file[group], last, dtypes, shape)


def _dtypes(entry: Mapping) -> Sequence[str]:
    """The types that the array of a manifest's `entry` may have; the width of a counter is the backend's choice."""
    return _INTEGERS if not entry["shape"] and entry["dtype"] in _INTEGERS else [entry["dtype"]]


def _check_attributes(file: h5py.File, network: Sequence[Layer]) -> None:
    """Check that no attribute is there that Keras could take for more than what a network needs."""
    versions = ("backend", "keras_version")
    check_attributes(file, (*versions, "model_config"))
    check_attributes(file["model_weights"], (*versions, "layer_names"))
    for group in file["model_weights"].values():
        check_attributes(group, ["weight_names"])
    for layer in network:
        if layer.weights:
            check_attributes(file["model_weights"][layer.name][layer.name])


def _check_config(file: h5py.File, content: Iterable[bytes], network: Sequence[Layer]) -> None:
    """Check that the configuration that stock Keras would build from is the network's, and names nothing else."""
    config = parse_json(variable_text_attribute(file, content, "model_config", MAX_BYTES).encode())
    try:
        found = [(layer["name"], layer["class_name"]) for layer in config["config"]["layers"]]
    except (KeyError, TypeError) as error:
        raise InputError("its model_config is not that of a network") from error
    if found != [(layer.name, layer.kind) for layer in network]:
        raise InputError("its model_config has other layers than its network")
    classes, parts = _CLASSES | {layer.kind for layer in network}, [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "class_name" in part and (part["class_name"] not in classes or part.get("module") not in _MODULES):
                raise InputError(f"its model_config names {part['class_name']!a:.100}, which its network does not have")
            parts += part.values()
        elif isinstance(part, list):
            parts += part
