"""Reproduce a published experiment with the project's scripts, and compare the results.

    python benchmarks/reproduce.py cifar10-4 --data datasets/cifar-10-batches-py --output output/cifar10-4
    python benchmarks/reproduce.py tiny-1 --data datasets/tiny-imagenet-200 --output output/tiny-1 --max_minutes 8

cifar10-1 and cifar10-2 set the learning rate by hand (0.1 up to epoch 50, 0.01 up to 75, 0.001 up to 85), cifar10-3 and
cifar10-4 decay it over 120 and 150 epochs; tiny-1 sets it by hand (0.1 up to epoch 30, 0.01 up to 50, 0.001 up to 70),
tiny-2 decays it over 75. After --max_minutes or Ctrl+C the run stops cleanly, and the same command resumes it. All
other flags go to the script, such as --precision, --seed, --workers or --checkpoint_seconds. The table of results is
also written to OUTPUT/EXPERIMENT.md.
"""

import json
import math
import shlex
import signal
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import measure  # noqa: F401  (makes the project importable)
import scripts
import train_step

from config import cifar10_config, tiny_imagenet_config
from pipeline.checkpoints.history import validation_accuracy
from pipeline.cli import arguments, command, console, flags
from pipeline.cli.published import experiments
from pipeline.errors import InputError


@dataclass(frozen=True)
class Experiment:
    """A script with its flags, the published results, and each learning rate by hand with its last epoch."""

    script: str
    epochs: int
    published: dict[str, float]
    flags: tuple[str, ...] = ()
    rates: tuple[tuple[float, int], ...] = ()

    @property
    def is_tiny(self) -> bool:
        """True for Tiny ImageNet, False for CIFAR-10."""
        return "rank-1" in self.published

    def commands(self, data: str | None, output: Path, done: int) -> Iterator[list[str]]:
        """Yield the commands to run one after the other, after `done` epochs."""
        words = [self.script + ".py", "--epochs", self.epochs, *self.flags, "--output", output]
        words += ["--data", data] if data else []
        if not self.rates:
            yield [*words, "--model", output / "model.hdf5", "--resume"]
        for rate, last in self.rates:
            if done < last:
                by_hand = ["--checkpoints", output / "model", "--model", "latest", "--lr", rate]
                yield [*words, *by_hand, "--stop_after", last]


# Flags that the experiments set.
OWN_FLAGS = (
    "--epochs",
    "--holdout",  # accuracy is measured on the test set
    "--lr",
    "--stop_after",
    "--checkpoints",
    "-c",
    "--model",
    "-m",
    "--start_epoch",
    "-s",
    "--resume",
    "-o",
)

CIFAR10_RATES = ((0.1, 50), (0.01, 75), (0.001, 85))
TINY_RATES = ((0.1, 30), (0.01, 50), (0.001, 70))
NARROW, WIDE = ("--filters", "16,16,32,64"), ("--filters", "64,64,128,256")
EXPERIMENTS = {
    "cifar10-1": Experiment("resnet_cifar10", 85, {"accuracy": 0.8818}, NARROW, CIFAR10_RATES),
    "cifar10-2": Experiment("resnet_cifar10", 85, {"accuracy": 0.9324}, WIDE, CIFAR10_RATES),
    "cifar10-3": Experiment("resnet_cifar10_decay", 120, {"accuracy": 0.9339}, WIDE),
    "cifar10-4": Experiment("resnet_cifar10_decay", 150, {"accuracy": 0.9377}, WIDE),
    "tiny-1": Experiment("train", 70, {"rank-1": 0.5727, "rank-5": 0.8134}, rates=TINY_RATES),
    "tiny-2": Experiment("train_decay", 75, {"rank-1": 0.5793, "rank-5": 0.8103}),
}

MILESTONES = (1, 2, 5, 10, 20, 30, 50, 75, 100, 125)


