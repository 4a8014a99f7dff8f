"""Real-world folders of images: hidden and foreign files, links, other formats, unusual names and files."""

import logging
import os
import re
import subprocess
import sys
import unicodedata

import cv2
import numpy as np
import pytest
from conftest import ROOT, load_cifar10
from messages import MISSING, NOT_AN_IMAGE, TRUNCATED, assert_names, naming
from PIL import Image, ImageCms

from pipeline.data import ImageFolder
from pipeline.files.imageheader import read_header
from pipeline.io.imagereader import check_images
from pipeline.io.images import list_folder, list_images


def write(path, value=0, kind=".png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(kind, np.full((32, 32, 3), value, np.uint8))[1].tobytes())
    return path


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for label, name in enumerate(("ant", "bee")):
            for number in range(3):
                write(tmp_path / split / name / f"{number}.png", 100 * label + number)
    return tmp_path


def test_what_other_programs_leave_is_no_part_of_the_data(folder):
    expected = load_cifar10(str(folder))
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", ".git"):
        for split in ("train", "test"):
            write(folder / split / name / "0.png")
            write(folder / split / "ant" / name / "0.png")
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini"):
        (folder / "train" / name).write_bytes(b"\0\5\x16\7")
        (folder / "train" / "ant" / name).write_bytes(b"\0\5\x16\7")
    found = load_cifar10(str(folder))
    assert found.classes == expected.classes == ("ant", "bee")
    np.testing.assert_array_equal(found.train_images, expected.train_images)
    np.testing.assert_array_equal(found.test_images, expected.test_images)


def test_images_below_a_class_behind_links_and_of_any_name_count(folder, caplog):
    write(folder / "train" / "ant" / "more" / "still" / "3.png", 3)
    write(folder / "elsewhere" / "4.png", 4)
    (folder / "train" / "ant" / "linked").symlink_to(folder / "elsewhere")
    (folder / "train" / "ant" / "round").symlink_to(folder / "train")
    write(folder / "train" / "ant" / "no ending", 5)
    write(folder / "train" / "ant" / "6.webp", 6)
    (folder / "train" / "bee" / "notes.txt").write_text("BMW, GIF and others")
    with caplog.at_level(logging.INFO):
        dataset = load_cifar10(str(folder))
    assert sorted(dataset.train_images[dataset.train_labels == 0][:, 0, 0, 0]) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(dataset.train_images[dataset.train_labels == 1][:, 0, 0, 0]) == [100, 101, 102]
    assert_names(caplog.text, r"\b1\b.*notes\.txt")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("x.webp", b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        ("x.tif", b"anything", ""),
        ("x", b"GIF89a", "GIF"),
        ("x.data", b"\0\0\0\x20ftypheic", "HEIC"),
        ("x.txt", b"BM\1\0\0\0\0\0\0\0\0", "BMP"),
    ],
)
def test_an_image_of_another_kind_is_named_and_the_others_are_counted(folder, name, content, kind):
    for place in ("train/ant", "train/bee", "test/ant"):
        (folder / place / name).write_bytes(content)
    with pytest.raises(ValueError, match=naming(rf"ant/{name}\b", NOT_AN_IMAGE, kind, r"\b2\b")):
        load_cifar10(str(folder))


def test_a_link_to_nothing_is_an_error_where_it_is_called_an_image(folder):
    (folder / "train" / "ant" / "readme").symlink_to("nowhere")
    list_images(folder)
    (folder / "train" / "ant" / "x.webp").symlink_to("nowhere")
    with pytest.raises(ValueError, match=naming("x.webp", "No such file")):
        list_images(folder)


def test_damaged_images_are_counted_over_both_splits(folder):
    for place in ("train/ant/1.png", "train/bee/2.png", "test/bee/0.png"):
        (folder / place).write_bytes((folder / place).read_bytes()[:-20])
    with pytest.raises(ValueError, match=naming("ant/1.png", TRUNCATED, r"\b2\b")):
        load_cifar10(str(folder))


