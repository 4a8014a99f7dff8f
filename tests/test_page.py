"""The page of a run for the browser."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from threading import Event, Timer
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import CHECKPOINTS, PAGED, names
from messages import assert_names, assert_refused
from stopping import BY_HAND, DECAY

from pipeline.callbacks import RunPage, loggers
from pipeline.checkpoints.history import new_history
from pipeline.cli.published import experiments
from pipeline.pages import Progress, RunFacts, progress_part, render, run_page
from pipeline.pages.chart import Chart, Curve, Mark, spans_magnitudes

pytest_plugins = ("browser",)

PAGE = Path("output", "resnet_cifar10.html")
RUN = (*PAGED, "--epochs", "2", "--every", "1")
EPOCHS = 30


class Text(HTMLParser):
    """The elements of a page with their attributes, and its text outside of styles and scripts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self._inside = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_data(self, data):
        if self._inside[-1:] not in (["style"], ["script"]):
            self.text += data


def history_of(epochs, **curves):
    """Return a history whose losses fall and whose accuracies rise."""
    falling = (2.0 * np.linspace(1.0, 0.2, epochs)).tolist()
    rising = np.linspace(0.2, 0.9, epochs).tolist()
    history = new_history({"script": "train", "steps": 10, "arguments": {"batch_size": 8}, "sittings": []})
    history |= {"loss": falling, "accuracy": rising, "val_loss": [2.5 - value for value in rising]}
    history |= {"val_accuracy": [0.9 * value for value in rising], "learning_rate": [0.1] * epochs}
    return history | {"seconds": [2.0] * epochs} | curves


def written(path, history, state="finished", refresh=None, **facts):
    """Write the page of a history; return its HTML."""
    facts = RunFacts("train", **({"epochs": EPOCHS} | facts))
    before, after = run_page(history, facts)
    progress = Progress(state, len(history["loss"]), 3 if refresh else 0, 10, refresh=refresh)
    html = before + progress_part(progress, facts) + after
    path.write_text(html)
    return html


def test_a_run_leaves_a_page_with_its_curves_record_and_the_command_that_goes_on(command, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.cli.start.comparable", lambda script, values: "cifar10-2")
    done = command(BY_HAND, *RUN, "--stop_after", "1")
    assert f"written: {PAGE}" in done.stdout
    text = Text((tmp_path / PAGE).read_text()).text
    resume = re.search(r"resume with: (.*)", done.stdout)[1]
    assert_names(text, "stopped", re.escape(resume), "1 of 2", re.escape(str(tmp_path / CHECKPOINTS / "epoch_1.hdf5")))
    command(BY_HAND, "--model", "latest", "--lr", "0.01")
    page = Text((tmp_path / PAGE).read_text())
    history = json.loads((tmp_path / "output" / "resnet_cifar10.json").read_text())
    sitting = history["run"]["sittings"][-1]
    facts = ("finished", "2 of 2", sitting["device"], sitting["commit"], history["run"]["data"])
    assert_names(
        page.text,
        r"published \(cifar10-2\)",
        *map(re.escape, facts),
        *(f"{name} {of}" for name, of in sitting["versions"].items()),
    )
    for curve in ("loss", "val_accuracy", "learning_rate"):
        assert_names(page.text, *(re.escape(f"{value:.5g}") for value in history[curve]))
    assert "data-refresh" not in (tmp_path / PAGE).read_text()


@pytest.mark.parametrize("path", ["page.htm", "there/page.html"])
def test_a_path_that_can_t_be_a_page_is_refused(tmp_path, path):
    (tmp_path / "there").write_text("")
    with pytest.raises(ValueError, match=r"page\.htm |there"):
        RunPage(tmp_path / path)


def test_inside_an_epoch_only_the_progress_changes(tmp_path):
    history, path = history_of(2), tmp_path / "page.html"
    page = RunPage(path, seconds=0)
    page.history = history
    page.set_params({"epochs": 5, "steps": 10})
    page.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD(0.1)))
    page.on_train_begin()
    first = path.read_text()
    page.on_epoch_begin(2)
    for batch in (0, 6):
        page.on_train_batch_end(batch, {"loss": keras.ops.convert_to_tensor(0.125)})
        page._writing.result()
    second = path.read_text()
    around = r"(?s)(.*)<section id=\"now\"(.*)</section>(.*)"
    (before, now, after), (*others,) = (re.match(around, text).groups() for text in (first, second))
    assert (others[0], others[2]) == (before, after)
    assert_names(Text(f'<section id="now"{others[1]}').text, "training", "2 of 5", "7 of 10", r"0\.125", "left")
    assert_names(now, "starting")
    page.on_test_begin()
    page.on_test_batch_end(0)
    page._writing.result()
    assert_names(path.read_text(), "validating")
    page.on_epoch_end(2, {"loss": 1.0, "seconds": 2.0})
    assert_names(Text(path.read_text()).text, "training", "3 of 5")
    page.on_train_end()
    assert_names(path.read_text(), "stopped")
    assert "data-refresh" not in path.read_text()


