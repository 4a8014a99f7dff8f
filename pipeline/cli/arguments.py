"""Parse the scripts' command lines, and resolve the value of each flag. Standard library only.

Flags have no default in the parser: `resolve` fills in those not given, from the checkpoint on a resume, else from the
script's defaults.
"""

import argparse
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import NoReturn

from pipeline.cli.flags import (
    FLAGS,
    OWN,
    PROCESS,
    RECIPE,
    ROWS,
    Flag,
    OneOf,
    as_flag,
    as_text,
    changeable,
    model_file,
    path,
    recipe_values,
    rows,
    switch,
    whole,
)  # fmt: skip
from pipeline.errors import InputError


class Parser(argparse.ArgumentParser):
    """Accept `-` in place of `_` in flags, and report a wrong flag in one line with exit code 2."""

    names: set[str] = set()  # noqa: RUF012  (all flags of this process)

    def __init__(self, description: str, prog: str | None = None, **options) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args=None, namespace=None):
        Parser.names |= {action.dest for action in self._actions if action.option_strings}
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([_with_underscores(word) for word in words], namespace)

    def add(self, name: str, type: Callable | None, metavar: str | None, help: str, **options) -> None:  # noqa: A002
        """Add the flag --`name`; `options` are those of `add_argument`, plus `short`, a one-letter name."""
        _add(self, Flag(name, type, metavar, help, short=options.pop("short", None)), help, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def with_flags(message: str) -> str:
    """Return the message of an `InputError` with arguments in backquotes shown as flags, where such flags exist."""
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1]}" if found[1] in Parser.names else found[1], message)


def training_parser(description: str, defaults: Mapping, config: ModuleType) -> Parser:
    """Create the parser of a training script.

    Args:
        description: text at the top of `--help`.
        defaults: the script's own defaults, which override a recipe's.
        config: config module of the data set. Its `RECIPES` maps each value of `--recipe` to the recipe's values, the
            default recipe first; for its other constants see `add_data`.
    """
    parser = Parser(description)
    parser.epilog = (
        "Ctrl+C finishes the batch, then saves and stops; on a terminal you can also continue with another\n"
        "learning rate. SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGQUIT and SIGPWR save and stop. Exit codes:\n"
        "0 done, 1 the disk failed, 2 bad input, 128 plus the number of a signal (130 for Ctrl+C, 143 for SIGTERM)."
    )
    add_data(parser, config)
    dry = "train two batches, validate one, print sizes, memory, speed and estimated time; write nothing"
    parser.add("dry_run", None, None, dry, action="store_true")
    add_rows(parser, rows(config), defaults, config)
    return parser


def add_rows(parser: Parser, flags: Iterable[Flag], defaults: Mapping, config: ModuleType) -> None:
    """Add the `flags` other than --data, with their defaults in the help; arguments as in `training_parser`."""
    tables = {recipe: _defaults(defaults, config.RECIPES, recipe) for recipe in config.RECIPES}
    default = next(iter(tables.values()))  # the first recipe's
    group = parser.add_argument_group("recipe, and flags that override its values")
    for flag in flags:
        name, text = flag.name, flag.help
        if name == "data":
            continue
        others = {of: table[name] for of, table in tables.items() if table[name] != default[name] and name != "recipe"}
        if default[name] is not None:
            stated = {"default": default[name], **others}.items()
            text += f" ({'; '.join(f'{of}: {as_text(value)}' for of, value in stated)})"
        to = group if flag.scope == RECIPE or flag.name == "recipe" else parser
        _add(to, flag, text, **({"choices": tuple(config.RECIPES)} if flag.name == "recipe" else {}))


def _add(to: argparse._ActionsContainer, flag: Flag, text: str, **options) -> None:
    if flag.type is switch:
        pair = to.add_mutually_exclusive_group()
        pair.add_argument(f"--{flag.name}", action="store_true", default=None, help=text)
        opposite = {"action": "store_false", "dest": flag.name, "default": None, "help": f"turn --{flag.name} off"}
        pair.add_argument(f"--no_{flag.name}", **opposite)
        return
    names = [f"-{flag.short}"] if flag.short else []
    if "action" not in options:
        metavar = f"{{{','.join(flag.type.words)}}}" if isinstance(flag.type, OneOf) else flag.metavar
        options |= {"type": flag.type, "metavar": metavar}
    to.add_argument(*names, f"--{flag.name}", help=text, **options)


def add_data(parser: Parser, config: ModuleType) -> None:
    """Add --data with the help `config.DATA_HELP`; the environment variable `config.DATA_VARIABLE` sets its default."""
    variable = getattr(config, "DATA_VARIABLE", None)
    default = os.environ.get(variable) if variable else None
    parser.add("data", path, "PATH", config.DATA_HELP, default=default or None)