def test_classes_are_named_where_they_differ_and_are_two_at_least(folder):
    write(folder / "test" / "cow" / "0.png")
    with pytest.raises(ValueError, match=naming(r"\btrain\b.*\bcow\b")):
        load_cifar10(str(folder))
    for split, name in (("test", "cow"), ("train", "bee"), ("test", "bee")):
        (folder / split / name).rename(folder / f"{split} {name}")
    with pytest.raises(ValueError, match=naming("train", r"\bant\b", r"\b(one|1|two|2)\b")):
        load_cifar10(str(folder))


def test_an_image_in_no_class_is_an_error(folder):
    write(folder / "train" / "0.png")
    with pytest.raises(ValueError, match=naming("train/0.png", r"train/<class>/")):
        load_cifar10(str(folder))


def test_names_of_classes_are_compared_in_one_form_of_unicode(folder):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    (folder / "train" / "bee").rename(folder / "train" / composed)
    (folder / "test" / "bee").rename(folder / "test" / decomposed)
    assert load_cifar10(str(folder)).classes == ("ant", composed)
    write(folder / "train" / decomposed / "0.png")
    with pytest.raises(ValueError, match=naming("café", "Unicode")):
        load_cifar10(str(folder))


def test_a_link_to_itself_is_no_folder(tmp_path):
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    assert list_folder(tmp_path).others == [str(tmp_path / "loop.txt")]


def test_a_folder_that_can_not_be_listed_is_named(folder, monkeypatch):
    original = os.scandir

    def refuse(path):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=naming("train/bee", "Permission denied")):
        list_folder(folder)


def photo(rng):
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_colour_profile_of_another_kind_of_image_is_no_damage(tmp_path, mode):
    """libpng warns about each of these profiles, but decodes the pixels."""
    image = photo(np.random.default_rng(0)).convert(mode)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB" if mode == "L" else "LAB")).tobytes()
    image.save(tmp_path / "0.png", icc_profile=profile)
    image.save(tmp_path / "1.png")
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
    assert list(check_images([str(tmp_path / f"{number}.png") for number in (0, 1)])) == [(32, 32, 3)] * 2
    with_profile, plain = (read_header((tmp_path / f"{number}.png").read_bytes()) for number in (0, 1))
    assert with_profile == plain


def test_a_version_of_jfif_that_there_is_not_is_no_damage_and_hides_none(tmp_path):
    jpeg = bytearray(cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))[1])
    jpeg[jpeg.index(b"JFIF\0") + 5] = 0
    (tmp_path / "0.jpg").write_bytes(jpeg)
    (tmp_path / "1.jpg").write_bytes(jpeg[:700] + jpeg[-2:])
    sound, damaged = check_images([str(tmp_path / f"{number}.jpg") for number in (0, 1)])
    assert sound == (32, 32, 3)
    assert_names(damaged, "1.jpg", "Corrupt JPEG data")


def test_damage_beside_the_pixels_stays_an_error(tmp_path):
    image = photo(np.random.default_rng(0))
    image.save(tmp_path / "0.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = bytearray((tmp_path / "0.png").read_bytes())
    content[content.index(b"iCCP") + 30] ^= 1
    (tmp_path / "0.png").write_bytes(content)
    assert_names(next(check_images([str(tmp_path / "0.png")])), "0.png", "'iCCP'")


def test_a_program_without_a_main_guard_gets_a_reason(folder):
    program = folder / "program.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from pipeline.io.imagereader import check_images\n"
        f"print(list(check_images({[str(path) for path in folder.glob('*/*/*')]} * 9999)))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.returncode == 1
    # The processes that it starts write, too, at times after it.
    (line,) = [line for line in done.stderr.splitlines() if 'if __name__ == "__main__":' in line]
    assert "memory" not in line


@pytest.mark.parametrize("data", [None, "nowhere", "."])
def test_what_is_no_folder_of_images_says_what_would_be(tmp_path, monkeypatch, data):
    class Small(ImageFolder):
        name, size = "small", (8, 8)

    monkeypatch.chdir(tmp_path)
    given = re.escape(f" {data}") if data else MISSING
    with pytest.raises(ValueError, match=naming("`data`", given, "train/<class>/")):
        Small(data).train_batches(4)
