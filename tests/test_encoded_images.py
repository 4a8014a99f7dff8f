"""Images of shards as the network gets them: random crops for training, the central square for evaluation."""

import io
import math

import cv2
import numpy as np
import pytest
from imagenetlayout import IDS, jpeg, picture, unusual
from messages import naming
from PIL import Image
from scipy import stats
from test_shards import write

from pipeline.errors import InputError
from pipeline.files.imageheader import first_rows, read_frame, read_header
from pipeline.io import Batches
from pipeline.io.shards import EncodedImages, Shards
from pipeline.preprocessing import Mirror, RandomCrop

AUGMENTATION = RandomCrop(crop_area=0.08, crop_ratio=4 / 3, flip="random", color_jitter=0.4)
SAMPLES = np.arange(10_000)


def noise(number, height, width):
    """Return an image with detail, so that a wrong place or scale shows."""
    coarse = cv2.resize(picture(number, height, width), (width, height))
    fine = np.random.default_rng(number).normal(0, 9, (height, width, 3))
    return np.clip(coarse + cv2.GaussianBlur(fine, None, 1.5) * 4, 0, 255).astype(np.uint8)


def area_average(image, height, width):
    """Return `image` (h, w, 3), shrunk by averaging what each pixel covers, in float64."""

    def weights(before, after):
        edges = np.arange(after + 1) * before / after
        pixels = np.arange(before)
        overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return np.clip(overlap, 0, None) * after / before

    rows = np.tensordot(weights(image.shape[0], height), image, (1, 0))
    return np.tensordot(rows, weights(image.shape[1], width), (1, 1)).swapaxes(1, 2)


def decoded(file):
    """Return the pixels of a file as Pillow decodes them, BGR."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))[..., ::-1].astype(np.float64)


@pytest.fixture
def encoded(tmp_path):
    """Return a function that makes a set of `files`."""

    def make(files, size=24, **options):
        return EncodedImages(Shards(write(tmp_path, files=(files * 8)[:8]), "val"), size, **options)

    return make


def reference_box(generator, height, width):
    """Draw a crop as torchvision's RandomResizedCrop defines it."""
    for _ in range(10):
        area = height * width * generator.uniform(0.08, 1)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return generator.integers(0, height - h + 1), generator.integers(0, width - w + 1), h, w
    ratio = width / height
    if ratio < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif ratio > 4 / 3:
        h, w = height, round(height * (4 / 3))
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (33, 500)])
def test_crops_have_the_distribution_of_the_usual_definition(size):
    draws = AUGMENTATION.draws(3, 1, SAMPLES)
    ours = np.array([AUGMENTATION.box(*size, row) for row in draws])
    generator = np.random.default_rng(0)
    theirs = np.array([reference_box(generator, *size) for _ in SAMPLES])
    height, width = size
    for top, left, h, w in ours:
        assert 0 <= top <= height - h < height
        assert 0 <= left <= width - w < width
    for measure in (
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 3] / boxes[:, 2],
        lambda boxes: boxes[:, 0] + boxes[:, 2] / 2,
        lambda boxes: boxes[:, 1] + boxes[:, 3] / 2,
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs), method="asymp").pvalue > 1e-4


SAMPLING = cv2.IMWRITE_JPEG_SAMPLING_FACTOR
REDUCED = (cv2.IMREAD_COLOR, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8)


