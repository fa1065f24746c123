"""What a user may name as input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from posezoo.errors import InputError
from posezoo.media import Camera, Film, Photo, find_sources


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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_that_cannot_be_read_is_not_passed_over(folder):
    (folder / "sub").chmod(0)
    try:
        with pytest.raises(InputError, match="sub cannot be read: Permission denied"):
            find_sources([folder])
    finally:
        (folder / "sub").chmod(0o700)


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
