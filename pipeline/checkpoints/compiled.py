"""The arrays and descriptions of a compiled model in a checkpoint."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from pipeline.checkpoints.history import MAX_METRIC_NAME, PRECISIONS, RESERVED
from pipeline.checkpoints.state import check_manifest, check_metrics, check_optimizer, manifest_entry
from pipeline.errors import InputError, as_input_error
from pipeline.nn.average import MovingAverage
from pipeline.nn.conv.layout import layers
from pipeline.nn.optimizer import base_learning_rate


def check_compiled(model: keras.Model) -> None:
    """Build the optimizer and the metrics of the compiled `model`, and check that a checkpoint can hold them.

    Raises:
        InputError: `ResNet.build` didn't create the model; its precision is not in `PRECISIONS`; its learning rate is 0
            or a schedule; `steps_per_execution` is not 1; its optimizer uses EMA, or has an array that matches no
            weight's shape; or a metric is not a single number, is too large, or has a reserved name.
    """
    if not getattr(model, "network", None):
        raise InputError("the model was not built by ResNet.build; checkpoints hold only models that were")
    optimizer = model.optimizer
    name = type(optimizer).__name__
    if precision_of(model) not in PRECISIONS:
        raise InputError(f"the model computes in {precision_of(model)}; expected {' or '.join(PRECISIONS)}")
    if base_learning_rate(optimizer) == 0:
        raise InputError(f"the learning rate of {name} is 0; expected a number above 0")
    if not isinstance(base_learning_rate(optimizer), float):
        raise InputError(
            f"the learning rate of {name} is a schedule, which a resume can't restore; use a number, and a callback "
            "for the schedule"
        )
    if model.steps_per_execution != 1:
        raise InputError(
            f"steps_per_execution is {model.steps_per_execution}; expected 1, so that a run can stop after each step"
        )
    if optimizer.use_ema:
        raise InputError(f"{name} has use_ema, whose averages checkpoints can't hold; use `ema` instead")
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    arrays = optimizer_record(optimizer)["arrays"]
    with as_input_error(InputError, f"{name}: "):
        check_manifest(arrays, "optimizer")
        check_optimizer(arrays, list(layers(**model.network)))
    build_metrics(model)
    manifest = metrics_manifest(model)
    check_manifest(manifest, "metrics")
    check_metrics(manifest)
    for metric, result in model.get_metrics_result().items():
        is_taken = metric in RESERVED or metric.startswith(("val_", "ema_val_"))
        if is_taken or not metric.isprintable() or len(metric) > MAX_METRIC_NAME:
            raise InputError(f"a metric has the reserved or invalid name {metric!a:.100}; rename it")
        if keras.ops.size(result) != 1:
            raise InputError(f"the metric {metric} has {keras.ops.size(result)} numbers; expected one")
    model.reset_metrics()


def precision_of(model: keras.Model) -> str:
    """Return the dtype policy of `model`, built by `ResNet.build`."""
    return model.get_layer("conv1").dtype_policy.name


def build_metrics(model: keras.Model) -> None:
    """Create the metric variables of `model`, which Keras creates on first use."""
    zeros = keras.ops.zeros((1, *model.output_shape[1:]))
    model.compute_metrics(None, zeros, zeros)


def weights_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights of `model` by the names of their arrays in a checkpoint."""
    return {f"model_weights/{layer.name}/{weight.path}": weight for layer in model.layers for weight in layer.weights}


