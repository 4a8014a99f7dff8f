"""Flags, and what they are worth on a resume."""

from argparse import Namespace

import pytest

from pipeline.cli import arguments

DEFAULTS = {
    "lr": 0.1,
    "epochs": 85,
    "batch_size": 64,
    "momentum": 0.9,
    "stages": (9, 9),
    "filters": (8, 8, 8),
}
RECIPES = {"published": {"schedule": "poly", "flip": "random"}, "modern": {"schedule": "cosine", "pad_crop": 4}}


def parse(*words):
    return arguments.training_parser("", DEFAULTS, RECIPES).parse_args(words)


def test_flags_take_a_dash_for_an_underscore():
    given = parse("--batch-size", "3", "--stop-after=4", "--stages", "1,2")
    assert (given.batch_size, given.stop_after, given.stages) == (3, 4, (1, 2))


def test_help_states_the_defaults():
    text = arguments.training_parser("", DEFAULTS, RECIPES).format_help()
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
    ],
)  # fmt: skip
def test_a_wrong_value_ends_in_one_line_that_names_it(flag, value, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(flag, value)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert flag in message
    assert repr(value) in message


def test_defaults_hold_where_nothing_is_given():
    args = arguments.resolve(parse(), DEFAULTS)
    assert (args.lr, args.epochs, args.stages, args.seed, args.workers, args.data) == (0.1, 85, (9, 9), 42, 2, None)


def test_flags_win_over_the_checkpoint_where_they_may_and_contradict_it_elsewhere():
    saved = DEFAULTS | arguments.RUN_DEFAULTS | {"lr": 0.05, "batch_size": 32, "stages": [3, 3], "data": "digits"}
    options = {"workers": 7, "every": 1, "output": "there"}

    def resolve(*words):
        return arguments.resolve(parse(*words), DEFAULTS, saved, options, free={"lr"})

    args = resolve()
    assert (args.lr, args.batch_size, args.stages, args.data) == (0.05, 32, (3, 3), "digits")
    assert (args.workers, args.every, args.output) == (7, 1, "there")
    assert resolve("--lr", "0.01", "--stages", "3,3", "--every", "2").lr == 0.01
    with pytest.raises(ValueError, match="--batch_size 64 differs from the checkpoint's --batch_size 32"):
        resolve("--batch_size", "64")
    with pytest.raises(ValueError, match="--stages 9,9 differs from the checkpoint's --stages 3,3"):
        resolve("--stages", "9,9")
    with pytest.raises(ValueError, match="--limit 5 differs from the checkpoint's --limit none"):
        resolve("--limit", "5")


def test_unknown_values_of_a_script_pass_through():
    assert arguments.resolve(Namespace(model="x"), {}).model == "x"
