"""`python -m pipeline.compare`: what it reads, the names of runs, the table, the picture, and wrong calls."""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections import Counter

import cv2
import numpy as np
import pytest
from conftest import ROOT, names
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from messages import EXISTS, MISSING, NOT_REGULAR, assert_names, assert_refused

from pipeline.checkpoints.history import write_history
from pipeline.cli.published import experiments
from pipeline.plots.comparison import comparison_png, draw_comparison
from pipeline.plots.history import plot_png

COMPARE = "pipeline/compare.py"
ARGUMENTS = {"epochs": 9, "lr": 0.1, "seed": 1, "batch_size": 64, "limit": None, "stages": [1, 2], "filters": [4, 8]}


def history_of(epochs=3, scale=1.0, run=None, **curves):
    """Return a history whose loss falls from 2.3 towards 0.4 times `scale`."""
    falling = scale * (0.4 + 1.9 * np.exp(-np.arange(epochs) / 10))
    usual = {
        "loss": falling,
        "val_loss": 1.1 * falling,
        "accuracy": 1 / (1 + falling),
        "val_accuracy": 1 / (2 + falling),
    }
    history = {name: list(map(float, values)) for name, values in usual.items()} | curves
    return history | {"learning_rate": [0.1] * epochs, "run": run or {}}


def run_of(script="train", sitting=None, changes=(), **arguments):
    """Return the record of a run of two sittings; `sitting` is what the last differs in."""
    usual = {"epoch": 0, "batch": 0, "backend": "jax", "device": "1 core", "versions": {"jax": "1"}, "commit": None}
    sittings = [usual, usual | (sitting or {})]
    run = {"script": script, "arguments": ARGUMENTS | arguments}
    return run | {"learning_rate_changes": list(changes), "sittings": sittings}


@pytest.fixture
def save(tmp_path):
    """Write a history below the working directory."""
    return lambda name, *history, **curves: write_history(tmp_path / name, history_of(*history, **curves))


