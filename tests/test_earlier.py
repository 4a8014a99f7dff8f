"""Files of other runs are moved aside, those of the same run are recognized."""

from pathlib import Path

from changes import state
from conftest import SMALL
from forge import forge
from messages import assert_names

from config import cifar10_config, tiny_imagenet_config
from pipeline.checkpoints import checkpoint as checkpoints
from pipeline.checkpoints.listing import list_checkpoints

BY_HAND, DECAY = "resnet_cifar10.py", "resnet_cifar10_decay.py"


def test_a_fresh_run_keeps_what_another_wrote(command, tmp_path):
    options = (*SMALL, "--epochs", "1", "-m", "output/model.hdf5")
    written = [
        tmp_path / "output" / name
        for name in ("model.hdf5", "model/epoch_1.hdf5", "resnet_cifar10_decay.json", "resnet_cifar10_decay.png")
    ]
    command(DECAY, *options, "--seed", "1")
    first = [path.read_bytes() for path in written]
    done = command(DECAY, *options, "--seed", "2")
    assert "earlier-1" in done.stdout
    for path, content in zip(written, first, strict=True):
        assert path.read_bytes() != content
        assert (path.parent / "earlier-1" / path.name).read_bytes() == content
    command(DECAY, *options, "--seed", "3")
    assert (tmp_path / "output" / "earlier-2").is_dir()
    assert sorted(path.name for path in (tmp_path / "output").glob("*.json")) == ["resnet_cifar10_decay.json"]


def test_following_the_readme_no_script_meets_another_s_checkpoints():
    folders = [cifar10_config.CHECKPOINTS, tiny_imagenet_config.CHECKPOINTS]
    folders += [str(Path(config.MODEL).with_suffix("")) for config in (cifar10_config, tiny_imagenet_config)]
    assert len({Path(folder) for folder in folders}) == 4


def test_a_start_on_a_folder_of_checkpoints_reads_one_whole_and_the_seals_of_the_others(command, monkeypatch, tmp_path):
    options = (*SMALL, "--every", "1", "-c", "c", "-o", "o")
    command(BY_HAND, *options, "--epochs", "6")
    opened, original = [], checkpoints.open_sealed

    def record(path, *arguments, **others):
        opened.append(Path(path).name)
        return original(path, *arguments, **others)

    monkeypatch.setattr(checkpoints, "open_sealed", record)
    command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "7", "--lr", "0.05")
    assert opened == ["epoch_6.hdf5"]
    assert len(list_checkpoints(tmp_path / "c")) == 7
    # Resuming an earlier checkpoint moves the later ones; a fresh run moves all.
    done = command(BY_HAND, "-c", "c", "-m", "c/epoch_3.hdf5", "--epochs", "4")
    assert opened == ["epoch_6.hdf5", "epoch_3.hdf5"]
    assert_names(done.stdout, "c/earlier-1.*: epoch_4.hdf5, epoch_5.hdf5, epoch_6.hdf5, epoch_7.hdf5\n")
    command(BY_HAND, *options, "--epochs", "1", "--seed", "1")
    assert opened == ["epoch_6.hdf5", "epoch_3.hdf5"]
    assert sorted(path.name for path in (tmp_path / "c" / "earlier-2").iterdir()) == [
        f"epoch_{epoch}.hdf5" for epoch in range(1, 5)
    ]


def test_a_checkpoint_of_another_run_in_the_folder_is_known_by_its_seal(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "1", "-c", "other", "--seed", "1", "-o", "x")
    command(BY_HAND, *SMALL, "--epochs", "2", "--every", "2", "-c", "c", "-o", "o")
    (tmp_path / "other" / "epoch_1.hdf5").rename(tmp_path / "c" / "epoch_1.hdf5")
    done = command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "3")
    assert_names(done.stdout, "c/earlier-1.*: epoch_1.hdf5\n")


def test_a_checkpoint_that_names_no_data_set_is_of_that_of_its_script(command, tmp_path):
    command(BY_HAND, *SMALL, "--epochs", "1", "-c", "c")
    path = tmp_path / "c" / "epoch_1.hdf5"
    assert checkpoints.read_checkpoint(path).history["run"]["dataset"] == "cifar10"

    forge(path, state(lambda content: content["history"]["run"].pop("dataset") and None))
    assert "images: 360\n" in command("rank_accuracy.py", "-m", path).stdout
    # Files sealed before seals held a lineage stay in place.
    assert "earlier" not in command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "2").stdout
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["epoch_1.hdf5", "epoch_2.hdf5"]


def test_a_checkpoint_of_this_run_whose_seal_says_otherwise_is_read(command, tmp_path):
    """The checkpoint is from before a flag was added."""
    command(BY_HAND, *SMALL, "--epochs", "2", "--every", "1", "-c", "c")
    content = bytearray((tmp_path / "c" / "epoch_1.hdf5").read_bytes())
    content[80] ^= 1
    (tmp_path / "c" / "epoch_1.hdf5").write_bytes(content)
    assert "earlier" not in command(BY_HAND, "-c", "c", "-m", "latest", "--epochs", "3").stdout


def test_a_damaged_model_is_not_taken_for_written(command, tmp_path):
    command(DECAY, *SMALL, "--epochs", "1")
    model = tmp_path / "output" / "resnet_cifar10.hdf5"
    content = bytearray(model.read_bytes())
    content[20_000] ^= 1
    model.write_bytes(content)
    done = command(DECAY, "--resume")
    assert_names(done.stdout, "output/earlier-1.*: resnet_cifar10.hdf5\n")
    checkpoints.read_checkpoint(model)