def test_speed_and_time_left_are_those_of_the_last_batches_and_epochs(tmp_path, monkeypatch):
    now = iter((100.0, 102.0))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    page = RunPage(tmp_path / "page.html", seconds=1)
    page.history = history_of(2)  # of 10 batches of 8 images; an epoch took 2 seconds
    page.set_params({"epochs": 5})
    page.on_train_begin()
    page.on_epoch_begin(2)
    page.on_train_batch_end(0, {})
    page.on_train_batch_end(4, {})  # four batches in two seconds
    progress = page._progress()
    assert progress.images_per_second == 4 * 8 / 2
    assert progress.seconds_left == pytest.approx(2.5 * 2)
    page.history["seconds"] = [None, None]
    assert page._progress().seconds_left == pytest.approx(2.5 * 10 / 2)


def test_a_page_after_an_epoch_follows_the_one_that_the_thread_is_writing(tmp_path, monkeypatch):
    page = RunPage(tmp_path / "page.html", seconds=0)
    page.history = history_of(1)
    page.on_train_begin()
    may_go_on, written = Event(), []

    def slowly(path, html):
        may_go_on.wait(10)
        written.append(html)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.callbacks.logs.runpage.write_atomically", slowly)
        page.on_epoch_begin(1)
        page.on_train_batch_end(0, {})
        Timer(0.2, may_go_on.set).start()
        page.history = history_of(2)
        page.write()
    assert [html.count(b'<tr><th scope="row">1</th>') for html in written] == [1, 1]
    assert [b'<tr><th scope="row">2</th>' in html for html in written] == [False, True]


@pytest.mark.parametrize("fails", ["describe", "write"])
def test_a_page_that_can_t_be_made_ends_no_run_and_hides_no_error(tmp_path, caplog, fails):
    page = RunPage(tmp_path / "page.html")
    page.history = history_of(1)
    page.on_train_begin()
    if fails == "describe":
        page.describe = lambda: Path("gone").resolve(strict=True)
    else:
        page.describe = lambda: RunFacts("a", 2, command=3.0 + 1j, files=[object()], folder="\ud800")
        page.history = history_of(2, loss=["no number", 1.0])
    page.end("first")
    assert page.failures == len(caplog.records) == 1


def test_code_that_changes_under_way_doesn_t_change_the_page_of_a_run(tmp_path):
    assert render._environment().auto_reload is False
    first = render._inline("page.js")
    assert render._inline("page.js") is first


def test_a_folder_that_becomes_unwritable_stops_nothing_and_is_reported_once_per_epoch(tmp_path, caplog):
    page = RunPage(tmp_path / "folder" / "page.html", seconds=0)
    page.history = history_of(1)
    page.on_train_begin()
    shutil.rmtree(tmp_path / "folder")
    (tmp_path / "folder").write_text("")
    page.on_epoch_begin(1)
    for batch in range(3):
        page.on_train_batch_end(batch, {})
        assert isinstance(page._writing.exception(), OSError)
    assert (page.failures, caplog.records) == (0, [])
    page.write()
    assert page.failures == len(caplog.records) == 1
    assert "folder" in caplog.text


def test_it_needs_no_run(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    callbacks = loggers(None, None, tmp_path / "page.html")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=2, epochs=2, callbacks=callbacks, verbose=0)
    assert_names(Text((tmp_path / "page.html").read_text()).text, "finished", "2 of 2")


def test_a_later_part_of_a_training_is_finished_when_its_last_epoch_is(tmp_path):
    page = RunPage(tmp_path / "page.html")
    page.set_params({"epochs": 5})
    page.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD(0.1)))
    for epochs in (range(3, 5), range(5, 6)):
        page.on_train_begin()
        assert "data-refresh" in page.path.read_text()
        for epoch in epochs:
            page.on_epoch_begin(epoch)
            page.on_epoch_end(epoch, {"loss": 1.0})
        page.on_train_end()
        page.set_params({"epochs": 6})
        text = Text(page.path.read_text()).text
        assert_names(text, "finished")
        assert "so far" not in text


