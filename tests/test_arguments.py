"""Flags, and their values on a resume."""

from argparse import Namespace
from dataclasses import fields

import pytest
from messages import naming

from config import cifar10_config, imagenet_config, tiny_imagenet_config
from pipeline.cli import arguments, flags
from pipeline.preprocessing import AffineAugmentation, Mixing, RandomCrop

DEFAULTS = {
    "lr": 0.1,
    "epochs": 85,
    "batch_size": 64,
    "momentum": 0.9,
    "stages": (9, 9),
    "filters": (8, 8, 8),
}
VIEW = {"image_size": 64, "eval_ratio": 0.875}
RECIPES = {"published": {"schedule": "poly", "flip": "random"}, "modern": {"schedule": "cosine", "pad_crop": 4}}
CONFIG = Namespace(DATA_HELP="the data", RECIPES=RECIPES)
ANY_SIZE = Namespace(DATA_HELP="the data", RECIPES=RECIPES, IMAGE_SIZES=flags.ANY_SIZE)


def parse(*words):
    return arguments.training_parser("", DEFAULTS, CONFIG).parse_args(words)


def test_flags_take_a_dash_for_an_underscore():
    given = parse("--batch-size", "3", "--stop-after=4", "--stages", "1,2")
    assert (given.batch_size, given.stop_after, given.stages) == (3, 4, (1, 2))


def test_help_states_the_defaults():
    text = arguments.training_parser("", DEFAULTS, CONFIG).format_help()
    for default in (
        "(default: 85)",
        "(default: 9,9)",
        "(default: 0.1)",
        "(default: float32)",
        "(default: 5)",
        "(default: 0; modern: 4)",
    ):
        assert default in text


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--epochs", "0"), ("--epochs", "1.5"), ("--batch_size", "-1"), ("--lr", "0"), ("--lr", "nan"), ("--lr", "inf"),
        ("--momentum", "1"), ("--stages", "1,,2"), ("--filters", "a"), ("--reg", "-1"), ("--seed", "4294967296"),
        ("--workers", "0"), ("--every", "0"), ("--limit", "0"), ("--stop_after", "x"), ("--precision", "float16"),
        ("--recipe", "best"), ("--schedule", "step"), ("--warmup_epochs", "-1"), ("--pad_crop", "1.5"), ("--ema", "1"),
        ("--flip", "yes"), ("--cutout", "-1"), ("--mixup", "1e-9"), ("--cutmix", "nan"), ("--label_smoothing", "1"),
        ("--width_shift_range", "1e300"), ("--epochs", "1e6"), ("--epochs", "1000001"),
        ("--holdout", "0"), ("--rotation_range", "181"), ("--zoom_range", "1"), ("--width_shift_range", "inf"),
        ("--image_size", "0"), ("--image_size", "5000"), ("--eval_ratio", "0.09"), ("--eval_ratio", "1.1"),
        ("--crop_area", "0"), ("--crop_area", "nan"), ("--crop_ratio", "0.9"), ("--color_jitter", "1"),
    ],
)  # fmt: skip
def test_a_wrong_value_ends_in_one_line_that_names_it(flag, value, capsys):
    config = CONFIG if flags.FLAGS[flag[2:]].images != flags.ANY_SIZE else ANY_SIZE
    with pytest.raises(SystemExit) as stop:
        arguments.training_parser("", DEFAULTS | VIEW, config).parse_args([flag, value])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert flag in message
    assert repr(value) in message


def test_defaults_hold_where_nothing_is_given():
    args = arguments.resolve(parse(), DEFAULTS, RECIPES)
    assert (args.lr, args.epochs, args.stages, args.seed, args.workers, args.data) == (0.1, 85, (9, 9), 42, 2, None)


def test_flags_win_over_the_checkpoint_where_they_may_and_contradict_it_elsewhere():
    fresh = arguments.stored(vars(arguments.resolve(parse(), DEFAULTS, RECIPES)))
    saved = fresh | {"lr": 0.05, "batch_size": 32, "stages": [3, 3], "data": "digits"}
    options = {"workers": 7, "every": 1, "output": "there"}

    def resolve(*words):
        return arguments.resolve(parse(*words), DEFAULTS, RECIPES, saved, options)

    args = resolve()
    assert (args.lr, args.batch_size, args.stages, args.data) == (0.05, 32, (3, 3), "digits")
    assert (args.workers, args.every, args.output) == (7, 1, "there")
    assert resolve("--lr", "0.01", "--stages", "3,3", "--every", "2").lr == 0.01
    with pytest.raises(ValueError, match=naming("--batch_size 64", "--batch_size 32")):
        resolve("--batch_size", "64")
    with pytest.raises(ValueError, match=naming("--stages 9,9", "--stages 3,3")):
        resolve("--stages", "9,9")
    with pytest.raises(ValueError, match=naming("--limit 5", "--limit none")):
        resolve("--limit", "5")


def test_flags_for_images_of_one_size_and_of_any_size_exclude_each_other(capsys):
    parser = arguments.training_parser("", DEFAULTS | VIEW, ANY_SIZE)
    given = parser.parse_args(["--image_size", "96", "--crop_area", "0.5"])
    args = arguments.resolve(given, DEFAULTS | VIEW, RECIPES)
    assert (args.image_size, args.eval_ratio, args.crop_area, args.crop_ratio) == (96, 0.875, 0.5, 1.0)
    assert not hasattr(args, "pad_crop")
    for parse_args, flag in ((parser.parse_args, "--pad_crop"), (lambda words: parse(*words), "--crop_area")):
        with pytest.raises(SystemExit):
            parse_args([flag, "1"])
        assert flag in capsys.readouterr().err


def test_unknown_values_of_a_script_pass_through():
    given = Namespace(model="x", recipe=None)
    assert arguments.resolve(given, DEFAULTS, RECIPES).model == "x"


def test_every_row_of_the_table_is_complete_and_every_value_of_a_recipe_has_one():
    stored, options = {}, {}
    defaults = DEFAULTS | VIEW
    for config in (CONFIG, ANY_SIZE):
        given = arguments.training_parser("", defaults, config).parse_args([])
        args = vars(arguments.resolve(given, defaults, RECIPES))
        stored, options = stored | arguments.stored(args), options | arguments.stored(args, process=True)
    assert {*stored, *options, "stop_after"} == {flag.name for flag in flags.ROWS} == set(flags.FLAGS)
    assert flags.saved_values(stored | options, flags.FLAGS) == stored | options
    values = {field.name: field.default for kind in (AffineAugmentation, RandomCrop, Mixing) for field in fields(kind)}
    assert values.items() <= flags.recipe_values({}).items()  # off in the checkpoint, so off here
    for config in (cifar10_config, tiny_imagenet_config, imagenet_config):
        for table in (*config.RECIPES.values(), config.BY_HAND, config.DECAY):
            assert flags.saved_values(table, flags.FLAGS) == table


@pytest.mark.parametrize(("schedule", "more"), [("constant", {"epochs"}), ("poly", set())])
def test_what_may_change_on_a_resume_follows_from_the_table(schedule, more):
    process = {"stop_after", "every", "keep", "checkpoint_seconds", "workers", "output", "page", "csv", "tensorboard"}
    assert flags.changeable({"schedule": schedule}) == process | {"lr", "data"} | more


def test_arguments_in_a_message_are_shown_as_the_flags_that_there_are():
    parse()
    assert arguments.with_flags("`holdout` 5 and `db_path`: see `data`") == "--holdout 5 and db_path: see --data"
