"""Check that a stranger's HDF5 file holds a checkpoint, and nothing else (see `pipeline.checkpoints.checkpoint`)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import h5py

from pipeline.checkpoints.state import State, parse_state
from pipeline.errors import InputError
from pipeline.files import hdf5
from pipeline.files.hdf5 import check_members, dataset_of, group_of, variable_text_attribute
from pipeline.files.strictjson import MAX_BYTES, parse_json
from pipeline.nn.conv.layout import Layer

_INTEGERS = ("int32", "int64", "uint32", "uint64")
# Classes in a network's Keras config, besides its layers, and the modules that Keras would import them from.
_CLASSES = {"DTypePolicy", "Functional", "GlorotUniform", "L2", "Ones", "Zeros", "__keras_tensor__"}
_MODULES = {
    "keras", "keras.initializers", "keras.layers", "keras.regularizers", "keras.src.models.functional", None,
}  # fmt: skip


def read_state(file: h5py.File) -> State:
    """Read and check /run/state."""
    run = group_of(file, "run")
    stored = dataset_of(run, "state", ["u1"], (None,))
    if stored.size > MAX_BYTES:
        raise InputError(f"its state has {stored.size:,} bytes; expected at most {MAX_BYTES:,}")
    state = parse_state(stored[()].tobytes())
    if state.format == 1 and len(group_of(group_of(run, "optimizer"), "sgd")) == 2:  # without momentum
        return replace(state, optimizer=state.optimizer | {"arrays": state.optimizer["arrays"][:2]})
    return state


def check_arrays(file: h5py.File, network: Sequence[Layer], state: State) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the datasets of weights, normalization, optimizer and, inside an epoch, metrics, by name.

    Raises:
        InputError: a dataset is missing or unexpected, or has another shape or type.
    """
    slots = state.optimizer["arrays"] if state.optimizer else ()
    metrics = state.metrics if state.batch else ()
    # Names of the optimizer's datasets, and their group.
    slot_names, prefix = list(map(str, range(len(slots)))), "run/optimizer"
    members = {"state": None}
    if state.format == 1:
        slot_names, prefix = [entry["name"] for entry in slots], "run/optimizer/sgd"
        members["optimizer"] = {"sgd": dict.fromkeys(slot_names)}
    elif slots:
        members["optimizer"] = dict.fromkeys(slot_names)
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
    for number, (entry, name) in enumerate(zip(slots, slot_names, strict=True)):
        _, stored = _dataset(file, f"{prefix}/{name}", _dtypes(entry), tuple(entry["shape"]))
        yield f"run/optimizer/{number}", stored
    for number, entry in enumerate(metrics):
        yield _dataset(file, f"run/metrics/{number}", _dtypes(entry), tuple(entry["shape"]))


def _dataset(file: h5py.File, name: str, dtypes: Sequence[str], shape: tuple[int, ...]) -> tuple[str, h5py.Dataset]:
    """Return `name` and the dataset there; its groups exist."""
    group, _, last = name.rpartition("/")
    return name, dataset_of(file[group], last, dtypes, shape)


def _dtypes(entry: Mapping) -> Sequence[str]:
    """Return the types allowed for a manifest's `entry`. Backends choose different widths for counters."""
    return _INTEGERS if not entry["shape"] and entry["dtype"] in _INTEGERS else [entry["dtype"]]


def check_attributes(file: h5py.File, network: Sequence[Layer]) -> None:
    """Check that the file has exactly the attributes that Keras needs for a network."""
    versions = ("backend", "keras_version")
    hdf5.check_attributes(file, (*versions, "model_config"))
    hdf5.check_attributes(file["model_weights"], (*versions, "layer_names"))
    for group in file["model_weights"].values():
        hdf5.check_attributes(group, ["weight_names"])
    for layer in network:
        if layer.weights:
            hdf5.check_attributes(file["model_weights"][layer.name][layer.name])


def check_config(file: h5py.File, content: Iterable[bytes], network: Sequence[Layer]) -> None:
    """Check that the Keras config describes the network, and names no other classes or modules."""
    config = parse_json(variable_text_attribute(file, content, "model_config", MAX_BYTES).encode())
    try:
        found = [(layer["name"], layer["class_name"]) for layer in config["config"]["layers"]]
    except (KeyError, TypeError) as error:
        raise InputError("its model_config is not a Keras config of a network") from error
    if found != [(layer.name, layer.class_name) for layer in network]:
        raise InputError("its model_config has other layers than its network")
    classes, parts = _CLASSES | {layer.class_name for layer in network}, [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "class_name" in part and (part["class_name"] not in classes or part.get("module") not in _MODULES):
                raise InputError(f"its model_config names {part['class_name']!a:.100}, which is not in its network")
            parts += part.values()
        elif isinstance(part, list):
            parts += part
