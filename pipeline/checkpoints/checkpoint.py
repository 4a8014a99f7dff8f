"""Read checkpoints: HDF5 files that hold everything for an exact resume, and that stock Keras opens.

    bytes 0-511         the seal (see `pipeline.files.sealed`), which reveals damage before HDF5 code reads the file; it
                        holds epoch, batch and `lineage`, so that the newest file of a folder, and the files of a run,
                        are found without reading each
    /                   attributes backend, keras_version and model_config as Keras writes them, with stock layers only
    /model_weights      in Keras' layout; the averaged weights, if the run averages them
    /run/state          JSON (see `pipeline.checkpoints.state`)
    /run/normalization  the mean subtracted from images, (height, width, channels) or (channels,); or the mean of each
                        channel and the standard deviation by which it is divided, (2, channels)
    /run/raw            with averages only: the raw weights, which training continues with, such as conv1/kernel
    /run/optimizer      arrays of the optimizer, numbered as in the state's manifest
    /run/metrics        arrays of loss and metrics, likewise; inside an epoch only

`keras.models.load_model(path, compile=False)` reads the first two groups. `read_checkpoint` deserializes neither code
nor a Keras config: the arguments of `ResNet.build` and the manifests determine name, shape and dtype of every array.
Format 1 has no normalization, and SGD's arrays by name in /run/optimizer/sgd.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.checkpoints.contents import check_arrays, check_attributes, check_config, read_state
from pipeline.checkpoints.history import PRECISIONS, is_ancestor_of, lineages
from pipeline.checkpoints.state import State
from pipeline.errors import InputError, as_input_error
from pipeline.files.hdf5 import check_disjoint
from pipeline.files.sealed import BLOCK, FileFormat, blocks, open_sealed, read_seal
from pipeline.files.strictjson import MAX_BYTES
from pipeline.nn.conv.layout import layers
from pipeline.preprocessing import Normalization, normalization_of

if TYPE_CHECKING:  # Reading a file needs no Keras.
    import keras

# The digit is the version of the seal; the state has its own format number.
CHECKPOINT = FileFormat(b"ResNet run 1\n", "checkpoint", "use an earlier one")

# Maximum size in bytes of everything but the arrays: state, config, and HDF5's metadata.
_MAX_OVERHEAD = 3 * MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class Checkpoint(State):
    """The content of a checkpoint file: a state and its arrays.

    Args:
        path: the file.
        arrays: the arrays by their names in the file; empty if they were not read.
    """

    path: Path
    arrays: Mapping[str, np.ndarray]

    @property
    def progress(self) -> tuple[int, int]:
        """Completed epochs, and completed batches of the next one."""
        return self.epoch, self.batch

    @property
    def metric_state(self) -> list[np.ndarray]:
        """The running loss and metrics inside an epoch; empty at the end of one."""
        return [values for name, values in self.arrays.items() if name.startswith("run/metrics/")]

    @property
    def averages(self) -> dict[str, np.ndarray]:
        """The averaged weights by the paths of their variables; empty if the run averages none."""
        if not self.averaged:
            return {}
        weights = {name: values for name, values in self.arrays.items() if name.startswith("model_weights/")}
        return {name.split("/", 2)[2]: values for name, values in weights.items()}

    @property
    def preprocessor(self) -> Normalization | None:
        """The images' normalization, the last step before the network; None in files of format 1."""
        parameters = self.arrays.get("run/normalization")
        return None if parameters is None else normalization_of(parameters)

    @property
    def backend(self) -> str:
        """The Keras backend that the run used last."""
        sittings = self.history["run"].get("sittings")
        return sittings[-1]["backend"] if sittings else "tensorflow"

    @property
    def precision(self) -> str:
        """The run's Keras dtype policy."""
        return self.history["run"].get("precision", PRECISIONS[0])

    def build_model(self, image_size: int | None = None, precision: str | None = None) -> "keras.Model":
        """Build the uncompiled network with its weights, averaged if the run averages them, for evaluation.

        Args:
            image_size: height and width of the images in pixels; None for those that it was trained on.
            precision: Keras dtype policy that it computes in, whatever Keras' setting is; None for the run's.
        """
        import keras

        from pipeline.checkpoints.compiled import weights_by_name
        from pipeline.nn.conv import ResNet

        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision or self.precision)
        try:
            size = {} if image_size is None else {"height": image_size, "width": image_size}
            model = ResNet.build(**self.network | size)
        finally:
            keras.config.set_dtype_policy(policy)
        self._assign(weights_by_name(model))
        return model

    def restore(self, model: "keras.Model") -> None:
        """Restore weights and optimizer of the compiled `model`, so that training resumes exactly.

        Raises:
            InputError: the file holds only weights, or its network, optimizer or metrics differ from the model's.
        """
        from pipeline.checkpoints.compiled import (
            check_same_arrays,
            check_same_network,
            check_same_optimizer,
            metrics_manifest,
            optimizer_by_name,
            optimizer_record,
            raw_by_name,
            weights_by_name,
        )

        if self.optimizer is None:
            raise InputError(f"checkpoint {self.path} holds weights only; to resume, name one with an optimizer")
        with as_input_error(InputError, f"checkpoint {self.path} doesn't match the compiled model: "):
            check_same_network(self.network, model)
            check_same_optimizer(self.optimizer, optimizer_record(model.optimizer))
            check_same_arrays(self.metrics, metrics_manifest(model), "metrics")
        weights = raw_by_name(model) if self.averaged else weights_by_name(model)
        self._assign(weights | optimizer_by_name(model.optimizer))

    def restore_metrics(self, model: "keras.Model") -> None:
        """Restore the running loss and metrics of `model` from a checkpoint inside an epoch."""
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
            raise InputError(f"checkpoint {self.path} lacks {name}; it holds another network")
        # Backends choose different widths for the step counter.
        same_dtype = stored.dtype == dtype or (shape == () and {stored.dtype.kind, dtype.kind} <= {"i", "u"})
        if stored.shape != shape or not same_dtype:
            raise InputError(f"{self.path}: {name} is {stored.dtype} {stored.shape}; expected {dtype} {shape}")
        return stored.astype(dtype)