def test_the_first_rows_of_a_file_are_those_of_the_whole_and_nothing_is_printed(capfd):
    pixels = noise(5, 203, 117)
    files = [
        jpeg(pixels, SAMPLING, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{kind}"), cv2.IMWRITE_JPEG_QUALITY, quality)
        for kind in (411, 420, 422, 440, 444)
        for quality in (30, 95)
    ]
    for file in (*files, jpeg(pixels[..., 0])):
        frame = read_frame(file)
        assert (frame.height, frame.width) == pixels.shape[:2]
        for factor, flags in zip((1, 2, 4, 8), REDUCED, strict=True):
            whole = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
            for rows in (1, 16, 17, 100, 187, 188, 203):
                part = cv2.imdecode(np.frombuffer(first_rows(file, frame, rows), np.uint8), flags)
                count = -(-rows // factor)
                np.testing.assert_array_equal(part[:count], whole[:count])
                assert len(part) <= -(-min(203, rows + 8 + 15) // factor)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("skipped", [b"\xff", b"\xff\x01", b"\xff\xd0"])
def test_a_header_in_a_comment_is_not_taken_for_that_of_the_image(skipped):
    """Decoders skip a byte 0xFF before a marker, and two kinds of markers that have no length."""
    real, shown = (jpeg(picture(1, height, 60)) for height in (40, 50))
    start = real[:2] + skipped + b"\xff\xfe" + (65_000).to_bytes(2, "big") + bytes(64_998)
    # Where a reader would go on that takes the next two bytes for a length.
    place = 4 + int.from_bytes(start[4:6], "big")
    planted = bytes(place - len(start) - 4) + shown[2:]
    file = start + b"\xff\xfe" + (len(planted) + 2).to_bytes(2, "big") + planted + real[2:]
    assert cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)
    assert file[place:].startswith(shown[2:])
    assert read_frame(file) is None
    assert (read_header(file).height, read_header(file).width) == (40, 60)


def test_an_image_far_longer_than_wide_is_refused_where_it_would_not_fit_into_memory(encoded):
    long = cv2.imencode(".png", np.zeros((1, 400_000, 3), np.uint8))[1].tobytes()
    images = encoded([long], size=224)
    assert images.read(np.array([0]), AUGMENTATION, AUGMENTATION.draws(0, 0, np.array([0]))).shape == (1, 224, 224, 3)
    with pytest.raises(InputError, match=naming("row 0", "102400000x256", "`eval_ratio`")):
        images.load(np.array([0]))


def test_files_that_are_not_of_one_sequential_scan_have_no_frame():
    pixels = picture(1, 40, 60)
    progressive = jpeg(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    restarting = jpeg(pixels, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    plain = jpeg(pixels)
    assert read_frame(plain) is not None
    for file in (
        progressive,
        restarting,
        plain[:-2],
        plain + b"x",
        b"",
        b"\xff\xd8\xff\xd9",
        cv2.imencode(".png", pixels)[1].tobytes(),
    ):
        assert read_frame(file) is None
    end = plain.index(b"\xff\xda")
    for hidden in (plain[:-2] + plain[end:], plain[:-2] + plain[2:], plain + plain):  # more scans, frames, images
        assert read_frame(hidden) is None
    for length in range(2, len(plain) - 2):
        frame = read_frame(plain[:length] + b"\xff\xd9")
        assert frame is None or (frame.height, frame.width) == (40, 60)


def test_an_image_in_which_no_crop_fits_gives_its_largest_central_part_with_an_allowed_ratio():
    draws = np.ones(44) - 1e-9  # ten times the whole area, as wide as may be
    assert AUGMENTATION.box(900, 300, draws) == (250, 0, 400, 300)
    assert AUGMENTATION.box(300, 900, draws) == (0, 250, 300, 400)
    assert AUGMENTATION.box(300, 300, draws) == (0, 0, 300, 300)


def test_draws_depend_on_seed_epoch_and_index_alone():
    draws = AUGMENTATION.draws(1, 2, SAMPLES[:50])
    np.testing.assert_array_equal(AUGMENTATION.draws(1, 2, SAMPLES[20:30]), draws[20:30])
    assert not np.isclose(AUGMENTATION.draws(1, 3, SAMPLES[:50]), draws).any()
    assert not np.isclose(AUGMENTATION.draws(2, 2, SAMPLES[:50]), draws).any()
    alternating = RandomCrop(flip="alternate")
    first, second = (alternating.draws(1, epoch, SAMPLES)[:, 0] < 0.5 for epoch in (0, 1))
    np.testing.assert_array_equal(first, ~second)


def test_colours_are_those_of_brightness_contrast_and_saturation_in_turn():
    image = noise(1, 40, 50)
    gray = np.array([0.114, 0.587, 0.299])
    for draws in AUGMENTATION.draws(0, 0, SAMPLES[:20]):
        brightness, contrast, saturation = 0.6 + 0.8 * draws[1:4]
        expected = brightness * image.astype(np.float64)
        expected = contrast * expected + (1 - contrast) * (expected @ gray).mean()
        expected = saturation * expected + (1 - saturation) * (expected @ gray)[..., None]
        mirrored = image[:, ::-1] if draws[0] < 0.5 else image
        finished = AUGMENTATION.finish(image, draws)
        expected = expected[:, ::-1] if draws[0] < 0.5 else expected
        # OpenCV computes with fractions of 10 bits.
        assert np.abs(finished - np.clip(expected, 0, 255)).max() <= 0.75
        np.testing.assert_array_equal(RandomCrop(flip="random").finish(image, draws), mirrored)


def test_a_training_crop_is_that_part_of_the_image_averaged_by_area(encoded):
    files = [jpeg(noise(number, 600 + 40 * number, 820 - 30 * number)) for number in range(8)]
    images, plain = encoded(files, 64), RandomCrop(crop_area=0.08, crop_ratio=4 / 3)
    draws = plain.draws(0, 0, np.arange(8))
    for index, crop in enumerate(images.read(np.arange(8), plain, draws)):
        pixels = decoded(files[index])
        top, left, height, width = plain.box(*pixels.shape[:2], draws[index])
        assert min(height, width) >= 128  # decoded at a half of its size or less
        expected = area_average(pixels[top : top + height, left : left + width], 64, 64)
        assert np.abs(crop - expected).mean() < 3


def test_a_crop_that_is_not_reduced_equals_the_average_to_a_rounding(encoded):
    files = [jpeg(noise(number, 60 + number, 70)) for number in range(8)]
    images, whole = encoded(files, 48), RandomCrop()
    draws = whole.draws(0, 0, np.arange(8))
    for index, crop in enumerate(images.read(np.arange(8), whole, draws)):
        pixels = decoded(files[index])
        top, left, height, width = whole.box(*pixels.shape[:2], draws[index])
        assert (height, width) == (min(pixels.shape[:2]),) * 2
        expected = area_average(pixels[top : top + height, left : left + width], 48, 48)
        assert np.abs(crop - expected).max() <= 1.01


@pytest.mark.parametrize(("size", "ratio", "shorter"), [(24, 0.875, 27), (28, 0.875, 32), (24, 1.0, 24)])
def test_evaluation_takes_the_central_square_of_the_resized_image(encoded, size, ratio, shorter):
    files = [jpeg(noise(number, 90 + 13 * number, 140 - 9 * number)) for number in range(8)]
    images = encoded(files, size, eval_ratio=ratio)
    for index, image in enumerate(images.read(np.arange(8))):
        pixels = decoded(files[index])
        height, width = (round(side * shorter / min(pixels.shape[:2])) for side in pixels.shape[:2])
        resized = area_average(pixels, height, width)
        top, left = (height - size) // 2, (width - size) // 2
        assert np.abs(image - resized[top : top + size, left : left + size]).max() <= 1.01
    np.testing.assert_array_equal(images.read(np.arange(8), Mirror(), None), images.load(np.arange(8))[:, :, ::-1])


def test_small_gray_cmyk_png_and_turned_images_are_read(encoded):
    images = encoded(unusual(), 48)
    assert images.read(np.arange(8)).shape == (8, 48, 48, 3)
    draws = AUGMENTATION.draws(0, 0, np.arange(8))
    assert images.read(np.arange(8), AUGMENTATION, draws).shape == (8, 48, 48, 3)
    (gray,) = images.read(np.array([0]))
    assert np.all(gray == gray[..., :1])
    # The image with an EXIF orientation is not turned: it equals the progressive one, but for its compression.
    turned, upright = images.read(np.array([3, 4])).astype(int)
    assert np.abs(turned - upright[..., ::-1]).mean() < 5


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_a_size_that_no_reduction_divides_is_read_whole(encoded, kind):
    pixels = noise(3, 67, 91)
    file, whole = cv2.imencode(kind, pixels)[1].tobytes(), RandomCrop(crop_ratio=2.0)
    for size in (32, 16):  # a JPEG is decoded at 1/2 and 1/4 of its size
        images, draws = encoded([file], size), np.ones((1, 44)) - 1e-9
        draws[0, 4::4], draws[0, 5::4] = 1 - 1e-9, np.log(91 / 67) / np.log(2) / 2 + 0.5
        assert whole.box(67, 91, draws[0]) == (0, 0, 67, 91)
        expected = area_average(pixels.astype(np.float64), size, size)
        error = np.abs(images.read(np.array([0]), whole, draws)[0] - expected)
        assert error.max() <= 1.01 if kind == ".png" else error.mean() < 6


def test_batches_are_the_same_for_any_number_of_workers_and_subsets_keep_their_order(encoded):
    images = encoded([jpeg(noise(number, 70 + number, 80)) for number in range(8)])
    options = {"aug": AUGMENTATION, "training": True, "seed": 4}
    one, three = (list(Batches(images, 4, workers=workers, **options)) for workers in (1, 3))
    for ours, theirs in zip(one, three, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    rows = np.array([6, 1, 3])
    subset = images.subset(rows)
    np.testing.assert_array_equal(subset.read(np.arange(3)), images.read(rows))
    np.testing.assert_array_equal(subset.labels, images.labels[rows])
    assert subset.digest() == images.digest()


def test_a_damaged_image_names_shard_row_and_file(encoded, tmp_path):
    images = encoded([jpeg(noise(number, 70, 80)) for number in range(8)])
    path = tmp_path / "val-001-of-002.hdf5"
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start + 700] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=naming(path.name, f"{IDS[0]}/1.JPEG", "row 0", "CRC-32")):
        images.read(np.arange(8))


@pytest.mark.parametrize(
    "values", [{"crop_area": 0}, {"crop_area": 1.1}, {"crop_ratio": 0.9}, {"flip": "up"}, {"color_jitter": 1.0}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        RandomCrop(**values)