@pytest.fixture
def compare(command, monkeypatch):
    """Compare runs; return the cells of each row of the table by its label, the names of the runs by an empty one."""
    monkeypatch.setenv("COLUMNS", "1000")

    def run(*words):
        done = command(COMPARE, *words)
        assert done.stderr == ""
        *lines, _ = done.stdout.splitlines()
        starts = [name.start() for name in re.finditer(r"\S+( \S+)*", lines[0])]
        ends = [*starts[1:], None]
        return {
            line[: starts[0]].strip(): [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
            for line in lines
        }

    return run


def test_the_table_holds_the_results_of_each_run(compare, save, tmp_path):
    averages = {"ema_val_accuracy": [0.125, None, 0.5], "ema_val_loss": [2.0, None, 1.0]}
    measured = {"val_accuracy": [0.5, 0.75, 0.625], "accuracy": [0.25, 0.5, 0.875], "val_loss": [3.0, 2.0, 1.5]}
    save("a.json", run=run_of(), seconds=[1800.0, 1800.0, 900.0], **measured, **averages)
    save("b.json", 2, val_accuracy=[None, None], accuracy=[], val_loss=[1.0, 20480.0], seconds=[9.0, None])
    save("c.json", 0, run=run_of())
    rows = compare("a.json", "b.json", "c.json", "tiny-1", "--json", "table.json")
    curves = experiments()["tiny-1"]["curves"]
    best = max(curves["val_accuracy"])
    assert rows == {
        "": ["a", "b", "c", "tiny-1 (published)"],
        "epochs": ["3/9", "2", "0/9", "70"],
        "val_accuracy": ["0.6250", "-", "-", f"{curves['val_accuracy'][-1]:.4f}"],
        "best val_accuracy": [
            "0.7500, epoch 2", "-", "-", f"{best:.4f}, epoch {curves['val_accuracy'].index(best) + 1}"
        ],
        "ema_val_accuracy": ["0.5000", "-", "-", "-"],
        "best ema_val_accuracy": ["0.5000, epoch 3", "-", "-", "-"],
        "accuracy": ["0.8750", "-", "-", f"{curves['accuracy'][-1]:.4f}"],
        "val_loss": ["1.5000", "20480", "-", f"{curves['val_loss'][-1]:.4f}"],
        "hours": ["1.2500", "-", "-", "-"],
        "stages": ["1,2", "-", "1,2", "3,4,6"],
        "filters": ["4,8", "-", "4,8", "64,128,256,512"],
    }  # fmt: skip
    first, second, _, published = json.loads((tmp_path / "table.json").read_text())["runs"]
    assert (first["name"], first["path"], first["hours"], first["planned_epochs"]) == ("a", "a.json", 1.25, 9)
    assert (first["best_val_accuracy"], first["best_val_accuracy_epoch"]) == (0.75, 2)
    assert (second["best_val_accuracy"], second["hours"], second["differing"]) == (None, None, {})
    assert (published["path"], published["differing"]) == (None, {"stages": [3, 4, 6], "filters": [64, 128, 256, 512]})


def test_only_settings_that_differ_are_shown(compare, save):
    save("a.json", run=run_of(sitting={"commit": "0123456789abcdef", "device": "a GPU"}, nesterov=True, cutout=0))
    other = run_of(sitting={"versions": {"jax": "2"}}, changes=[[2, 7, 0.01]], limit=90, stages=[1, 3], lr=0.2)
    save("b.json", run=other)
    rows = compare("a.json", "b.json", "cifar10-1")
    results = {"", "epochs", "val_accuracy", "best val_accuracy", "accuracy", "val_loss", "hours"}
    assert results < rows.keys()
    # The second run's version knew neither --nesterov nor --cutout: both are off.
    assert {label: cells for label, cells in rows.items() if label not in results} == {
        "script": ["train", "train", "resnet_cifar10"],
        "lr": ["0.1", "0.2", "-"],
        "limit": ["none", "90", "-"],
        "stages": ["1,2", "1,3", "9,9,9"],
        "filters": ["4,8", "4,8", "16,16,32,64"],
        "nesterov": ["True", "-", "-"],
        "learning rate changes": ["none", "0.01 after epoch 2, batch 7", "-"],
        "device": ["a GPU", "1 core", "-"],
        "jax version": ["1", "2", "-"],
    }


def test_on_a_narrow_terminal_further_runs_follow_below(command, save, monkeypatch):
    runs = [f"a-run-with-a-name-of-some-length-{number:02}.json" for number in range(12)]
    for number, run in enumerate(runs):
        save(run, run=run_of(data=f"/a/path/that/is/{number}/far/too/long/for/a/cell/of/a/table", seed=number))
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = command(COMPARE, *runs).stdout.splitlines()
        assert max(map(len, lines)) <= columns
        labels = [line.split()[0] for line in lines if line[:1].strip()]
        seeds = [seed for line in lines if line.startswith("seed ") for seed in line.split()[1:]]
        assert seeds == list(map(str, range(12)))
        assert labels.count("epochs") == labels.count("seed") == labels.count("data") > 1


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/train.json", "x/other.json"], ["train", "other"]),
        (["modern-1/train.json", "modern-2/train.json"], ["modern-1", "modern-2"]),
        (["a/out/train.json", "b/out/train.json", "b/out/other.json"], ["a", "b", "other"]),
        (["a/x/t.json", "b/x/t.json", "a/y/t.json"], ["a/x", "b/x", "a/y"]),
        (["t.json", "a/t.json", "a/a/t.json"], ["t.json", "a/t.json", "a/a/t.json"]),
        (["t.json", "t.json", "t (2).json", "./t.json"], ["t", "t (2)", "t (2) (2)", "t (3)"]),
        (["cifar10-1.json", "cifar10-1", "cifar10-1"], ["cifar10-1", *["cifar10-1 (published)"] * 2]),
    ],
)
def test_a_run_gets_the_shortest_name_that_tells_it_from_the_others(compare, save, paths, expected):
    for path in paths:
        if path.endswith(".json"):
            save(path)
    found = compare(*paths)[""]
    if paths[-1] == "cifar10-1":
        expected[-1] += " (2)"
    assert found == expected


