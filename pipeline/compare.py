"""Compare runs: draw their curves in one picture, and print their results and the settings in which they differ.

    python -m pipeline.compare output/resnet_cifar10.json cifar10-2
    python -m pipeline.compare output/recipes/modern-* cifar10-4 --output recipes.png --json recipes.json

RUN is a history (.json), a checkpoint or trained model (.hdf5), a folder with one history, a folder of checkpoints, of
which the newest counts, or an experiment published in 2018: cifar10-1 to cifar10-4, tiny-1 or tiny-2. In the table, a
dash stands for what is unknown.

Run it in the project's folder, or set PYTHONPATH to that folder.
"""

import json
import os
import shutil
from argparse import ArgumentTypeError, Namespace
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from pathlib import Path

from pipeline.cli import arguments, command, flags
from pipeline.cli.published import experiments
from pipeline.errors import InputError, as_input_error
from pipeline.utils.text import printable, table

_UNKNOWN = "-"
# In the picture's file, to tell it from others.
_TITLE = "Comparison of runs"
# Columns of the table if it isn't printed on a terminal.
_COLUMNS = 120
# Characters of a digest that tell it from others.
_DIGEST = 10
# Files that a message names.
_MOST_NAMED = 5
# Runs in a picture that can be drawn and read.
_MOST_RUNS = 60

_EPOCHS = ("epochs", "planned_epochs")
_OFF = {flag.name: flag.default for flag in flags.ROWS if flag.name != "epochs"}


@dataclass(frozen=True)
class Run:
    """A run to compare; `path` is its file, or the name of a published experiment."""

    path: Path
    history: dict
    is_published: bool = False


def parse_arguments() -> Namespace:
    parser = arguments.Parser(__doc__, prog="python -m pipeline.compare")
    parser.add_argument("runs", nargs="+", type=flags.file_path, metavar="RUN", help="file, folder, or name")
    png = partial(output_file, ".png")
    picture = "PNG file of the picture (default: output/compare.png)"
    parser.add("output", png, "FILE", picture, default=Path("output/compare.png"), short="o")
    parser.add("json", partial(output_file, ".json"), "FILE", "also write the table to this file, as JSON")
    return parser.parse_args()


def output_file(suffix: str, text: str) -> Path:
    """Parse the name of a file that ends in `suffix`."""
    path = flags.file_path(text)
    if path.suffix != suffix:
        raise ArgumentTypeError(f"{text!r} does not end in {suffix}")
    return path


def main() -> None:
    args = parse_arguments()
    if len(args.runs) > _MOST_RUNS:
        raise InputError(f"{len(args.runs)} runs: expected at most {_MOST_RUNS}; name fewer")
    check_outputs(args.output, args.json)
    runs = name_runs([find_run(named) for named in args.runs])
    results = {name: results_of(run.history) for name, run in runs.items()}
    settings = differing([settings_of(run.history) for run in runs.values()])
    rows = [["", *runs], *result_rows(results.values()), *setting_rows(settings)]
    lines = table(rows, shutil.get_terminal_size((_COLUMNS, 24)).columns)
    print("\n".join(lines), flush=True)

    # Matplotlib takes most of the time.
    from pipeline.files.atomic import write_atomically
    from pipeline.plots.comparison import comparison_png

    if args.json:
        content = [
            {"name": name, "path": None if run.is_published else str(run.path), **results[name], "differing": own}
            for (name, run), own in zip(runs.items(), settings, strict=True)
        ]
        write_atomically(args.json, (json.dumps({"runs": content}, indent=1) + "\n").encode())
    histories = {name: run.history for name, run in runs.items()}
    published = [name for name, run in runs.items() if run.is_published]
    write_atomically(args.output, comparison_png(histories, published, _TITLE))
    print(printable(f"written: {' and '.join(str(path) for path in (args.output, args.json) if path)}"))


