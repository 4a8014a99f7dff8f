"""Train the same network with several recipes and seeds, and compare the results.

    python benchmarks/recipes.py cifar10 --output output/recipes --seeds 1,2 --limit 10000 --holdout 5000 --epochs 30
    python benchmarks/recipes.py tiny_imagenet --output output/tiny --variants published,modern --holdout 5000

Each variant adds a piece to the published recipe: cosine decay with warm-up and Nesterov momentum; a larger L2; crop
and alternating flip instead of shifts and random flip, which is the modern recipe. All other flags go to the script,
resnet_cifar10_decay.py or train_decay.py. The same command resumes stopped runs, skips finished ones, and refuses flags
that contradict them. Accuracy is measured on the validation images; with --holdout these are training images, and no
test image is used. The table of results is also written to OUTPUT/recipes.md.
"""

import shlex
import statistics
import sys
from argparse import ArgumentTypeError, Namespace

import measure  # noqa: F401  (makes the project importable)
import scripts

from pipeline.checkpoints.history import read_history, validation_accuracy
from pipeline.cli import arguments, command, flags
from pipeline.errors import InputError

SCRIPTS = {"cifar10": "resnet_cifar10_decay", "tiny_imagenet": "train_decay"}
COSINE = ("--schedule=cosine", "--warmup_epochs=1", "--nesterov")
# The script's flags in each variant.
VARIANTS = {
    "published": (),
    "cosine": COSINE,
    "cosine-l2": (*COSINE, "--reg=2.5e-4"),
    "modern": ("--recipe=modern",),
}
# Flags that the variants set.
OWN_FLAGS = (
    *("-m", "--model", "-o", "--resume", "--seed", "--stop_after", "--recipe", "--schedule", "--warmup_epochs"),
    *("--nesterov", "--no_nesterov", "--reg", "--pad_crop", "--flip", "--rotation_range", "--zoom_range"),
    *("--width_shift_range", "--height_shift_range", "--shear_range"),
)


def parse_arguments() -> tuple[Namespace, list[str]]:
    """Parse the arguments; return them and those of the script."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("dataset", choices=SCRIPTS, help="data set")
    parser.add_argument("--output", type=flags.file_path, required=True, metavar="DIR", help="folder for all files")
    parser.add_argument("--seeds", type=seeds, default=(1,), metavar="N,...", help="seeds (default: 1)")
    parser.add_argument(
        "--variants",
        type=variants,
        default=tuple(VARIANTS),
        metavar="NAME,...",
        help=f"names out of {', '.join(VARIANTS)}, separated by commas (default: all)",
    )
    return scripts.parse_with_others(parser, OWN_FLAGS, "this comparison's")


def seeds(text: str) -> tuple[int, ...]:
    """Parse seeds separated by commas."""
    return tuple(map(flags.seed, text.split(",")))


def variants(text: str) -> tuple[str, ...]:
    """Parse names of variants separated by commas."""
    names = tuple(text.split(","))
    if unknown := set(names) - set(VARIANTS):
        raise ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected one or more of {', '.join(VARIANTS)}")
    return names


def main() -> None:
    args, others = parse_arguments()
    script, histories = SCRIPTS[args.dataset], {}
    for seed in args.seeds:
        for variant in args.variants:
            folder = args.output / f"{variant}-{seed}"
            places = ("--model", folder / "model.hdf5", "--output", folder, "--resume")
            words = (f"{script}.py", *VARIANTS[variant], *others, "--seed", seed, *places)
            code, seconds = scripts.run(words)
            scripts.note(folder, seconds)
            if code:
                scripts.leave(code)
            history = histories[variant, seed] = read_history(folder / f"{script}.json")
            if history["run"]["learning_rate_changes"]:
                raise InputError(f"the learning rate of {folder} was changed by hand; remove it to train it again")
    table = report(args, histories)
    print(f"\n{table}")
    (args.output / "recipes.md").write_text(table)
    print(f"written: {args.output / 'recipes.md'}")


def report(args: Namespace, histories: dict[tuple[str, int], dict]) -> str:
    """Return the table of results in Markdown."""
    seeds = " | ".join(f"seed {seed}" for seed in args.seeds)
    lines = [
        f"| variant | {seeds} | mean | spread | training accuracy | minutes per run | flags |",
        "| --- |" + " --- |" * (len(args.seeds) + 5),
    ]
    for variant in args.variants:
        runs = [histories[variant, seed] for seed in args.seeds]
        reached = [100 * validation_accuracy(run)[-1] for run in runs]
        trained = statistics.mean(100 * run["accuracy"][-1] for run in runs)
        paces = [
            statistics.median(seconds.values()) * len(run["loss"]) / 60
            for run, seed in zip(runs, args.seeds, strict=True)
            if (seconds := scripts.epoch_seconds(args.output / f"{variant}-{seed}"))
        ]
        cells = [
            variant,
            *(f"{value:.2f}" for value in reached),
            f"**{statistics.mean(reached):.2f}**",
            f"{max(reached) - min(reached):.2f}",
            f"{trained:.2f}",
            f"{statistics.mean(paces):.0f}" if paces else "",
            f"`{shlex.join(VARIANTS[variant])}`" if VARIANTS[variant] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = (
        "Validation accuracy after the last epoch in percent, of the averaged weights if a run keeps them. Spread: "
        "maximum minus minimum over the seeds. Training accuracy: mean over seeds. Minutes: epochs times median epoch."
    )
    return "\n".join(lines) + f"\n\n{notes}\n\n`{shlex.join(['python', *sys.argv])}`\n"


if __name__ == "__main__":
    command.run(main)