def parse_arguments() -> tuple[Namespace, list[str]]:
    """Parse the arguments; return them and those of the script."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("experiment", choices=EXPERIMENTS, help="experiment to run")
    parser.add_argument("--data", type=flags.path, metavar="PATH", help="data set, as in the script")
    parser.add_argument("--output", type=flags.file_path, required=True, metavar="DIR", help="folder for all files")
    parser.add_argument("--max_minutes", type=flags.positive, metavar="M", help="stop cleanly after M minutes")
    return scripts.parse_with_others(parser, OWN_FLAGS, "the experiment")


def main() -> None:
    args, others = parse_arguments()
    experiment = EXPERIMENTS[args.experiment]
    deadline = math.inf if args.max_minutes is None else time.monotonic() + 60 * args.max_minutes
    with console.quiet_start():
        before = newest_checkpoint(args.output)
    for words in experiment.commands(args.data, args.output, before.epoch if before else 0):
        if time.monotonic() >= deadline:
            break
        code, seconds = scripts.run(words + others, deadline)
        scripts.note(args.output, seconds)
        if code == 128 + signal.SIGTERM and time.monotonic() >= deadline:
            break
        if code:
            scripts.leave(code)
    checkpoint = newest_checkpoint(args.output)
    finished = checkpoint is not None and checkpoint.epoch >= experiment.epochs
    if checkpoint is not None and checkpoint.epoch:
        reached, waits = {}, None
        if finished:
            ours = ranks(args) if experiment.is_tiny else {"accuracy": validation_accuracy(checkpoint.history)[-1]}
            reached, waits = ours, waiting(experiment, checkpoint, args.output)
        table = report(args.experiment, checkpoint.history, args.output, reached, waits)
        print(f"\n{table}")
        path = args.output / f"{args.experiment}.md"
        path.write_text(table)
        print(f"written: {path}")
    if not finished:
        print("not done yet; resume with the same command")


def newest_checkpoint(output: Path):
    """Return the newest sound checkpoint, which the script will resume from, or None."""
    from pipeline.checkpoints.checkpoint import read_checkpoint
    from pipeline.checkpoints.listing import list_checkpoints

    for path in reversed(list_checkpoints(output / "model")):
        with suppress(InputError):
            return read_checkpoint(path, arrays=False)
    return None


def ranks(args: Namespace) -> dict[str, float]:
    """Measure rank-1 and rank-5 accuracy on the test set."""
    from pipeline.checkpoints.listing import list_checkpoints

    model = list_checkpoints(args.output / "model")[-1]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "ranks.json"
        words = ["rank_accuracy.py", "--model", model, "--json", result, *(["--data", args.data] if args.data else [])]
        code, _ = scripts.run(words)
        if code:
            scripts.leave(code)
        values = json.loads(result.read_text())
    return {name: values[name] for name in ("rank-1", "rank-5")}


def waiting(experiment: Experiment, checkpoint, output: Path) -> float:
    """Measure the fraction of a step spent waiting for data, on random images of the same size."""
    settings, steps = checkpoint.history["run"]["arguments"], checkpoint.history["run"]["steps"]
    # Enough steps for about ten seconds.
    if seconds := scripts.epoch_seconds(output):
        steps = min(steps, max(3, round(10 * steps / statistics.median(seconds.values()))))
    with tempfile.TemporaryDirectory() as folder:
        with console.quiet_start():
            import keras

            keras.config.set_dtype_policy(settings["precision"])
            config, batches_of = cifar10_config, train_step.in_memory
            if experiment.is_tiny:
                config, batches_of = tiny_imagenet_config, train_step.from_file
            batches = batches_of(Path(folder), settings["batch_size"], steps, checkpoint.options["workers"])
            model = train_step.compiled(config, **{name: settings[name] for name in ("stages", "filters", "reg")})
        return train_step.share_of_waiting(train_step.fed_and_repeated(model, batches, repeats=3))


def report(name: str, history: dict, output: Path, reached: dict[str, float], waits: float | None) -> str:
    """Return the table of results in Markdown."""
    experiment, published = EXPERIMENTS[name], experiments()[name]["curves"]
    run, done = history["run"], len(history["loss"])
    settings, sitting = run["arguments"], run["sittings"][-1]
    lines = [f"# {name}: {done} of {settings['epochs']} epochs", ""]
    curves = ("loss", "accuracy", "val_loss", "val_accuracy")
    lines.append("| epoch | " + " | ".join(f"{curve} published | here" for curve in curves) + " |")
    lines.append("| --- |" + " --- | --- |" * len(curves))
    for epoch in sorted({*MILESTONES, *(last for _, last in experiment.rates), done}):
        if epoch <= min(done, len(published["loss"])):
            cells = [f"{curve[epoch - 1]:.4f}" for name in curves for curve in (published[name], history[name])]
            lines.append(f"| {epoch} | {' | '.join(cells)} |")
    lines += ["", "| | published | here |", "| --- | --- | --- |"]
    for what, value in experiment.published.items():
        here = f"{100 * reached[what]:.2f} %" if what in reached else "not yet"
        lines.append(f"| {what} on the test set, last epoch | {100 * value:.2f} % | {here} |")
    pieces = scripts.notes(output)
    facts = {}
    if seconds := scripts.epoch_seconds(output).values():
        middle = statistics.median(seconds)
        facts["seconds per epoch, validation included"] = f"{middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        facts["all epochs"] = f"{settings['epochs'] * middle / 60:.1f} minutes at this pace"
        facts["training images per second, validation included"] = (
            f"{run['steps'] * settings['batch_size'] / middle:,.0f}"
        )
    if waits is not None:
        facts["share of a step spent waiting for data"] = f"{100 * waits:.1f} %"
    if pieces:
        facts["peak memory of the process"] = f"{max(piece['peak_memory'] for piece in pieces) / 1e9:.2f} GB"
        facts["machine"] = ", ".join(f"{name} {value}" for name, value in pieces[-1]["machine"].items())
    facts |= {
        "device": sitting["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in sitting["versions"].items()),
        "arguments": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "commit": ", ".join(dict.fromkeys(piece["commit"] for piece in pieces)),
        "command": shlex.join(["python", *sys.argv]),
    }
    lines += ["", "| | |", "| --- | --- |", *(f"| {what} | {value} |" for what, value in facts.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command.run(main)