def test_data_that_fails_is_told(command, tmp_path, monkeypatch):
    from pipeline.errors import InputError
    from pipeline.io.imageset import ArrayImages

    def read(self, rows, *args):
        raise InputError("image <3> can't be read")

    monkeypatch.setattr(ArrayImages, "read", read)
    command(DECAY, *RUN, code=2)
    page = (tmp_path / "output" / "resnet_cifar10_decay.html").read_text()
    assert_names(Text(page).text, "failed: image <3> can't be read")
    assert "data-refresh" not in page


def test_names_and_paths_are_shown_as_text_whatever_they_hold(tmp_path):
    hostile = [
        '<script>document.title = "x"</script>',
        "</style><b>",
        '" onload="x',
        "a\x00b\x1b[31m\u202ec",
        "<!-- now -->",
    ]
    shown = [*hostile[:3], r"a\x00b\x1b[31m\u202ec", hostile[4]]
    history = history_of(2) | {'"><i>': [1.0, 2.0]}
    history["run"] |= {"classes": hostile, "arguments": {"data": hostile[0], "output": hostile[3]}}
    facts = {"files": [Path("<file>\udcff\x01")], "folder": Path("<folder>\udcff"), "command": "<command>\udcff"}
    page = Text(written(tmp_path / "page.html", history, **facts))
    paths = (r"<file>\udcff\x01", r"<folder>\udcff", r"<command>\udcff")
    for name in (*shown, '"><i>', *paths):
        assert name in page.text
    assert [tag for tag, _ in page.elements if tag in ("script", "style", "b", "i")] == ["style", "script"]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert addresses == ["data:,"]


@pytest.mark.parametrize("epochs", [1, 2000])
def test_a_run_of_any_length_has_a_small_page(tmp_path, epochs):
    curves = {f"{prefix}{name}": [1 / 3] * epochs for prefix in ("", "val_", "ema_val_") for name in ("loss", "top5")}
    html = written(tmp_path / "page.html", history_of(epochs, **curves), epochs=epochs)
    assert len(html.encode()) < 2_000_000
    assert html.count('<tr><th scope="row">') >= epochs


def test_the_published_curve_is_drawn_as_far_as_the_run_has_come(tmp_path):
    published = experiments()["cifar10-2"]["curves"]
    page = Text(written(tmp_path / "page.html", history_of(2), reference=("cifar10-2", published)))
    labels = [of["aria-label"] for tag, of in page.elements if tag == "svg" and "aria-label" in of]
    known = "published (cifar10-2): {:.5g} in epoch 1, {:.5g} in epoch 2"
    for label, name in zip(labels, ("val_loss", "val_accuracy"), strict=False):
        assert known.format(*published[name]) in label


def chart_of(*values, **options):
    return Chart("Loss", [Curve("loss", "training", "train", values)], len(values), **options)


def test_a_curve_has_a_gap_where_a_value_is_missing_and_dots_at_the_others():
    chart = chart_of(1.0, 2.0, None, 2.0)
    assert chart.limits == pytest.approx((0.95, 2.05))
    bottom, top = (f"{1000 * (1 - height):.1f}" for height in (0.05 / 1.1, 1.05 / 1.1))
    assert chart.path(chart.curves[0]) == f"M125.0 {bottom}h0L375.0 {top}M875.0 {top}h0"
    assert chart.dots(chart.curves[0]) == f"M125.0 {bottom}h0M375.0 {top}h0M875.0 {top}h0"
    assert_names(chart.description, "lowest 1 in epoch 1", "highest 2 in epoch 2", "2 in epoch 4")


def test_a_wild_value_doesn_t_flatten_the_curve():
    chart = chart_of(3.0, 1e9, 2.5, 2.0, 1.8, 1.5, 1.4, 1.3, 1.2, 1.1)
    assert chart.limits[1] < 3.5
    assert_names(chart.outliers, "1 value", r"1e\+09", "epoch 2")
    heights = [float(y) for y in re.findall(r"[ML]\S+ (-?[\d.]+)", chart.path(chart.curves[0]))]
    assert heights[1] < 0 < min(heights[:1] + heights[2:])
    assert chart_of(3.0, 2.0).outliers == ""


def test_values_of_many_magnitudes_have_a_logarithmic_axis(tmp_path):
    losses = [1e9, 5e8, 2e8, 1e3, 2.0, 1.5]
    page = Text(written(tmp_path / "page.html", history_of(6, loss=losses)))
    assert_names(page.text, "1e\\+08", "10000")
    assert not spans_magnitudes([[2.3, 0.001]])
    assert not spans_magnitudes([[0.0, 1e9]])
    assert spans_magnitudes([[1e9], [None, 1.0]])


