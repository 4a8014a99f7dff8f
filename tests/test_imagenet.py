"""Training and ranking on ImageNet."""

import io
import json
import shutil

import keras
import numpy as np
import pytest
from conftest import SMALL as DIGITS
from conftest import assert_identical, assert_same_curves
from imagenetlayout import IDS, VAL, val_files
from messages import assert_names, assert_refused, naming
from PIL import Image
from test_encoded_images import area_average

from config import imagenet_config as config
from pipeline.checkpoints import read_checkpoint
from pipeline.cli.recipe import Recipe
from pipeline.data import ImageNet
from pipeline.data.textfiles import write_mean
from pipeline.io.batches import scores
from pipeline.nn.conv import ResNet
from pipeline.preprocessing import RandomCrop

SMALL = ("--stages", "1,1", "--filters", "4,8,8", "--image_size", "24", "--batch_size", "4", "--warmup_epochs", "1")
EVERYTHING = ("--mixup", "0.2", "--cutmix", "1", "--cutout", "8", "--label_smoothing", "0.1", "--ema", "0.9")


def source_of(folder, **options):
    return ImageNet(config.files(str(folder)), **options)


def test_resnet_50_has_the_parameters_of_the_published_network():
    model = ResNet.build(224, 224, 3, 1000, (3, 4, 6, 3), (64, 256, 512, 1024, 2048), dataset="imagenet")
    assert model.count_params() == 25_595_060
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 25_549_486
    assert model.get_layer("avg_pool").input.shape[1:] == (7, 7, 2048)
    assert {**config.IMAGES, **config.NETWORK, "classes": config.CLASSES}.items() <= model.network.items()


def test_training_by_hand_stops_resumes_and_is_ranked_on_the_validation_images(command, shards, tmp_path):
    options = ("--data", shards, *SMALL, *EVERYTHING, "--epochs", "2", "--every", "1")
    command("train_imagenet.py", *options, "-c", "straight", "-o", "straight")
    command("train_imagenet.py", *options, "--stop_after", "1", "-c", "parts", "-o", "parts")
    done = command("train_imagenet.py", "-c", "parts", "--model", "latest", "--workers", "1")
    assert "tench, Tinca tinca" in done.stdout
    assert_identical(tmp_path / "straight" / "epoch_2.hdf5", tmp_path / "parts" / "epoch_2.hdf5")
    assert_same_curves(tmp_path / "straight", tmp_path / "parts")

    # Seven images in batches of four. The reference decodes with Pillow and averages in float64.
    done = command("rank_accuracy.py", "-m", "parts/epoch_2.hdf5", "--json", "rank.json", "--tta", "flip")
    assert_names(done.stdout, "split: val\n", "images: 7\n")
    result = json.loads((tmp_path / "rank.json").read_text())
    model = keras.models.load_model(tmp_path / "parts" / "epoch_2.hdf5", compile=False)
    stored = json.loads((shards / "mean.json").read_text())
    mean, deviation = (np.float32([table[name] for name in "BGR"]) for table in (stored, stored["deviation"]))
    images = []
    for file in val_files().values():
        pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), np.float64)
        # The shorter side has round(24 / 0.875) = 27 pixels.
        width = round(pixels.shape[1] * 27 / 33)
        left = (width - 24) // 2
        view = area_average(pixels, 27, width)[1:25, left : left + 24, ::-1]
        images.append((np.rint(view) - mean) / deviation)
    predicted = model.predict(np.stack(images), verbose=0).argmax(axis=1)
    labels = [IDS.index(wordnet_id) for wordnet_id in VAL.values()]
    assert result["rank-1"] == pytest.approx(np.mean(predicted == labels))
    assert set(result["tta flip"]) == {"rank-1", "rank-5"}