def check_outputs(output: Path, table_file: Path | None) -> None:
    """Raise `InputError` unless the files can be written, and are absent or were written by this command."""
    from pipeline.files.atomic import check_folder
    from pipeline.files.strictjson import read_json

    for path in filter(None, (output, table_file)):
        check_folder(path.parent)
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file")
    if os.path.lexists(output) and not is_comparison(output):
        raise InputError(f"{output} exists, and is not a picture of this command; name another file")
    if table_file and os.path.lexists(table_file):
        # It could be a history, named here by mistake.
        wrong = InputError(f"{table_file} exists, and is not a table of this command; name another file")
        try:
            content = read_json(table_file)
        except (OSError, ValueError) as error:
            raise wrong from error
        if not isinstance(content, dict) or content.keys() != {"runs"}:
            raise wrong


def is_comparison(path: Path) -> bool:
    """Return whether the file `path` is a picture of this command: its PNG file begins with the title."""
    from pipeline.files.regular import open_regular

    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return f"Title\0{_TITLE}".encode() in file.read(1024)
    except OSError:
        return False


def find_run(named: Path) -> Run:
    """Find and read the run at the path `named`, or the published experiment of that name.

    Raises:
        InputError: there is none, or a file is not what it should be.
    """
    from pipeline.checkpoints.checkpoint import read_checkpoint
    from pipeline.checkpoints.history import read_history

    expected = "a history (.json), a checkpoint (.hdf5), or a folder with one history or with checkpoints"
    if not os.path.exists(named):
        if str(named) not in experiments():
            names = ", ".join(experiments())
            raise InputError(f"{named} doesn't exist; name {expected}, or a published experiment: {names}")
        experiment = experiments()[str(named)]
        network = {name: experiment[name] for name in ("stages", "filters")}
        return Run(named, experiment["curves"] | {"run": {"script": experiment["script"], "arguments": network}}, True)
    path = find_file(named) if named.is_dir() else named
    match path.suffix.lower():
        case ".json":
            return Run(path, read_history(path))
        case ".hdf5" | ".h5" | ".hdf":
            return Run(path, read_checkpoint(path, arrays=False).history)
    raise InputError(f"{path} is neither a history nor a checkpoint; name {expected}")


def find_file(folder: Path) -> Path:
    """Return the only history in `folder`, else its newest checkpoint.

    Raises:
        InputError: it holds several histories, or neither.
    """
    from pipeline.checkpoints.history import read_history
    from pipeline.checkpoints.listing import list_checkpoints

    with as_input_error(OSError, f"can't read folder {folder}: "):
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json")
        checkpoints = list_checkpoints(folder)
    histories = []
    for path in files:
        try:
            read_history(path)
            histories.append(path)
        except InputError:  # such as a table of this command
            pass
    if len(histories) > 1:
        names = [path.name for path in histories[:_MOST_NAMED]] + ["..."] * (len(histories) > _MOST_NAMED)
        raise InputError(f"folder {folder} holds {len(histories)} histories, {', '.join(names)}; name one")
    found = histories or checkpoints[-1:] or files[:1]  # the last for the reason why it is not a history
    if not found:
        raise InputError(f"folder {folder} holds neither a history nor a checkpoint; name another")
    return found[0]


def name_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """Return the runs by name, the shortest that tells them apart; the same run again gets a number."""
    stems = defaultdict(set)
    for run in runs:
        stems[stem_of(run)].add(run.path.absolute())
    named: dict[str, Run] = {}
    for run in runs:
        alike = stems[stem_of(run)]
        name = unique = printable(stem_of(run) if len(alike) == 1 else distinct_part(run.path.absolute(), alike))
        for number in count(2):
            if unique not in named:
                break
            unique = f"{name} ({number})"
        named[unique] = run
    return named


def stem_of(run: Run) -> str:
    """Return the name of a run's file without its ending; for a checkpoint of an epoch, the script's."""
    from pipeline.checkpoints.listing import NAMES

    if run.is_published:
        return f"{run.path} (published)"
    return run.history["run"].get("script", run.path.stem) if NAMES.fullmatch(run.path.name) else run.path.stem


def distinct_part(path: Path, paths: Collection[Path]) -> str:
    """Return the part of `path` between what all `paths` have in common at their start and at their end."""
    parts = [other.parts for other in paths]
    shortest = min(map(len, parts))
    start = min(_length_in_common(parts), shortest - 1)
    end = min(_length_in_common([other[::-1] for other in parts]), shortest - 1 - start)
    return "/".join(path.parts[start : len(path.parts) - end])


