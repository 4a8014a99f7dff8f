"""Downloading and unpacking Tiny ImageNet."""

import hashlib
import http.server
import re
import threading
import zipfile

import pytest
from messages import (
    CORRUPT,
    EXISTS,
    naming,
)

from pipeline.data import tinyimagenetfiles
from pipeline.io import archives


@pytest.fixture
def server(tmp_path):
    """Serve the files of a folder on this machine; yield the folder and the address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever).start()
        yield folder, f"http://127.0.0.1:{http_server.server_port}/tiny.zip"
        http_server.shutdown()


def archive(layout, path, extra=None):
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(layout.rglob("*")):
            file.write(source, f"tiny-imagenet-200/{source.relative_to(layout)}")
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "size": path.stat().st_size}


def test_a_download_is_checked_and_appears_whole(layout, server, tmp_path):
    folder, url = server
    expected = archive(layout, folder / "tiny.zip")
    root, received = tmp_path / "new" / "tiny", []
    tinyimagenetfiles.download(root, url=url, **expected, advance=received.append)
    assert sum(received) == expected["size"]
    for source in layout.rglob("*.*"):
        assert (root / source.relative_to(layout)).read_bytes() == source.read_bytes()
    with pytest.raises(ValueError, match=naming(str(root), EXISTS)):
        tinyimagenetfiles.download(root, url=url, **expected, advance=received.append)
    other = tmp_path / "other" / "tiny"
    for wrong in ({"md5": "0" * 32}, {"size": 17}, {"url": url + "x"}, {"url": "http://127.0.0.1:9/tiny.zip"}):
        with pytest.raises(ValueError, match=naming("tiny.zip", *map(str, ({"md5": ""} | wrong).values()))):
            tinyimagenetfiles.download(other, **({"url": url} | expected | wrong), advance=received.append)
        assert not list(other.parent.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "../../escaped.JPEG",
        "/tmp/escaped.JPEG",
        "tiny-imagenet-200/val/images/x.py",
        "tiny-imagenet-200/val/images/../../../../val_0.JPEG",
        "tiny-imagenet-200/val/images/val_\x1b[2J.JPEG",
        "tiny-imagenet-200\\val\\images\\val_0.JPEG",
    ],
)
def test_an_archive_with_other_members_is_not_unpacked(layout, server, tmp_path, name):
    folder, url = server
    expected = archive(layout, folder / "tiny.zip", {name: b"x"})
    with pytest.raises(ValueError, match=naming("archive.zip", re.escape(ascii(name)))):
        tinyimagenetfiles.download(tmp_path / "new" / "tiny", url=url, **expected, advance=lambda count: None)
    assert not list((tmp_path / "new").iterdir())


PACKED = r"\bpacked (in|another|other)|encrypt|compress|method"


@pytest.mark.parametrize(
    ("spoil_archive", "parts"),
    [
        (
            lambda content: content.replace(b"\x14\0\0\0\x08\0", b"\x14\0\1\0\x08\0"),
            ["tiny-imagenet-200/wnids.txt", PACKED],
        ),  # encrypted
        (
            lambda content: content.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x0c\0"),
            ["tiny-imagenet-200/wnids.txt", PACKED],
        ),  # bzip2
        (lambda content: content[:200] + b"xxxx" + content[204:], [CORRUPT + "|decompress|zip archive"]),
    ],
)
def test_an_archive_packed_in_another_way_is_not_unpacked(tmp_path, spoil_archive, parts):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny-imagenet-200/wnids.txt", "".join(f"n{n}\n" for n in range(999)))
    path.write_bytes(spoil_archive(path.read_bytes()))
    with pytest.raises(ValueError, match=naming("a.zip", *parts)):
        archives.unpack(path, tmp_path / "out", tinyimagenetfiles.MEMBERS)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny-imagenet-200/wnids.txt", bytes(65 << 20))
    with pytest.raises(ValueError, match=naming("bomb.zip", "tiny-imagenet-200/wnids.txt")):
        archives.unpack(path, tmp_path / "out", tinyimagenetfiles.MEMBERS)
    assert not (tmp_path / "out").exists()


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ValueError, match=naming("a.zip", "not a zip|zip archive")):
        archives.unpack(tmp_path / "a.zip", tmp_path, tinyimagenetfiles.MEMBERS)
