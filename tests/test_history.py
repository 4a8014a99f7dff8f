"""Histories: the beginning of another, or of another run."""

import copy

import pytest

from pipeline.checkpoints import history as module
from pipeline.checkpoints.history import append_epoch, lineage, lineages, new_history
from pipeline.cli import flags

ARGUMENTS = {"lr": 0.1, "data": "a", "epochs": 9, "schedule": "constant", "seed": 1, "stages": (1, 2), "batch_size": 8}


def history_of(done, changes=(), script="train", data="0" * 64, **arguments):
    run = {"script": script, "data": data, "arguments": ARGUMENTS | arguments, "learning_rate_changes": list(changes)}
    history = new_history(run)
    for epoch in range(done):
        logs = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), 1.0 / (1 + epoch))
        first = 0.1 if changes else run["arguments"]["lr"]
        append_epoch(history, logs, [first, *(rate for changed, _, rate in changes if changed <= epoch)][-1])
    return history


def is_ancestor_of(earlier, later, batch=0):
    """Return the result of `history.is_ancestor_of`; if `earlier` is complete, check that its lineage says the same."""
    changeable = flags.changeable(later["run"].get("arguments", {}))
    found = module.is_ancestor_of(earlier, later, batch, changeable)
    if later["run"].keys() <= earlier["run"].keys():
        assert found == (lineage(earlier, changeable) in lineages(later, len(earlier["loss"]), batch, changeable))
    return found


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_run_begins_with_its_own_states_whatever_may_change_on_the_way(epochs):
    later = history_of(4, epochs=20)
    later["run"]["arguments"]["data"] = "elsewhere"
    earlier = copy.deepcopy(history_of(epochs))
    earlier["run"]["arguments"]["stages"] = [1, 2]  # as in JSON
    assert is_ancestor_of(earlier, later, batch=3)
    assert is_ancestor_of(earlier, earlier, batch=3)


@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2}, {"stages": (2, 2)}, {"batch_size": 4}, {"lr": 0.2}, {"data": "1" * 64}, {"script": "train_decay"},
        {"schedule": "poly"}, {"changes": [[0, 1, 0.05]]},
    ],
)  # fmt: skip
def test_another_run_s_state_is_not_its_beginning(epochs, other):
    assert not is_ancestor_of(history_of(epochs, **other), history_of(4), batch=3)


def test_a_state_of_the_first_epoch_that_says_nothing_of_its_run_is_nobody_s_beginning():
    assert not is_ancestor_of(new_history(), history_of(4), batch=3)
    for name in ("script", "data", "arguments"):
        earlier = history_of(0)
        del earlier["run"][name]
        assert not is_ancestor_of(earlier, history_of(4), batch=3)
    assert is_ancestor_of(new_history(), new_history())


def test_of_a_decay_the_number_of_epochs_is_part_of_the_run():
    assert is_ancestor_of(history_of(1, schedule="poly"), history_of(4, schedule="poly"))
    assert not is_ancestor_of(history_of(1, schedule="poly", epochs=8), history_of(4, schedule="poly"))


def test_a_rate_that_was_changed_before_a_state_is_part_of_it():
    later = history_of(4, [[1, 0, 0.05], [2, 5, 0.01]], lr=0.01)
    assert is_ancestor_of(history_of(1), later)
    assert is_ancestor_of(history_of(2, [[1, 0, 0.05]], lr=0.05), later, batch=5)
    # Changed at batch 5 of the third epoch, where this run kept its rate.
    assert not is_ancestor_of(history_of(2, [[1, 0, 0.05]], lr=0.05), later, batch=6)
    assert not is_ancestor_of(history_of(2), later)


def test_a_state_of_the_first_epoch_doesn_t_tell_which_rate_it_began_with():
    assert not is_ancestor_of(history_of(0, lr=0.2), history_of(4, [[0, 5, 0.05]], lr=0.05), batch=3)


def test_a_rate_chosen_in_validation_is_part_of_the_state_that_is_saved_there():
    later = history_of(4, [[3, 0, 0.05]], lr=0.05)
    later["run"]["steps"] = 4
    during = history_of(2, [[3, 0, 0.05]], lr=0.05)
    during["run"]["steps"] = 4
    assert is_ancestor_of(during, later, batch=4)
    assert not is_ancestor_of(during, later, batch=3)


def test_a_history_without_averages_is_not_the_beginning_of_one_with():
    averaged = history_of(2, ema=0.9)
    averaged |= {"ema_val_loss": [1.0, 1.0], "ema_val_accuracy": [0.5, 0.5]}
    assert not is_ancestor_of(history_of(1), averaged)
    assert not is_ancestor_of(history_of(1, ema=0.9), averaged)
    assert not is_ancestor_of(averaged, history_of(2))
    bare = history_of(1)
    del bare["run"]["arguments"]
    assert not is_ancestor_of(bare, averaged)


def sitting(**more):
    return {"epoch": 0, "batch": 0, "backend": "jax", "device": "x", "versions": {}, "commit": None} | more


ID = "20261130-195201-123456-0a1b2c3d"


@pytest.mark.parametrize(
    ("more", "is_valid"),
    [
        ({}, True),  # of an earlier version
        ({"id": ID}, True),
        ({"id": ID, "requests": {ID: "learning rate 0.1 -> 0.01"}}, True),
        ({"id": "x"}, False),
        ({"id": ID, "requests": {"x": "a text"}}, False),
        ({"id": ID, "requests": {ID: "\x1b[2J"}}, False),
        ({"id": ID, "requests": []}, False),
        ({"more": 1}, False),
    ],
)
def test_a_sitting_has_an_identity_and_the_answers_to_requests_or_is_of_an_earlier_version(more, is_valid):
    history = new_history({"sittings": [sitting(**more)]})
    if is_valid:
        assert module.check_history(history) is history
    else:
        with pytest.raises(ValueError, match="sittings"):
            module.check_history(history)