def test_the_losses_of_one_epoch_are_no_outliers_of_each_other():
    curves = [Curve(str(value), "", "", [value]) for value in (2.4, 2.5, 9.0)]
    assert Chart("Loss", curves, 1).outliers == ""


@pytest.mark.parametrize("values", [(0.1,), (0.0, 0.0), (-1.0, -1.0), (None,), (1e-30, 1e29), (1.0, 1.0 + 1e-12)])
def test_every_curve_has_an_axis(values):
    chart = chart_of(*values)
    low, high = chart.limits
    assert low < high
    assert chart.ticks
    assert all(0 <= height <= 1 for height, _ in chart.ticks)
    assert len({label for _, label in chart.ticks}) == len(chart.ticks)
    assert [label for _, label in chart.epoch_ticks] == [str(epoch) for epoch in range(1, len(values) + 1)]


def test_rates_that_were_set_by_hand_have_a_logarithmic_axis():
    chart = chart_of(0.1, 0.01, 0.001, is_log=True, marks=(Mark(1, "0.01"), Mark(2, "0.001"), Mark(2.01, "0.002")))
    assert [label for _, label in chart.ticks] == ["0.001", "0.01", "0.1"]
    (first, second, third) = (height for height, _ in chart.ticks)
    assert second - first == pytest.approx(third - second)
    assert [label for _, label in chart_of(0.05, 0.02, is_log=True).ticks] == ["0.02", "0.05"]
    assert chart.lines == [(pytest.approx(1 / 3), "0.01"), (pytest.approx(2 / 3), "0.001"), (pytest.approx(0.67), "")]


def hidden_curves(browser):
    """Return two screenshots of the screen's charts: as they are, and without curves."""
    shown = browser.screenshot()
    browser.evaluate("document.querySelectorAll('.curve, .dots').forEach((e) => e.style.display = 'none')")
    return shown, browser.screenshot()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_the_curves_are_seen_on_a_screen_and_on_a_phone_by_day_and_by_night(browser, tmp_path, width, scheme):
    written(tmp_path / "page.html", history_of(EPOCHS), refresh=60.0)
    browser.errors.clear()
    browser.resize(width, 900, scheme)
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.documentElement.scrollWidth") == width  # nothing sticks out
    browser.evaluate("document.querySelector('.chart').scrollIntoView()")
    with_curves, without = hidden_curves(browser)
    assert (with_curves != without).any(axis=2).sum() > 500
    corner = without[5, 5].mean()
    assert corner > 200 if scheme == "light" else corner < 60
    # Text can be told from the background.
    heading = "getComputedStyle(document.querySelector('h1')).color"
    colour = np.mean([int(part) for part in re.findall(r"\d+", browser.evaluate(heading))[:3]])
    assert abs(colour - corner) > 150
    assert browser.errors == []


def test_one_epoch_is_seen(browser, tmp_path):
    written(tmp_path / "page.html", history_of(1))
    browser.resize(1100, 900)
    browser.open(tmp_path / "page.html")
    with_curves, without = hidden_curves(browser)
    assert (with_curves != without).any(axis=2).sum() > 40


def test_pointing_and_keys_show_the_values_of_an_epoch(browser, tmp_path):
    history = history_of(EPOCHS)
    written(tmp_path / "page.html", history)
    browser.resize(1100, 900)
    browser.open(tmp_path / "page.html")

    def shown():
        values = browser.evaluate("[...document.querySelectorAll('.value')].map((e) => e.textContent)")
        for epoch in range(1, EPOCHS + 1):
            names = ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate")
            if values == [f"{history[name][epoch - 1]:.5g}" for name in names]:
                return epoch
        return None

    assert shown() == EPOCHS
    left, top, wide, high = browser.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.area').getBoundingClientRect())"
    )
    browser.point(left + wide * 10.5 / EPOCHS, top + high / 2)
    assert shown() == 11
    assert_names(browser.evaluate("document.querySelector('[role=status]').textContent"), "epoch 11")
    browser.point(left, top - 100)
    assert shown() == EPOCHS
    browser.evaluate("document.querySelector('.chart').focus()")
    for key, epoch in (("Home", 1), ("ArrowRight", 2), ("End", EPOCHS), ("ArrowLeft", EPOCHS - 1), ("Escape", EPOCHS)):
        browser.press(key)
        assert shown() == epoch, key


