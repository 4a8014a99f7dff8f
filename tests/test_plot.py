"""The plot of a run."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from pipeline.plots.history import draw_history


def history_of(epochs, scale=1.0, changes=(), **spikes):
    """Return a history whose loss falls from 2.3 towards 0.4 times `scale`; `spikes` are {epoch: value} of a curve."""
    falling = scale * (0.4 + 1.9 * np.exp(-np.arange(epochs) / 10))
    curves = {
        "loss": falling,
        "val_loss": 1.1 * falling,
        "accuracy": 1 / (1 + falling),
        "val_accuracy": 1 / (1 + falling),
    }
    history = {name: list(map(float, values)) for name, values in curves.items()}
    for name, values in spikes.items():
        for epoch, value in values.items():
            history[name][epoch - 1] = value
    run = {"learning_rate_changes": list(changes), "steps": 100}
    return history | {"learning_rate": [0.1] * epochs, "run": run}


@pytest.fixture
def drawn():
    """Draw a history; return the figure and its renderer."""

    def draw(history):
        figure = draw_history(history)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return figure, canvas.get_renderer()

    return draw


@pytest.mark.parametrize("spikes", [{"val_loss": {20: 45.3}}, {"loss": {9: 1e6}, "val_loss": {20: 30.0, 41: 80.0}}])
def test_a_few_spikes_flatten_nothing_and_are_marked_with_what_they_are(drawn, spikes):
    figure, _ = drawn(history_of(60, **spikes))
    loss = figure.axes[0]
    assert 2.3 < loss.get_ylim()[1] < 3.0
    marked = {text.get_text() for text in loss.texts}
    assert marked == {f"{value:.3g}" for values in spikes.values() for value in values.values()}


def test_what_many_epochs_reach_is_no_spike(drawn):
    figure, _ = drawn(history_of(60, val_loss=dict.fromkeys(range(10, 40), 20.0)))
    assert figure.axes[0].get_ylim()[1] > 20
    assert not figure.axes[0].texts


def test_accuracy_that_rises_late_is_no_spike(drawn):
    history = history_of(60)
    history["accuracy"] = history["val_accuracy"] = [0.005] * 57 + [0.03, 0.08, 0.2]
    figure, _ = drawn(history)
    assert figure.axes[1].get_ylim()[1] > 0.2


def test_numbers_and_labels_stay_within_the_panel_and_apart(drawn):
    spikes = {"val_loss": {1: 123456.0, 30: 4e5, 60: 123456.0}, "loss": {1: 9e4}}
    figure, renderer = drawn(history_of(60, changes=[[0, 10, 0.05], [30, 0, 0.01], [59, 90, 0.001]], **spikes))
    loss = figure.axes[0]
    numbers = [text_box(text, renderer) for text in loss.texts if text.get_rotation() == 0]
    labels = [text_box(text, renderer) for text in loss.texts if text.get_rotation() == 90]
    assert (len(numbers), len(labels)) == (4, 3)
    for box in (*numbers, *labels):
        assert loss.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
    assert max(box.y1 for box in labels) <= min(box.y0 for box in numbers)


def text_box(text, renderer):
    """Return the extent of the text without the arrow."""
    return Text.get_window_extent(text, renderer)


def test_spikes_close_together_share_a_number(drawn):
    figure, renderer = drawn(history_of(100, val_loss={50: 30.0, 51: 44.0, 53: 12.0, 70: 15.0}))
    texts = figure.axes[0].texts
    assert {text.get_text() for text in texts} == {"44", "15"}
    assert_apart(texts, renderer)


def assert_apart(texts, renderer):
    boxes = [text.get_window_extent(renderer) for text in texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_labels_of_rates_changed_soon_after_each_other_do_not_overlap(drawn):
    changes = [
        [25, 0, 0.01],
        [25, 50, 0.02],
        [26, 0, 0.001],
        [26, 50, 1e-4],
        [28, 0, 1e-5],
        [40, 0, 0.05],
        [40, 9, 0.04],
    ]
    figure, renderer = drawn(history_of(60, changes=changes))
    texts = figure.axes[0].texts
    rates = [re.search(r"\d.*", text.get_text())[0] for text in texts]
    assert rates == ["0.01, ..., 0.0001", "1e-05", "0.05, 0.04"]
    assert_apart(texts, renderer)
    assert sum(line.get_linestyle() == "--" for line in figure.axes[0].lines) == len(changes)


@pytest.mark.parametrize("scale", [2e-5, 1e-3, 1e-2, 3e4])
@pytest.mark.parametrize("epochs", [2, 60])
def test_no_label_is_cut_off_whatever_the_size_of_the_loss(drawn, scale, epochs):
    figure, renderer = drawn(history_of(epochs, scale))
    for panel in figure.axes:
        low, high = panel.get_ylim()
        ticks = [text for text in panel.get_yticklabels() if low <= text.get_position()[1] <= high]
        label = panel.yaxis.get_label().get_window_extent(renderer)
        for text in (panel.yaxis.get_offset_text(), *ticks):
            box = text.get_window_extent(renderer)
            assert label.x1 <= box.x0
            assert box.y1 <= figure.bbox.y1
        assert label.x0 >= 0


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 60, 150])
def test_epochs_are_whole_numbers_from_1_on(drawn, epochs):
    figure, _ = drawn(history_of(epochs))
    low, high = figure.axes[1].get_xlim()
    assert (low, high) == (0.5, epochs + 0.5)
    ticks = [tick for tick in figure.axes[1].get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) >= 1 for tick in ticks)


@pytest.mark.parametrize("epochs", [150, 2000])
def test_the_last_epoch_s_number_is_not_cut_off(drawn, epochs):
    figure, renderer = drawn(history_of(epochs))
    last = [text for text in figure.axes[1].get_xticklabels() if text.get_position()[0] == epochs]
    assert [text.get_window_extent(renderer).x1 <= figure.bbox.x1 for text in last] == [True]
