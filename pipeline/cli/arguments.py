"""The parsers of the scripts, and what a flag is worth when a run is resumed. Standard library only.

No flag has a default in the parser: `resolve` fills in what wasn't given, from the checkpoint where a run goes on, else
from the script's defaults.
"""

import argparse
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
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
    switch,
    whole,
)  # fmt: skip
from pipeline.errors import InputError


class Parser(argparse.ArgumentParser):
    """Takes every flag with `-` in place of `_` too, and answers a wrong one in a single line, exit code 2."""

    names: set[str] = set()  # noqa: RUF012  (of all flags of this process)

    def __init__(self, description: str, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args=None, namespace=None):
        Parser.names |= {action.dest for action in self._actions if action.option_strings}
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([_with_underscores(word) for word in words], namespace)

    def add(self, name: str, type: Callable | None, metavar: str | None, help: str, **options) -> None:  # noqa: A002
        """Add the flag --`name`; `options` are those of `add_argument`, and `short`, another name of one letter."""
        _add(self, Flag(name, type, metavar, help, short=options.pop("short", None)), help, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def with_flags(message: str) -> str:
    """The message of an `InputError`, the arguments in backquotes shown as flags where there are such."""
    return re.sub(r"`(\w+)`", lambda found: f"--{found[1]}" if found[1] in Parser.names else found[1], message)


def training_parser(description: str, defaults: Mapping, config: ModuleType) -> Parser:
    """The parser of a training script.

    Args:
        description: what `--help` says first.
        defaults: the script's own, which `--help` states, and which win over a recipe's.
        config: the data set's, with `RECIPES`, a table of values for each name that `--recipe` takes, the usual one
            first, and what `add_data` takes.
    """
    parser = Parser(description)
    parser.epilog = (
        "Ctrl+C finishes the batch and saves; on a terminal it asks first, and takes another learning rate. SIGTERM,\n"
        "SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU, SIGQUIT and SIGPWR save and end. Exit codes: 0 done, 1 the disk failed,\n"
        "2 bad input, 128 and its number for a signal, as 130 for Ctrl+C and 143 for SIGTERM."
    )
    tables = {recipe: _defaults(defaults, config.RECIPES, recipe) for recipe in config.RECIPES}
    default = next(iter(tables.values()))  # of the first recipe
    add_data(parser, config)
    group = parser.add_argument_group("the recipe, and each of its values, which wins over it")
    for flag in ROWS:
        name, text = flag.name, flag.help
        if name == "data":
            continue
        others = {of: table[name] for of, table in tables.items() if table[name] != default[name] and name != "recipe"}
        if default[name] is not None:
            stated = {"default": default[name], **others}.items()
            text += f" ({'; '.join(f'{of}: {as_text(value)}' for of, value in stated)})"
        to = group if flag.kind == RECIPE or flag.name == "recipe" else parser
        _add(to, flag, text, **({"choices": tuple(config.RECIPES)} if flag.name == "recipe" else {}))
    return parser


def _add(to: argparse._ActionsContainer, flag: Flag, text: str, **options) -> None:
    if flag.type is switch:
        pair = to.add_mutually_exclusive_group()
        pair.add_argument(f"--{flag.name}", action="store_true", default=None, help=text)
        opposite = {"action": "store_false", "dest": flag.name, "default": None, "help": f"don't {flag.help}"}
        pair.add_argument(f"--no_{flag.name}", **opposite)
        return
    names = [f"-{flag.short}"] if flag.short else []
    if "action" not in options:
        metavar = f"{{{','.join(flag.type.words)}}}" if isinstance(flag.type, OneOf) else flag.metavar
        options |= {"type": flag.type, "metavar": metavar}
    to.add_argument(*names, f"--{flag.name}", help=text, **options)


def add_data(parser: Parser, config: ModuleType) -> None:
    """The flag that names the data, as `DATA_HELP` in `config` says; the variable `DATA_VARIABLE` stands for it."""
    variable = getattr(config, "DATA_VARIABLE", None)
    default = os.environ.get(variable) if variable else None
    parser.add("data", path, "PATH", config.DATA_HELP, default=default or None)


def add_by_hand(parser: Parser, checkpoints: str) -> None:
    """The flags of a script in which the learning rate is set by hand; `checkpoints` is its default folder."""
    folder = f"folder of the checkpoints (default: that of --model, else {checkpoints})"
    parser.add("checkpoints", path, "DIR", folder, short="c")
    parser.add("model", path, "FILE", "checkpoint to go on from, or the word latest", short="m")
    parser.add("start_epoch", whole, "N", "epoch of --model, as a check", short="s")


def add_decay(parser: Parser, model: str) -> None:
    """The flags of a script in which the learning rate decays; `model` is the default file of the trained model."""
    file = f"file of the trained model; its checkpoints go to the folder of that name without ending (default: {model})"
    parser.add("model", model_file, "FILE", file, default=model, short="m")
    parser.add("resume", None, None, "go on from the newest checkpoint of the folder", action="store_true")


def resolve(
    given: Namespace, defaults: Mapping, recipes: Mapping, saved: Mapping | None = None, options: Mapping | None = None
) -> Namespace:
    """The values a run goes by: the flags given, else the checkpoint's, else the defaults.

    Args:
        given: what the parser returned, None for a flag that wasn't given.
        defaults: the script's own, which win over a recipe's.
        recipes: the values of each recipe.
        saved: the arguments of the run to go on with, as a file holds them, or None for a fresh run.
        options: the options of the process that wrote the checkpoint.

    Raises:
        InputError: flags contradict each other or the checkpoint, or that holds what no flag can be.
    """
    if saved is not None:
        saved = _before_recipes(defaults, recipes) | dict(saved)
        if FLAGS["recipe"].saved(saved["recipe"]) not in recipes:
            raise InputError(f"the checkpoint has --recipe {saved['recipe']!a:.100}; there is no such recipe")
        if strange := sorted(saved.keys() - FLAGS.keys()):
            raise InputError(f"the checkpoint has --{strange[0]!a:.100}, which this version doesn't know")
    recipe = (saved or {}).get("recipe") or given.recipe or next(iter(recipes))
    resolved = vars(given) | _defaults(defaults, recipes, recipe)
    if saved is not None:
        # A flag that came later is off in what was written before, unless each script has its own default.
        unknown = {flag.name for flag in ROWS if flag.kind != PROCESS and flag.stored and flag.name not in saved}
        if missing := sorted(name for name in unknown if FLAGS[name].default is OWN):
            raise InputError(f"the checkpoint lacks the values of {', '.join(missing)}")
        resolved |= {name: FLAGS[name].default for name in unknown}
    free = changeable(saved or {})
    for flag in ROWS:
        name, value = flag.name, getattr(given, flag.name, None)
        held = options if flag.kind == PROCESS else saved
        if held is not None and name in held:
            resolved[name] = flag.saved(held[name])
        if value is not None and value != resolved[name] and held is saved is not None and name not in free:
            raise InputError(
                f"{as_flag(name, value)} differs from the checkpoint's {as_flag(name, resolved[name])}; leave it out "
                "to go on with the run, or start a fresh one without a checkpoint"
            )
        if value is not None:
            resolved[name] = value
    if resolved["warmup_epochs"] > resolved["epochs"]:
        raise InputError(f"--warmup_epochs {resolved['warmup_epochs']}: expected at most --epochs {resolved['epochs']}")
    if resolved["nesterov"] and not resolved["momentum"]:
        raise InputError("--momentum 0: --nesterov looks ahead along the momentum; expected more, or --no_nesterov")
    return Namespace(**resolved)


def stored(values: Mapping, *, process: bool = False) -> dict:
    """Those of `values` that checkpoints hold of the run, or of the process."""
    return {flag.name: values[flag.name] for flag in ROWS if flag.stored and (flag.kind == PROCESS) == process}


def _defaults(defaults: Mapping, recipes: Mapping[str, Mapping], recipe: str) -> dict:
    """What each flag is worth where nobody says more, by `recipe`."""
    shared = {flag.name: flag.default for flag in ROWS if flag.default is not OWN}
    return shared | {"recipe": recipe} | recipe_values(recipes[recipe]) | dict(defaults)


def _before_recipes(defaults: Mapping, recipes: Mapping[str, Mapping]) -> dict:
    """What a checkpoint goes by that says nothing of recipes, because there were none yet."""
    values = _defaults(defaults, recipes, next(iter(recipes)))
    return {name: values[name] for name in ("recipe", "holdout", *recipe_values({}))}


def _with_underscores(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
