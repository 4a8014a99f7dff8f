"""The curves of a run, as a plot and as JSON."""

import io
import sys
from os import PathLike
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.io.atomic import make_folder, write_atomically
from pipeline.io.history import append_epoch, epochs_of, new_history, write_history
from pipeline.nn.optimizer import last_learning_rate


class TrainingMonitor(keras.callbacks.Callback):
    """After every epoch: adds the epoch to the history, and writes a plot and, if asked, the history, atomically.

    Args:
        fig_path: the plot, a PNG file.
        json_path: the history, or None.
        history: the run so far, which is brought up to date in place (see `pipeline.io.history`).

    A disk that fails is reported on standard error and counted in `failures`; the next epoch tries again, or `write`.

    Attributes:
        failures: how often a file could not be written.
        is_written: whether the files hold the history as it stands.

    Raises:
        InputError: (a `ValueError`) a folder can't be made or written to; in an epoch's end, the loss is not finite.
    """

    def __init__(
        self, fig_path: str | PathLike, json_path: str | PathLike | None = None, history: dict | None = None
    ) -> None:
        super().__init__()
        self.fig_path = Path(fig_path)
        self.json_path = None if json_path is None else Path(json_path)
        self.history = new_history() if history is None else history
        self.failures = 0
        self.is_written = False
        for path in filter(None, (self.fig_path, self.json_path)):
            make_folder(path.parent)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        record_epoch(self.history, self.model, logs)
        self.write()

    def write(self) -> None:
        """Write the files as the history stands."""
        self.is_written = False
        image = io.BytesIO()
        draw_history(self.history).savefig(image, format="png", dpi=120)
        try:
            if self.json_path is not None:
                write_history(self.json_path, self.history)
            write_atomically(self.fig_path, image.getvalue())
            self.is_written = True
        except OSError as error:
            self.failures += 1
            print(f"{error}; it is tried again", file=sys.stderr, flush=True)


def record_epoch(history: dict, model: keras.Model, logs: dict | None) -> None:
    """Add the epoch that ends now to `history`, with the learning rate that `model` trained it at."""
    append_epoch(history, logs or {}, last_learning_rate(model.optimizer))


def draw_history(history: dict) -> Figure:
    """A figure of a history: loss above, accuracy below, both from epoch 1; learning rates set by hand marked."""
    figure = Figure(figsize=(8, 8))
    # Fixed margins: a layout that is fitted draws everything twice, at the end of each epoch.
    margins = {"left": 0.09, "right": 0.98, "bottom": 0.06, "top": 0.98, "hspace": 0.05}
    panels = figure.subplots(2, sharex=True, gridspec_kw=margins)
    epochs = np.arange(1, epochs_of(history) + 1)
    changes = history["run"].get("learning_rate_changes", ())
    for panel, name in zip(panels, ("loss", "accuracy"), strict=True):
        labels = {name: "train", f"val_{name}": "validation", f"ema_val_{name}": "validation, averaged weights"}
        for curve, label in labels.items():
            if history.get(curve):
                panel.plot(epochs, history[curve], label=label, marker="." if len(epochs) < 20 else None)
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
        for epoch, batch, _ in changes:
            panel.axvline(_place(epoch, batch, history), color="grey", linestyle="--", linewidth=1)
        panel.legend(loc="best")
    for epoch, batch, value in changes:
        panels[0].annotate(
            f"learning rate {value:g}",
            (_place(epoch, batch, history), 0.97),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            color="grey",
            fontsize="small",
        )
    panels[1].set_xlabel("epoch")
    if len(epochs) == 1:
        panels[1].set_xlim(0.5, 1.5)
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _place(epoch: int, batch: int, history: dict) -> float:
    """Where on the axis of epochs a moment stands: halfway from an epoch's point to the next, one epoch ends."""
    steps = history["run"].get("steps")
    return epoch + 0.5 + (batch / steps if steps else 0.0)
