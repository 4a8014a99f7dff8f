"""Train the same network by several recipes, each from several seeds, and set what they reach side by side.

    python benchmarks/recipes.py cifar10 --output output/recipes --seeds 1,2 --limit 10000 --holdout 5000 --epochs 30
    python benchmarks/recipes.py tiny_imagenet --output output/tiny --variants published,modern --holdout 5000

The data set is named first. The variants add a piece at a time to the published recipe: a cosine with a warm-up and
Nesterov's momentum, L2, and, in place of shifts and the random flip, crop and alternating flip, which is the modern
one. Flags other than those below are handed to the script, resnet_cifar10_decay.py or train_decay.py. It goes on with a
run that was stopped, doesn't train one again that is done, and refuses flags that contradict either: the same command
tabulates what there is. Accuracy is that on what training validates on, with --holdout on training images, and then no
test image is looked at. The table goes to OUTPUT/recipes.md too, anew each time.
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
# What each variant hands to the script.
VARIANTS = {
    "published": (),
    "cosine": COSINE,
    "cosine-l2": (*COSINE, "--reg=2.5e-4"),
    "modern": ("--recipe=modern",),
}
# What the variants set, and nobody else.
OWN_FLAGS = (
    *("-m", "--model", "-o", "--resume", "--seed", "--stop_after", "--recipe", "--schedule", "--warmup_epochs"),
    *("--nesterov", "--no_nesterov", "--reg", "--pad_crop", "--flip", "--rotation_range", "--zoom_range"),
    *("--width_shift_range", "--height_shift_range", "--shear_range"),
)


def parse_arguments() -> tuple[Namespace, list[str]]:
    """The arguments, and those that are the script's."""
    parser = arguments.Parser(__doc__)
    parser.add_argument("dataset", choices=SCRIPTS, help="whose network to train")
    parser.add_argument(
        "--output", type=flags.file_path, required=True, metavar="DIR", help="folder of all that the runs write"
    )
    parser.add_argument("--seeds", type=seeds, default=(1,), metavar="N,...", help="seeds (default: 1)")
    parser.add_argument(
        "--variants",
        type=variants,
        default=tuple(VARIANTS),
        metavar="NAME,...",
        help=f"of {', '.join(VARIANTS)} (default: all)",
    )
    return scripts.parse_with_others(parser, OWN_FLAGS, "this comparison's")


def seeds(text: str) -> tuple[int, ...]:
    """Seeds, separated by commas."""
    return tuple(map(flags.seed, text.split(",")))


def variants(text: str) -> tuple[str, ...]:
    """Names of variants, separated by commas."""
    names = tuple(text.split(","))
    if unknown := set(names) - set(VARIANTS):
        raise ArgumentTypeError(f"{', '.join(sorted(unknown))}: expected names out of {', '.join(VARIANTS)}")
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
                raise InputError(f"the learning rate of {folder} was changed on the way; remove it, to train it anew")
    table = report(args, histories)
    print(f"\n{table}")
    (args.output / "recipes.md").write_text(table)
    print(f"written: {args.output / 'recipes.md'}")


def report(args: Namespace, histories: dict[tuple[str, int], dict]) -> str:
    """The table, in Markdown."""
    seeds = " | ".join(f"seed {seed}" for seed in args.seeds)
    lines = [
        f"| variant | {seeds} | mean | spread | training accuracy | minutes a run | flags |",
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
        "Validation accuracy after the last epoch in percent, of the averaged weights where a run keeps them; the most "
        "less the least of the seeds; training accuracy, their mean; minutes by each run's median epoch."
    )
    return "\n".join(lines) + f"\n\n{notes}\n\n`{shlex.join(['python', *sys.argv])}`\n"


if __name__ == "__main__":
    command.run(main)