def read_checkpoint(path: Path, *, arrays: bool = True) -> Checkpoint:
    """Read the checkpoint `path` after checking its digest. If `x.hdf` is missing, read `x.hdf5` instead.

    Args:
        arrays: read the arrays, which `Checkpoint.restore` and `Checkpoint.build_model` need.

    Raises:
        InputError: the file is missing, damaged, not a checkpoint of this project, or holds anything unexpected.
        OSError: the disk fails during the read.
    """
    if path.suffix == ".hdf" and not path.exists():
        path = path.with_suffix(".hdf5")
    with open_sealed(path, CHECKPOINT) as (file, source, seal):
        with as_input_error(ValueError, f"{path} is not a checkpoint of this project: "):
            state = read_state(file)
            network = list(layers(**state.network))
            stored = dict(check_arrays(file, network, state))
            expected = sum(array.nbytes for array in stored.values()) + _MAX_OVERHEAD
            if seal.length > expected:
                raise InputError(f"it has {seal.length:,} bytes; expected at most {expected:,} for its arrays")
            check_disjoint(stored.values())
            check_attributes(file, network)
            check_config(file, blocks(source.fileno(), 0, BLOCK + seal.length), network)
        if seal.numbers != (state.epoch, state.batch):
            raise CHECKPOINT.damaged(
                path, f"its seal has epoch and batch {seal.numbers}, its state {(state.epoch, state.batch)}"
            )
        values = {name: stored[name][()] for name in stored} if arrays else {}
        if (parameters := values.get("run/normalization")) is not None:
            with as_input_error(ValueError, f"checkpoint {path} has an invalid normalization: "):
                normalization_of(parameters)
        return Checkpoint(path=path, arrays=values, **vars(state))


def is_checkpoint_of(path: Path, history: dict, changeable: Collection[str] = (), *, whole: bool = False) -> bool:
    """Return whether the file `path` is an earlier checkpoint of the run of `history` (see `is_ancestor_of`).

    A matching lineage in the seal is enough, unless `whole` asks to check the entire file. If it doesn't match, the
    file is read: it may be from before seals held a lineage, or have other arguments.
    """
    seal = read_seal(path, CHECKPOINT)
    if seal and not whole and seal.mark in lineages(history, *seal.numbers, changeable):
        return True
    try:
        checkpoint = read_checkpoint(path, arrays=False)
    except InputError:
        return False
    return is_ancestor_of(checkpoint.history, history, checkpoint.batch, changeable)


def progress_in(path: Path) -> tuple[int, int] | None:
    """Return the completed epochs and batches recorded in a checkpoint's seal; None if it isn't a checkpoint."""
    seal = read_seal(path, CHECKPOINT)
    return seal and seal.numbers


def check_resumable(checkpoint: Checkpoint, script: str) -> None:
    """Raise `InputError` unless `script` wrote the checkpoint, and the record of its run is complete."""
    record = checkpoint.history["run"]
    if (name := record.get("script")) != script:
        writer = {None: "another program", "run": "a program that uses Run.open"}.get(name, f"{name}.py")
        raise InputError(f"checkpoint {checkpoint.path} was written by {writer}; resume it with that, or name another")
    missing = {"arguments", "data", "learning_rate_changes", "steps"} - record.keys()
    if "lr" not in record.get("arguments", ()):
        missing.add("arguments.lr")
    if missing:
        raise InputError(
            f"the record of checkpoint {checkpoint.path} lacks {', '.join(sorted(missing))}; name another checkpoint"
        )