def test_a_file_named_like_a_published_experiment_comes_first(compare, save, command):
    save("cifar10-1/train.json")
    assert compare("cifar10-1", "cifar10-2")[""] == ["train", "cifar10-2 (published)"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Return a folder with two checkpoints of a run."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with tarfile.open(ROOT / "tests" / "data" / "format_1.tar.xz") as archive:
        for member, name in (("epoch_1_batch_3", "epoch_1_batch_3"), ("end", "epoch_3")):
            content = archive.extractfile(f"format_1/tensorflow/by_hand/{member}.hdf5").read()
            (folder / f"{name}.hdf5").write_bytes(content)
    return folder


def test_of_a_folder_the_only_history_counts_else_the_newest_checkpoint(compare, save, checkpoints, tmp_path):
    save("output/train.json", 2)
    (tmp_path / "output" / "other.json").write_text('{"runs": []}')
    (tmp_path / "output" / "epoch_3.hdf5").write_bytes((checkpoints / "epoch_3.hdf5").read_bytes())
    rows = compare("output", checkpoints, checkpoints / "epoch_1_batch_3.hdf5")
    assert rows[""] == ["train", "epoch_3.hdf5", "epoch_1_batch_3.hdf5"]
    assert [cell.split("/")[0] for cell in rows["epochs"]] == ["2", "3", "1"]
    assert compare(checkpoints)[""] == ["resnet_cifar10"]


def pixels_of(figure):
    """Return the number of pixels of each colour, 0xRRGGBB, in each panel of a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba()).astype(int) @ [1 << 16, 1 << 8, 1, 0]
    boxes = [panel.get_window_extent() for panel in figure.axes]
    parts = [pixels[int(len(pixels) - box.y1) : int(len(pixels) - box.y0), int(box.x0) : int(box.x1)] for box in boxes]
    return [Counter(part.ravel().tolist()) for part in parts]


def colours_of(figure):
    """Return the colour of each run in the legend."""
    return [line.get_color() for line in figure.legends[1].get_lines()]


@pytest.mark.parametrize("epochs", [1, 60, 2000])
def test_each_of_twelve_runs_is_visible_beside_a_published_one(epochs):
    runs = {
        f"run {number}": history_of(epochs, 1 + 0.3 * number, val_accuracy=[0.07 * number] * epochs)
        for number in range(12)
    }
    figure = draw_comparison(runs | {"old": experiments()["cifar10-4"]["curves"] | {"run": {}}}, ["old"])
    colours = [int(to_hex(colour)[1:], 16) for colour in colours_of(figure)]
    assert len(set(colours)) == 13
    assert figure.axes[1].get_xlim() == (0.5, max(epochs, 150) + 0.5)
    for panel in pixels_of(figure):
        assert min(panel[colour] for colour in colours) > 8  # a dot is 5 pixels wide


def test_validation_training_and_averages_can_be_told_apart():
    averages = {"ema_val_loss": [0.1] * 30, "ema_val_accuracy": [0.9] * 30}
    figure = draw_comparison({"a": history_of(30, **averages), "b": history_of(30)}, ["b"])
    for panel in figure.axes:
        validation, training, averaged, *published = panel.lines
        assert validation.get_color() == training.get_color() == averaged.get_color()
        assert validation.get_linewidth() > 2 * training.get_linewidth()
        assert (validation.get_linestyle(), averaged.get_linestyle()) == ("-", "--")
        assert [line.get_linestyle() for line in published] == [":", ":"]
    kinds = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(kinds) == 3
    assert [text.get_text() for text in draw_comparison({"a": history_of(30)}).legends[0].get_texts()] == kinds[:2]


def test_further_metrics_are_drawn_if_several_runs_have_them():
    top, other = {"top5": [0.5] * 3, "val_top5": [0.4] * 3}, {"recall": [0.1] * 3}
    several = {"a": history_of(**top, **other), "b": history_of(**top), "c": history_of()}
    assert [panel.get_ylabel() for panel in draw_comparison(several).axes] == ["loss", "accuracy", "top5"]
    assert [len(panel.lines) for panel in draw_comparison(several).axes] == [6, 6, 4]
    many = {"a": history_of(**{f"metric{number}": [0.1] * 3 for number in range(9)})}
    assert len(draw_comparison(many).axes) == 4


def test_epochs_that_were_not_measured_leave_no_gap():
    history = history_of(40, val_accuracy=[None, None, None, 0.5] * 10)
    line = draw_comparison({"a": history}).axes[1].lines[0]
    assert list(line.get_xdata()) == list(range(4, 41, 4))


@pytest.mark.parametrize(("spikes", "marked"), [({20: 45.3}, {20}), ({20: 45.3, 33: 1e29, 34: 1e29}, {20, 33, 34})])
def test_spikes_of_a_loss_flatten_nothing_and_are_marked(spikes, marked):
    wild = history_of(60)
    for epoch, value in spikes.items():
        wild["val_loss"][epoch - 1] = value
    figure = draw_comparison({"a": history_of(60), "wild": wild})
    low, high = figure.axes[0].get_ylim()
    assert low < 0.4 < 2.53 < high < 3  # 2.53 is the highest of the others
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "^" and len(line.get_xdata())]
    assert {int(epoch) for mark in marks for epoch in mark.get_xdata()} == marked
    assert [mark.get_color() for mark in marks] == colours_of(figure)[1:]


def test_a_run_that_is_wild_throughout_is_marked_and_one_of_another_scale_is_drawn():
    usual = {"a": history_of(60), "b": history_of(60, 1.1)}
    figure = draw_comparison(usual | {"wild": history_of(1, 1e6)})
    assert figure.axes[0].get_ylim()[1] < 3.1
    assert len(figure.legends[0].get_texts()) == 3
    figure = draw_comparison(usual | {"higher": history_of(5, 3.0)})
    assert figure.axes[0].get_ylim()[1] > 3 * 2.3
    assert len(figure.legends[0].get_texts()) == 2


def test_what_was_never_measured_is_an_empty_panel():
    nothing = {"loss": [None] * 2, "val_loss": [], "accuracy": [], "val_accuracy": []}
    histories = {"a": history_of(0), "b": history_of(2, **nothing)}
    figure = draw_comparison(histories)
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss", "accuracy"]
    assert not any(len(line.get_xdata()) for panel in figure.axes for line in panel.lines)
    assert comparison_png(histories).startswith(b"\x89PNG")


# Each with what is shown.
HOSTILE = {
    "$x^$": "$x^$", "_hidden": "_hidden", "[bold]{0}%s\\frac": "[bold]{0}%s\\frac", "日本": "日本",
    "a\nb\x1b[31m": "a\\nb\\x1b[31m", "\udcff": "\\udcff",
}  # fmt: skip


@pytest.mark.filterwarnings("error")  # of fonts that lack a character
def test_names_of_files_are_text_whatever_they_hold(compare, save):
    for name in HOSTILE:
        save(f"{name}.json")
    assert compare(*(f"{name}.json" for name in HOSTILE))[""] == list(HOSTILE.values())


def test_the_legend_shows_names_as_they_are(monkeypatch):
    """Long names are shortened, and none leaves the picture."""
    shown, original = {}, Figure.savefig

    def look(figure, *arguments, **options):
        figure.draw_without_rendering()
        for text in figure.legends[1].get_texts():
            shown[text.get_text()] = text.get_window_extent().x1 <= figure.bbox.x1, text.get_parse_math()
        original(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", look)
    comparison_png({name: history_of() for name in (*HOSTILE.values(), "n" * 200)})
    *texts, shortened = shown
    assert texts == list(HOSTILE.values())
    assert len(shortened) < 100
    assert set(shown.values()) == {(True, False)}


def test_the_picture_is_replaced_and_nothing_else_is_written(command, save, tmp_path):
    save("a.json")
    for words in (["a.json"], ["a.json", "cifar10-1"]):
        done = command(COMPARE, *words)
        assert_names(done.stdout.splitlines()[-1], "output/compare.png")
        assert cv2.imread(str(tmp_path / "output" / "compare.png")).shape[1] == 960
    command(COMPARE, "a.json", "-o", "new/a.png", "--json", "new/a.json")
    command(COMPARE, "a.json", "-o", "new/a.png", "--json", "new/a.json")  # its own table
    assert [names(tmp_path / folder) for folder in ("", "output", "new")] == [
        ["a.json", "new", "output"], ["compare.png"], ["a.json", "a.png"]
    ]  # fmt: skip


def test_the_plot_of_a_run_is_not_overwritten(command, save, tmp_path):
    save("a.json")
    plot = plot_png(json.loads((tmp_path / "a.json").read_text()))
    (tmp_path / "a.png").write_bytes(plot)
    assert_refused(command(COMPARE, "a.json", "-o", "a.png", code=2), "a.png", EXISTS)
    assert (tmp_path / "a.png").read_bytes() == plot


def test_a_wrong_call_is_one_line_and_writes_nothing(command, save, tmp_path, checkpoints):
    for name in ("a.json", "several/b.json", "several/c.json"):
        save(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.png").mkdir()
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "huge.json").write_text((tmp_path / "a.json").read_text().replace("0.1", "1e999"))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "cut.hdf5").write_bytes((checkpoints / "epoch_3.hdf5").read_bytes()[:-1])
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "t.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for words, *parts in (
        ([], "RUN"),
        (["no-such"], r"no-such", MISSING, "cifar10-1", "tiny-2"),
        (["other.json"], r"other\.json", "not a history"),
        (["deep.json"], r"deep\.json", "nested"),
        (["huge.json"], r"huge\.json", "1e999"),
        (["photo.jpg"], r"photo\.jpg", r"\.json", r"\.hdf5"),
        (["cut.hdf5"], r"cut\.hdf5"),
        (["pipe.json"], r"pipe\.json", NOT_REGULAR),
        (["empty"], "empty"),
        (["alone"], r"alone/t\.json", "not a history"),
        (["several"], "several", r"b\.json", r"c\.json"),
        (["a.json", "several"], "several"),
        (["a.json"] * 61, "61", "60"),
        (["a.json", "-o", "x.png"], r"x\.png", "folder"),
        (["a.json", "-o", "a.json/x.png"], r"a\.json"),
        (["a.json", "-o", "x.pdf"], r"x\.pdf", r"\.png"),
        (["a.json", "--json", "table.txt"], r"table\.txt", r"\.json"),
        (["cifar10-1", "--json", "a.json"], r"a\.json exists"),
        (["cifar10-1", "--json", "other.json"], r"other\.json exists"),
    ):
        assert_refused(command(COMPARE, *words, code=2), *parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_it_loads_no_network_library(checkpoints, tmp_path):
    code = (
        "import sys; sys.modules.update(tensorflow=None, keras=None, jax=None, sklearn=None, cv2=None);"
        f"sys.argv = ['compare', {str(checkpoints)!r}, 'cifar10-1', '-o', {str(tmp_path / 'x.png')!r}];"
        "import runpy; runpy.run_module('pipeline.compare', run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "x.png").exists()