@pytest.mark.sweep
def test_training_with_decay_starts_again_from_another_place_of_the_same_images(command, shards, tmp_path):
    command("train_imagenet_decay.py", "--data", shards, *SMALL, "--epochs", "2", "--stop_after", "1", "-m", "a.hdf5")
    moved = shutil.copytree(shards, tmp_path / "moved")
    command("train_imagenet_decay.py", "-m", "a.hdf5", "--resume", "--data", moved)
    run = json.loads((tmp_path / "output" / "train_imagenet_decay.json").read_text())["run"]
    assert run["dataset"] == "imagenet"
    assert run["arguments"]["crop_ratio"] == 4 / 3
    assert "pad_crop" not in run["arguments"]
    # The state includes what evaluation needs.
    checkpoint = read_checkpoint(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(checkpoint.preprocessor.parameters, source_of(shards).normalization.parameters)
    (moved / "mean.json").unlink()
    for more in ((), ("--split", "val"), ("--image_size", "40"), ("--eval_ratio", "1")):
        done = command("rank_accuracy.py", "-m", "a.hdf5", "--data", moved, *more)
        assert "images: 7\n" in done.stdout


def test_rank_accuracy_says_what_it_can_not_do(command, shards, tmp_path):
    command("train_imagenet_decay.py", "--data", shards, *SMALL, "--epochs", "1", "-m", "a.hdf5")
    command("resnet_cifar10_decay.py", *DIGITS, "--epochs", "1", "-m", "b.hdf5")
    for words, parts in {
        ("a.hdf5", "--split", "test"): ["--split test", "imagenet", "--split val"],
        ("a.hdf5", "--dataset", "cifar10"): ["--dataset cifar10", "imagenet"],
        ("a.hdf5", "--data", "nowhere"): ["nowhere"],
        ("b.hdf5", "--eval_ratio", "0.5"): ["--eval_ratio", "cifar10"],
        ("b.hdf5", "--image_size", "64"): ["--image_size", "cifar10"],
    }.items():
        assert_refused(command("rank_accuracy.py", "-m", *words, code=2), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--data", "empty"), ["empty", "build"]),
        (("--data", "shards", "--batch_size", "16"), ["15", "16", "--batch_size"]),
        (("--data", "shards", "--pad_crop", "4"), ["--pad_crop"]),
        (("--data", "shards", "--cutout", "30"), ["--cutout 30", "24"]),
        (("--data", "without deviation"), ["mean.json", "deviation", "build"]),
        (("--data", "flat"), ["mean.json", "above 0"]),
    ],
)
def test_a_wrong_flag_or_folder_is_one_line(command, shards, tmp_path, words, parts):
    (tmp_path / "empty").mkdir()
    (tmp_path / "shards").symlink_to(shards)
    for name, deviation in {"without deviation": None, "flat": {"R": 1.0, "G": 0.0, "B": 1.0}}.items():
        shutil.copytree(shards, tmp_path / name)
        write_mean(tmp_path / name / "mean.json", dict.fromkeys("RGB", 1.0), deviation)
    assert_refused(command("train_imagenet.py", *SMALL, *words, code=2), *parts)
    assert not (tmp_path / "output").exists()


def test_a_damaged_image_is_named_and_what_was_trained_is_saved(command, shards, tmp_path):
    moved = shutil.copytree(shards, tmp_path / "moved")
    source = source_of(moved)
    last = int(source.train_batches(4, seed=42)._order[8])  # in the third batch of the first epoch
    source.whole("train").shards.close()
    row, number = divmod(last, 2)
    path = moved / f"train-00{number}-of-002.hdf5"
    content = bytearray(path.read_bytes())
    shard = source.whole("train").shards.shards[number]
    content[int(shard._starts[row]) + 40] ^= 1
    path.write_bytes(content)
    words = ("--data", moved, *SMALL, "--epochs", "1", "-c", "c")
    done = command("train_imagenet.py", *words, code=2)
    assert_refused(done, path.name, shard.name(row), f"row {row}", "CRC-32")
    assert [path.name for path in (tmp_path / "c").glob("*.hdf5")] == ["epoch_0_batch_2.hdf5"]


def test_the_draws_of_a_batch_depend_on_seed_epoch_and_index_alone(shards):
    for recipe in config.RECIPES.values():
        made = Recipe.of(recipe)
        assert made.augmentation == RandomCrop(0.08, 4 / 3, "random", 0.4)
        options = {"aug": made.augmentation, "mixing": made.mixing, "seed": 7}
        one, three = (source_of(shards, image_size=32).train_batches(5, workers=n, **options) for n in (1, 3))
        one.set_epoch(4)
        three.set_epoch(4, 1)
        for ours, theirs in zip(list(one)[1:], three, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_held_out_images_are_evaluated_in_their_centre(shards):
    whole, part = source_of(shards, image_size=32), source_of(shards, image_size=32, holdout=4)
    assert (len(part.train), len(part.val), len(part.whole("val"))) == (11, 4, 7)
    ((images, _),) = list(part.val_batches(4))
    rows = part.val._indices
    np.testing.assert_array_equal(images, whole.normalization.preprocess_batch(whole.train.read(rows)))
    assert part.test_batches(4).num_images == 7
    with pytest.raises(ValueError, match=naming("`split`", "val")):
        part.whole("test")
    with pytest.raises(ValueError, match=naming("`image_size`", "0")):
        source_of(shards, image_size=0).train  # noqa: B018


def test_scores_come_batch_by_batch_and_are_those_of_predict(shards):
    batches = source_of(shards, image_size=32).val_batches(4)
    model = ResNet.build(32, 32, 3, 3, (1, 1), (4, 8, 8), dataset="imagenet")
    parts = list(scores(model, batches))
    assert [len(part) for part in parts] == [4, 3]
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_allclose(np.concatenate(parts), model.predict(images, verbose=0), rtol=1e-5, atol=1e-6)