def test_metrics_of_similar_names_keep_their_values(browser, tmp_path):
    alike = {"epoch": [0.1, 0.2], "a b": [0.3, 0.4], "a_b": [0.5, 0.6], 'q"<': [0.7, 0.8]}
    written(tmp_path / "page.html", history_of(2) | alike)
    browser.resize(1100, 900)
    browser.open(tmp_path / "page.html")
    browser.evaluate("document.querySelector('.chart').focus()")
    browser.press("Home")
    values = dict(
        browser.evaluate("[...document.querySelectorAll('.value')].map((e) => [e.dataset.curve, e.textContent])")
    )
    assert {name: values[name] for name in alike} == {name: f"{numbers[0]:.5g}" for name, numbers in alike.items()}


def test_the_page_reloads_itself_keeps_the_place_and_stops_when_the_run_ends(browser, tmp_path):
    path = tmp_path / "page.html"
    history = history_of(EPOCHS)
    history["run"]["classes"] = [f"class {number}" for number in range(50)]
    written(path, history, "training", refresh=0.3, epochs=40)
    browser.resize(1100, 500)
    browser.open(path)
    browser.evaluate("document.querySelector('details').open = true")
    browser.evaluate("document.querySelector('.chart').focus()")
    browser.press("Home")
    browser.evaluate("scrollTo(0, 700); document.querySelector('#numbers-place').scrollTop = 50")
    written(path, history_of(EPOCHS + 1) | {"run": history["run"]}, "training", refresh=0.3, epochs=40)
    browser.wait_for_load()
    assert_names(browser.evaluate("document.title"), "31", "40")
    place = "[scrollY, document.querySelector('#numbers-place').scrollTop, document.querySelector('details').open]"
    assert browser.evaluate(place) == [700, 50, True]
    assert_names(browser.evaluate("document.querySelector('[role=status]').textContent"), "epoch 1,")
    written(path, history_of(EPOCHS + 2), epochs=40)
    while "32" not in browser.evaluate("document.title"):
        browser.wait_for_load()
    browser.evaluate("scrollTo(0, 600)")  # a reload by hand keeps the place, too
    browser.open(path)
    assert browser.evaluate("scrollY") == 600
    browser.evaluate("window.isSame = true")
    written(path, history_of(EPOCHS + 3), epochs=40)
    browser.call("Runtime.evaluate", expression="new Promise((d) => setTimeout(d, 800))", awaitPromise=True)
    assert browser.evaluate("window.isSame") is True


def test_a_page_of_a_killed_run_says_so(browser, tmp_path):
    html = written(tmp_path / "page.html", history_of(2), "training", refresh=5.0)
    old = re.sub(r'data-written="(\d+)"', lambda found: f'data-written="{int(found[1]) - 600_000}"', html)
    (tmp_path / "page.html").write_text(old)
    browser.open(tmp_path / "page.html")
    silence = "(({hidden, textContent}) => [hidden, textContent])(document.querySelector('#silence'))"
    hidden, text = browser.evaluate(silence)
    assert not hidden
    assert_names(text, "10 minutes")
    (tmp_path / "page.html").write_text(html)
    browser.open(tmp_path / "page.html")
    assert browser.evaluate(silence)[0]


def test_a_foreign_script_doesn_t_run(browser, tmp_path):
    html = written(tmp_path / "page.html", history_of(2))
    (tmp_path / "page.html").write_text(html.replace("<main>", "<script>document.title = 'foreign'</script><main>"))
    browser.open(tmp_path / "page.html")
    assert "foreign" not in browser.evaluate("document.title")
    assert any("Content Security Policy" in json.dumps(error) for error in browser.errors)


def test_a_run_from_an_earlier_state_moves_the_page_aside_and_no_page_writes_none(command, tmp_path):
    command(BY_HAND, *RUN)
    command(BY_HAND, "--model", tmp_path / CHECKPOINTS / "epoch_1.hdf5", "--lr", "0.01")
    aside = tmp_path / "output" / "earlier-1"
    assert names(aside) == ["resnet_cifar10.html", "resnet_cifar10.json", "resnet_cifar10.png"]
    (tmp_path / PAGE).unlink()
    done = command(BY_HAND, "--model", "latest", "--no_page", "--epochs", "3")
    assert ".html" not in done.stdout
    command(BY_HAND, "--model", "latest", "--epochs", "4")
    assert not (tmp_path / PAGE).exists()
    # Another run moves a page aside, even if it writes none.
    (tmp_path / PAGE).write_text("of the first run")
    command(BY_HAND, *RUN, "--seed", "7", "--checkpoints", "others", "--no_page", "--epochs", "1")
    assert (tmp_path / "output" / "earlier-2" / PAGE.name).read_text() == "of the first run"
    assert_refused(command(BY_HAND, "--no_page", "--page", code=2), "--page")