def _length_in_common(paths: Sequence[Sequence[str]]) -> int:
    """Return the number of parts that all `paths` begin with."""
    return len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))))


def results_of(history: dict) -> dict[str, float | None]:
    """Return the results of a run by name; None if unknown."""
    from pipeline.checkpoints.history import epochs_of

    results = {"epochs": epochs_of(history), "planned_epochs": history["run"].get("arguments", {}).get("epochs")}
    for curve in ("val_accuracy", "ema_val_accuracy"):
        numbers = history.get(curve) or [None]
        best = max((number for number in numbers if number is not None), default=None)
        epoch = None if best is None else numbers.index(best) + 1
        results |= {curve: numbers[-1], f"best_{curve}": best, f"best_{curve}_epoch": epoch}
    for curve in ("accuracy", "val_loss"):
        results[curve] = (history.get(curve) or [None])[-1]
    seconds = history.get("seconds") or [None]
    return results | {"hours": None if None in seconds else sum(seconds) / 3600}


def settings_of(history: dict) -> dict[str, object]:
    """Return what is known of a run's script, data, arguments, and of the machine it ran on last, by name."""
    run = history["run"]
    machine = (run.get("sittings") or [run])[-1]  # in format 1, the run itself records it
    settings = {name: run[name] for name in ("script", "dataset", "precision") if name in run}
    if "data" in run:
        settings["digest of data"] = run["data"][:_DIGEST]
    settings |= {name: value for name, value in run.get("arguments", {}).items() if name != "epochs"}
    if "learning_rate_changes" in run:
        changes = [
            f"{rate:g} after epoch {epoch}{f', batch {batch}' if batch else ''}"
            for epoch, batch, rate in run["learning_rate_changes"]
        ]
        settings["learning rate changes"] = "; ".join(changes) or None
    settings |= {name: machine[name] for name in ("backend", "device") if name in machine}
    settings |= {f"{library} version": version for library, version in machine.get("versions", {}).items()}
    if machine.get("commit"):
        settings["commit"] = machine["commit"][:_DIGEST]
    return settings


def differing(settings: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return those `settings` of each run that differ between runs in which they are known."""
    values = defaultdict(list)
    for own in settings:
        # The scripts store all flags; one that a script or its version lacks is off.
        for name, value in ((_OFF | own) if "seed" in own else own).items():
            values[name].append(value)
    names = {name for name, known in values.items() if any(value != known[0] for value in known)}
    return [{name: value for name, value in own.items() if name in names} for own in settings]


def result_rows(results: Collection[Mapping[str, object]]) -> Iterator[list[str]]:
    """Yield the rows of the table with the `results` of each run."""
    yield ["epochs", *("/".join(str(own[name]) for name in _EPOCHS if own[name] is not None) for own in results)]
    for curve in ("val_accuracy", "ema_val_accuracy"):
        if curve == "val_accuracy" or any(own[curve] is not None for own in results):
            yield [curve, *(_text(own[curve]) for own in results)]
            yield [f"best {curve}", *(_text(own[f"best_{curve}"], own[f"best_{curve}_epoch"]) for own in results)]
    for name in ("accuracy", "val_loss", "hours"):
        yield [name, *(_text(own[name]) for own in results)]


def setting_rows(settings: Sequence[Mapping[str, object]]) -> Iterator[list[str]]:
    """Yield the rows of the table with the `settings` of each run."""
    for name in dict.fromkeys(name for own in settings for name in own):
        yield [name, *(flags.as_text(own[name]) if name in own else _UNKNOWN for own in settings)]


def _text(value: float | None, epoch: int | None = None) -> str:
    """Return a result as text, with the epoch that reached it if given."""
    if value is None:
        return _UNKNOWN
    return f"{value:.{4 if abs(value) < 1e4 else 0}f}" + (f", epoch {epoch}" if epoch else "")


if __name__ == "__main__":
    command.run(main, tidy=True)  # a signal leaves no temporary file
