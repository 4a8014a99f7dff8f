"""The experiments published in 2018: script, network, and curves."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import config


@cache
def experiments() -> Mapping[str, Mapping]:
    """Return the experiments by name: `script`, `stages`, `filters`, and `curves`, lists with one number per epoch."""
    return json.loads(Path(config.__file__).with_name("published.json").read_text())


def comparable(script: str, values: Mapping[str, object]) -> str | None:
    """Return the name of the experiment to compare a run of `script` with; None if there is none.

    It has the same network and, if possible, as many epochs. A part of the data, or other data, isn't comparable.

    Args:
        values: the value of each flag of the run, by name.
    """
    if values["limit"] is not None or values["holdout"] is not None or values["data"] == "digits":
        return None
    network = [*values["stages"]], [*values["filters"]]
    same = [
        name
        for name, experiment in experiments().items()
        if experiment["script"] == script and (experiment["stages"], experiment["filters"]) == network
    ]
    return max(same, key=lambda name: len(experiments()[name]["curves"]["loss"]) == values["epochs"], default=None)