def add_by_hand(parser: Parser, checkpoints: str) -> None:
    """Add the flags of a script with the learning rate set by hand; `checkpoints` is its default folder."""
    folder = f"folder for checkpoints (default: that of --model, else {checkpoints})"
    parser.add("checkpoints", path, "DIR", folder, short="c")
    parser.add("model", path, "FILE", "checkpoint to resume from, or the word latest", short="m")
    parser.add("start_epoch", whole, "N", "fail unless --model was saved after epoch N", short="s")


def add_decay(parser: Parser, model: str) -> None:
    """Add the flags of a script with learning rate decay; `model` is the default file of the trained model."""
    file = f"trained model; checkpoints go to the folder of that name without the extension (default: {model})"
    parser.add("model", model_file, "FILE", file, default=model, short="m")
    parser.add("resume", None, None, "resume from the newest checkpoint in the folder", action="store_true")


def resolve(
    parsed: Namespace, defaults: Mapping, recipes: Mapping, saved: Mapping | None = None, options: Mapping | None = None
) -> Namespace:
    """Resolve the value of each flag: as given, else the checkpoint's, else the default.

    Args:
        parsed: the parser's result; None for a flag that wasn't given.
        defaults: the script's own defaults, which override a recipe's.
        recipes: the values of each recipe by its name.
        saved: the stored arguments of the run to resume; None for a fresh run.
        options: the stored options of the process that wrote the checkpoint.

    Raises:
        InputError: flags contradict each other or the checkpoint, or the checkpoint holds an invalid value.
    """
    if saved is not None:
        saved = _before_recipes(defaults, recipes) | dict(saved)
        if FLAGS["recipe"].saved(saved["recipe"]) not in recipes:
            raise InputError(f"the checkpoint has --recipe {saved['recipe']!a:.100}; expected {' or '.join(recipes)}")
        if unknown := sorted(saved.keys() - FLAGS.keys()):
            raise InputError(f"the checkpoint has --{unknown[0]!a:.100}, which this version doesn't know")
    recipe = (saved or {}).get("recipe") or parsed.recipe or next(iter(recipes))
    # Flags for other kinds of images than the script's have no value.
    fitting = [flag for flag in ROWS if flag.images is None or hasattr(parsed, flag.name)]
    table = _defaults(defaults, recipes, recipe)
    resolved = vars(parsed) | {flag.name: table[flag.name] for flag in fitting if flag.name in table}
    if saved is not None:
        # A flag that didn't exist yet when the checkpoint was written is off.
        later = {flag.name for flag in fitting if flag.scope != PROCESS and flag.stored and flag.name not in saved}
        if missing := sorted(name for name in later if FLAGS[name].default is OWN):
            raise InputError(f"the checkpoint lacks the values of {', '.join(missing)}; name another checkpoint")
        resolved |= {name: FLAGS[name].default for name in later}
    free = changeable(saved or {})
    for flag in fitting:
        name, value = flag.name, getattr(parsed, flag.name, None)
        stored_in = options if flag.scope == PROCESS else saved
        if stored_in is not None and name in stored_in:
            resolved[name] = flag.saved(stored_in[name])
        if value is not None and value != resolved[name] and stored_in is saved is not None and name not in free:
            raise InputError(
                f"{as_flag(name, value)} differs from the checkpoint's {as_flag(name, resolved[name])}; omit it to "
                "resume, or start a fresh run without a checkpoint"
            )
        if value is not None:
            resolved[name] = value
    if resolved["warmup_epochs"] > resolved["epochs"]:
        whose = "" if parsed.warmup_epochs is not None or saved else "the recipe's "
        epochs = resolved["epochs"]
        raise InputError(f"{whose}--warmup_epochs {resolved['warmup_epochs']}: expected at most --epochs {epochs}")
    if resolved["nesterov"] and not resolved["momentum"]:
        raise InputError("--momentum 0: --nesterov needs momentum; expected more than 0, or --no_nesterov")
    return Namespace(**resolved)


def stored(values: Mapping, *, process: bool = False) -> dict:
    """Select the `values` that checkpoints store for the run, or with `process` for the process."""
    names = [flag.name for flag in ROWS if flag.stored and (flag.scope == PROCESS) == process]
    return {name: values[name] for name in names if name in values}


def _defaults(defaults: Mapping, recipes: Mapping[str, Mapping], recipe: str) -> dict:
    """Return the default of each flag under `recipe`."""
    shared = {flag.name: flag.default for flag in ROWS if flag.default is not OWN}
    return shared | {"recipe": recipe} | recipe_values(recipes[recipe]) | dict(defaults)


def _before_recipes(defaults: Mapping, recipes: Mapping[str, Mapping]) -> dict:
    """Return the values that checkpoints from before recipes existed lack: those of the default recipe."""
    values = _defaults(defaults, recipes, next(iter(recipes)))
    return {name: values[name] for name in ("recipe", "holdout", *recipe_values({}))}


def _with_underscores(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
