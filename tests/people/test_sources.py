"""What a user may name as input."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from people import make_photos, picture, predictor
from posezoo.cli import main
from posezoo.errors import InputError
from posezoo.media import Camera, Film, Photo, find_sources

MODEL = "hrnet_xs_128x96"


@pytest.fixture
def folder(tmp_path):
    for name in (
        "b.jpg",
        "a.PNG",
        "sub/c.webp",
        "sub/clip.MP4",
        "notes.md",
        ".hidden.jpg",
        ".x/d.png",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "in"


def _names(sources, folder):
    return [source.path.relative_to(folder).as_posix() for source in sources]


def test_folders_are_searched_in_the_order_of_names(folder):
    found = find_sources([folder])
    assert _names(found, folder) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/clip.MP4"]
    assert isinstance(found[-1], Film) and isinstance(found[0], Photo)
    assert _names(find_sources([folder], [folder / "sub"]), folder) == ["a.PNG", "b.jpg"]


def test_links_to_folders_are_followed_once(folder, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.jpg").write_bytes(b"x")
    for name, target in (("more", "../other"), ("sub/again", "../../other"), ("up", "..")):
        (folder / name).symlink_to(target)
    found = _names(find_sources([folder]), folder)
    assert found == ["a.PNG", "b.jpg", "more/z.jpg", "sub/c.webp", "sub/clip.MP4"]


@pytest.fixture(params=["forbidden", "gone"])
def unreadable(request, monkeypatch):
    """Let a folder be forbidden, or vanish just before it is listed; root may read everything."""
    listing = os.scandir

    def make(folder):
        def scandir(path="."):
            if path == str(folder) and request.param == "forbidden":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            if path == str(folder):
                shutil.rmtree(folder)
            return listing(path)

        monkeypatch.setattr(os, "scandir", scandir)
        return {"forbidden": "Permission denied", "gone": "No such file"}[request.param]

    return make


def test_a_sub_folder_that_cannot_be_read_costs_itself(folder, unreadable):
    (folder / "z").mkdir()
    (folder / "z" / "last.jpg").write_bytes(b"x")
    reason = unreadable(folder / "sub")
    found = find_sources([folder])
    assert _names(found, folder) == ["a.PNG", "b.jpg", "sub", "z/last.jpg"]
    assert f"the folder {folder / 'sub'} cannot be read: {reason}" in found[2].error
    assert [source.error for source in found if source is not found[2]] == [None] * 3


def test_a_named_folder_that_cannot_be_read_is_refused(folder, unreadable):
    reason = unreadable(folder)
    with pytest.raises(InputError, match=f"in cannot be read: {reason}"):
        find_sources([folder])


def test_command_goes_on_without_a_sub_folder(tmp_path, unreadable):
    make_photos(tmp_path / "in", 2)
    make_photos(tmp_path / "in" / "sub", 1)
    reason = unreadable(tmp_path / "in" / "sub")
    out = tmp_path / "out.jsonl"
    told = CliRunner().invoke(
        main,
        ["predict", str(tmp_path / "in"), "--model", MODEL, "--whole-image", "--out", str(out)],
    )
    assert told.exit_code == 1 and "2 photos, 2 people, 1 failed; " in told.output, told.output
    assert f"error: the folder {tmp_path / 'in' / 'sub'} cannot be read: {reason}" in told.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert ["error" in row for row in rows] == [False, False, True]


@pytest.fixture
def animations(tmp_path):
    """Images of three frames, and a GIF and a PNG of one."""
    pictures = [Image.fromarray(picture(i)) for i in range(3)]
    for name in ("moves.gif", "moves.png", "moves.webp"):
        pictures[0].save(
            tmp_path / name, save_all=True, append_images=pictures[1:], duration=100, loop=0
        )
    for name in ("still.gif", "still.png", "still.webp"):
        pictures[0].save(tmp_path / name)
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    return tmp_path


def test_an_animated_gif_is_a_film(animations):
    pytest.importorskip("av")
    for source in find_sources([animations]):
        assert isinstance(source, Film) == (source.path.name == "moves.gif"), source
    frames = list(predictor().stream(animations / "moves.gif"))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [round(frame.time, 3) for frame in frames] == [0, 0.1, 0.2]


def test_the_first_frame_alone_is_said_to_be_used(animations, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "av", None)  # as where it is not installed
    frames = list(predictor().stream(animations))
    assert [frame.index for frame in frames] == [None] * 7
    assert [Path(frame.source).name for frame in frames if frame.error] == ["broken.gif"]
    said = sorted(record.getMessage() for record in caplog.records)
    words = "is animated, and only its first frame is used"
    assert said == [
        f"{animations / 'moves.gif'} {words}; all: pip install 'posezoo[video]'",
        f"{animations / 'moves.png'} {words}",
        f"{animations / 'moves.webp'} {words}",
    ]


def test_patterns_lists_and_cameras(folder, monkeypatch):
    assert _names(find_sources([f"{folder}/**/*.[jw]*"]), folder) == ["b.jpg", "sub/c.webp"]
    (folder / "list.txt").write_text("\n# two\nb.jpg\nsub/*.webp\n")
    assert _names(find_sources([folder / "list.txt"]), folder) == ["b.jpg", "sub/c.webp"]
    assert find_sources(["0", 3]) == [Camera(0), Camera(3)]
    monkeypatch.chdir(folder / "sub")
    for name in ("b.jpg", "0"):
        (folder / "sub" / name).write_bytes(b"x")
    assert str(find_sources([folder / "list.txt"])[0]) == "b.jpg"  # the current folder comes first
    assert find_sources(["0"]) == [Photo(Path("0"))]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "no input was given"),
        (["empty"], "the folder empty holds no photo and no video"),
        (["*.jpg"], r"the pattern '\*.jpg' holds no photo"),
        (["gone.jpg", "lost.png"], "there is no file gone.jpg, nor any other of the 2 given"),
        (["list.txt"], "names another list, more.txt"),
        (["empty.txt"], "the list empty.txt holds no photo"),
        (["binary.txt"], "cannot read the list binary.txt"),
    ],
)
def test_nothing_to_read_is_said(tmp_path, monkeypatch, inputs, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("more.txt\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=words):
        find_sources(inputs)