def raw_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights of `model` by the names of the raw weights in a checkpoint with averages."""
    return {f"run/raw/{weight.path}": weight for weight in model.weights}


def optimizer_by_name(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """Return the variables of `optimizer` by the names of their arrays in a checkpoint."""
    return {f"run/optimizer/{number}": variable for number, variable in enumerate(optimizer.variables)}


def metrics_by_name(model: keras.Model) -> dict[str, keras.Variable]:
    """Return the metric variables of `model` by the names of their arrays in a checkpoint."""
    return {f"run/metrics/{number}": variable for number, variable in enumerate(model.metrics_variables)}


def metric_state(model: keras.Model) -> list[np.ndarray]:
    """Copy the running loss and metrics of `model`."""
    return [keras.ops.convert_to_numpy(variable) for variable in metrics_by_name(model).values()]


def arrays_of(model: keras.Model, average: MovingAverage | None = None) -> dict[str, np.ndarray]:
    """Copy the weights of `model` and the state of its optimizer, if any, by their names in a checkpoint.

    With an `average`, the model's weights are the averages, and the raw weights are added.
    """
    weights = weights_by_name(model)
    variables = weights | (optimizer_by_name(model.optimizer) if model.optimizer else {})
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}
    if average is not None:
        averages, raw = average.arrays(), average.raw_arrays()
        arrays |= {name: averages[variable.path] for name, variable in weights.items()}
        arrays |= {name: raw[variable.path] for name, variable in raw_by_name(model).items()}
    return arrays


def optimizer_record(optimizer: keras.optimizers.Optimizer) -> dict:
    """Describe `optimizer` for a checkpoint: class, config without the learning rate, manifest of its arrays."""
    # The name depends on what else the process has created.
    config = {name: value for name, value in _config(optimizer).items() if name not in ("name", "learning_rate")}
    return {
        "class_name": type(optimizer).__name__,
        "config": json.loads(json.dumps(config, default=lambda value: type(value).__name__)),
        "arrays": _manifest(optimizer.variables, [variable.path.split("/")[-1] for variable in optimizer.variables]),
    }


def metrics_manifest(model: keras.Model) -> list[dict]:
    """Return the manifest of the metric variables of `model` for a checkpoint."""
    return _manifest(model.metrics_variables, [variable.path for variable in model.metrics_variables])


def check_same_network(saved: Mapping, model: keras.Model) -> None:
    """Raise `InputError` with the first difference between the `saved` arguments of `ResNet.build` and the model's."""
    network = json.loads(json.dumps(dict(model.network)))  # lists in place of tuples, as in a checkpoint
    for name, before in saved.items():
        if before != network[name]:
            raise InputError(f"its network has {name} {before!a:.100}, the model's has {network[name]!a:.100}")


def check_same_optimizer(saved: Mapping, compiled: Mapping) -> None:
    """Raise `InputError` with the first difference between the `saved` and the `compiled` `optimizer_record`.

    A record of format 1 has neither class nor config; those are not compared.
    """
    ours, theirs = saved["class_name"], compiled["class_name"]
    if ours not in (None, theirs):
        raise InputError(f"its optimizer is {ours!a:.100}, the model's is {theirs}")
    if saved["config"] is not None:
        for name in dict.fromkeys((*saved["config"], *compiled["config"])):
            # A setting that one version of Keras lacks is None, or off.
            before, now = saved["config"].get(name), compiled["config"].get(name)
            if before != now:
                raise InputError(f"its {theirs} has {name!a:.100} {before!a:.100}, the model's has {now!a:.100}")
    check_same_arrays(saved["arrays"], compiled["arrays"], f"optimizer {theirs}")


def check_same_arrays(saved: Sequence[Mapping], compiled: Sequence[Mapping], whose: str) -> None:
    """Raise `InputError` with the first difference between the `saved` and the `compiled` manifest."""
    for before, now in zip(saved, compiled, strict=False):
        if (before["name"], before["shape"]) != (now["name"], now["shape"]) or not _is_same(before, now):
            raise InputError(f"{whose}: it has {_describe(before)}, the model has {_describe(now)}")
    if len(saved) != len(compiled):
        more, less = (saved, compiled) if len(saved) > len(compiled) else (compiled, saved)
        holder = "it" if more is saved else "the model"
        raise InputError(f"{whose}: only {holder} has {_describe(more[len(less)])}")


def _is_same(before: Mapping, now: Mapping) -> bool:
    # Backends choose different widths for the step counter.
    kinds = {np.dtype(entry["dtype"]).kind for entry in (before, now)}
    return before["dtype"] == now["dtype"] or (not now["shape"] and kinds <= {"i", "u"})


def _describe(entry: Mapping) -> str:
    return f"{entry['name']!a:.100} ({entry['dtype']}, shape {tuple(entry['shape'])!a:.100})"


def _config(optimizer: keras.optimizers.Optimizer) -> dict:
    """Return the config of `optimizer`; for a `LossScaleOptimizer` together with that of the inner optimizer."""
    config = optimizer.get_config()
    inner = getattr(optimizer, "inner_optimizer", None)
    return config if inner is None else config | {"inner_optimizer": type(inner).__name__} | inner.get_config()


def _manifest(variables: Iterable[keras.Variable], names: Sequence[str]) -> list[dict]:
    """Return the manifest of `variables`; repeated `names` get a number."""
    seen, manifest = Counter(), []
    for variable, name in zip(variables, names, strict=True):
        name = re.sub(r"(^|/)variable_\d+$", r"\1variable", name)  # Keras numbers unnamed variables by process
        seen[name] += 1
        unique = name if seen[name] == 1 else f"{name}_{seen[name]}"
        manifest.append(manifest_entry(unique, variable.shape, keras.backend.standardize_dtype(variable.dtype)))
    return manifest
