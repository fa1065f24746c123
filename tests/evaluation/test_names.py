"""Names in annotation files become the files of this machine, and no others."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from posezoo.datasets.names import find_images
from posezoo.errors import DataError

ACCENT = unicodedata.normalize("NFD", "é.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/a/1.jpg", "images/b/1.jpg", f"images/{ACCENT}", "images/2.jpg", "out.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "file"),
    [("a/1.jpg", "a/1.jpg"), ("b\\1.jpg", "b/1.jpg"), ("./2.jpg", "2.jpg"), ("é.jpg", ACCENT),
     ("/home/me/b/1.jpg", "b/1.jpg"), ("C:\\data\\2.jpg", "2.jpg"), ("a/../2.jpg", "2.jpg")],
)  # fmt: skip
def test_file_is_found_however_its_name_is_written(folder, name, file):
    for given in (folder, folder.parent):
        (path,) = find_images(given, [name], "images", "val.json")
        assert path.samefile(folder / file)


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "..\\out.jpg", "/../out.jpg"])
def test_nothing_outside_of_the_folder_is_read(folder, name):
    with pytest.raises(DataError, match="points out of the folder|are missing"):
        find_images(folder, [name], "images", "val.json")


def test_absolute_name_outside_of_the_folder_is_missing(folder):
    outside = str(folder.parent / "out.jpg")
    with pytest.raises(DataError, match="1 of 1 images are missing, first .*out.jpg"):
        find_images(folder, [outside], "images", "val.json")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\ud800.jpg", ""])
def test_what_is_no_name_is_missing(folder, name):
    with pytest.raises(DataError, match="are missing"):
        find_images(folder, [name], "images", "val.json")


def test_first_missing_image_does_not_hide_the_others(folder):
    with pytest.raises(DataError, match="val.json: 1 of 3 images are missing, first 0.jpg"):
        find_images(folder.parent, ["0.jpg", "2.jpg", "a/1.jpg"], "images", "val.json")


def test_two_names_of_one_file_are_refused(folder):
    with pytest.raises(DataError, match="'2.jpg' and './2.jpg' are both .*2.jpg"):
        find_images(folder, ["2.jpg", "./2.jpg"], "images", "val.json")
