"""Boxes for photos: which belong to which, and what a malformed one costs."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from evaluation.cases import changed
from posezoo.datasets import BoxEntry, read_boxes
from posezoo.errors import DataError, InputError

NAN = float("nan")
BOX = [1.0, 2.0, 3.0, 4.0]


def write(folder: Path, content: Any) -> Path:
    file = folder / "boxes.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def annotated(**categories: int) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in range(3)
    ]  # fmt: skip
    rows = [{"image_id": i, "category_id": 1, "bbox": [i, 2.0, 10.0, 20.0]} for i in (0, 1, 1)]
    listed = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": images, "annotations": rows, "categories": listed}


def found(folder: Path, content: Any, *photos: str, **options: Any) -> list[Any]:
    """Return the boxes of photos, or the error as text."""
    entries = read_boxes(write(folder, content), **options).match([folder / p for p in photos])
    return [e.bboxes.tolist() if isinstance(e, BoxEntry) else str(e) for e in entries]


def test_annotations_give_boxes_by_name_with_the_recorded_size(tmp_path, caplog):
    content = annotated(person=1)
    content["annotations"][2]["iscrowd"] = 1
    boxes = read_boxes(write(tmp_path, content))
    assert "1 crowds are left out" in caplog.text
    entries = boxes.match([Path("1.jpg"), Path("2.jpg")])
    assert [e.bboxes.tolist() for e in entries] == [[[1, 2, 11, 22]], []]
    assert entries[0].size == (80, 100) and entries[0].scores.tolist() == [1]


def test_detections_give_boxes_by_id_above_the_threshold(tmp_path):
    rows = [
        {"image_id": 785, "category_id": 1, "bbox": BOX, "score": score} for score in (0.9, 0.5)
    ]
    names = ("785.jpg", "000000000785.jpg", "COCO_val2014_000000000785.jpg")
    for name in names:
        assert found(tmp_path, rows, name, threshold=0.6) == [[[1, 2, 4, 6]]]
    assert "no entry for" in found(tmp_path, rows, "room_².jpg")[0]
    assert "also" in found(tmp_path, rows, *names)[0]


@pytest.mark.parametrize("number", [0, 2])
def test_people_are_found_whatever_number_their_category_has(tmp_path, number, caplog):
    content = annotated(person=number, dog=1)
    assert "holds no person" in str(_refused(tmp_path, content))
    for row in content["annotations"][:2]:
        row["category_id"] = number
    assert found(tmp_path, content, "1.jpg") == [[[1, 2, 11, 22]]]
    assert "1 rows of other categories are left out" in caplog.text
    assert found(tmp_path, content, "1.jpg", category="dog") == [[[1, 2, 11, 22]]]


def _refused(folder: Path, content: Any) -> DataError:
    with pytest.raises(DataError, match="boxes.json holds no boxes") as caught:
        read_boxes(write(folder, content))
    return caught.value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("annotations", 1, "category_id"),
            "1",
            r"annotations\[1\].category_id is '1'; valid: ",
        ),
        (("annotations", 1, "iscrowd"), "0", r"annotations\[1\].iscrowd is '0'; valid: an integer"),
        (("annotations", 1, "image_id"), 9, r"annotations\[1\].image_id is 9; .* one of the 3"),
        (("images", 1, "id"), 0, r"images\[1\].id is 0; .* used twice"),
    ],
)
def test_rows_that_cannot_be_told_apart_are_refused(tmp_path, path, value, message):
    error = _refused(tmp_path, changed(annotated(person=1), path, value))
    assert re.search(message, str(error)), error


@pytest.mark.parametrize("bbox", [[[1, 2], [3, 4]], [1, 2, 3], "x", [1, 2, NAN, 4], ...])
def test_malformed_box_costs_its_photo_only_and_names_the_row(tmp_path, bbox):
    content = changed(annotated(person=1), ("annotations", 2, "bbox"), bbox)
    first, second = found(tmp_path, content, "0.jpg", "1.jpg")
    assert first == [[0, 2, 10, 22]] and "annotations[2]" in second and "bbox" in second


def test_score_that_is_no_number_names_its_row(tmp_path, caplog):
    rows = [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.5} for i in (1, 2)]
    rows[1]["score"] = NAN
    first, second = found(tmp_path, rows, "1.jpg", "2.jpg")
    assert first == [[1, 2, 4, 6]] and "detections[1].score is nan" in second
    rows[1]["score"] = 0.1
    with caplog.at_level(logging.INFO):
        assert found(tmp_path, rows, "2.jpg", threshold=0.2) == [[]]
    assert "1 boxes below 0.2" in caplog.text


@pytest.mark.parametrize("rows", [BOX, [[BOX]], [BOX + [0.9]] * 4, [[1, 2]], 5, {"x": 1}, [None]])
def test_boxes_by_hand_are_lists_of_four(tmp_path, rows):
    assert found(tmp_path, {"a.jpg": [BOX], "b.jpg": []}, "a.jpg", "b.jpg") == [[BOX], []]
    first, second = found(tmp_path, {"a.jpg": [BOX], "b.jpg": rows}, "a.jpg", "b.jpg")
    assert first == [BOX] and "boxes.json: b.jpg" in second and "valid" in second
    _refused(tmp_path, {"b.jpg": rows})


@pytest.mark.parametrize(
    "content",
    ["{", [], [1], [{"image_id": 1}], {"annotations": []}, "[" * 2000 + "]" * 2000,
     '{"a.jpg": [[0, 0, 1, 1' + "0" * 400 + "]]}"],
)  # fmt: skip
def test_file_without_boxes_is_refused(content, tmp_path):
    assert "give COCO annotations" in str(_refused(tmp_path, content))


E_ACUTE = unicodedata.normalize("NFD", "é.jpg")


@pytest.mark.parametrize(
    ("names", "photo", "index"),
    [
        (("cam1/1.jpg", "cam2/1.jpg"), "x/cam2/1.jpg", 1),
        (("1.jpg", "cam2/1.jpg"), "cam2/1.jpg", 1),
        (("cam1\\1.jpg", "cam2\\1.jpg"), "cam2/1.jpg", 1),
        (("./cam1/1.jpg", "cam2//1.jpg"), "cam1/1.jpg", 0),
        (("/home/a/cam1/1.jpg", "D:\\data\\cam2\\1.jpg"), "cam2/1.jpg", 1),
        (("/home/a/1.jpg",), "b/1.jpg", 0),
        (("1", "2"), "2.png", 1),
        ((E_ACUTE,), "é.jpg", 0),
        (("é.jpg",), E_ACUTE, 0),
        (("cam1/1.jpg", "cam2/1.jpg"), "1.jpg", "no entry for .*; it has cam1/1.jpg, cam2/1.jpg"),
        (("cam1/1.jpg",), "cam2/1.jpg", "no entry for"),
        (("/a/cam1/1.jpg", "/a/cam2/1.jpg"), "1.jpg", "may be '/a/cam1/1.jpg', '/a/cam2/1.jpg'"),
        (("1.jpg", "./1.jpg"), "1.jpg", "may be '1.jpg', './1.jpg'"),
    ],
)
def test_photo_gets_the_entry_with_the_longest_path_that_fits(tmp_path, names, photo, index):
    (entry,) = read_boxes(write(tmp_path, {name: [BOX] for name in names})).match(
        [tmp_path / photo]
    )
    if isinstance(index, int):
        assert isinstance(entry, BoxEntry) and entry.name == names[index]
    else:
        with pytest.raises(InputError, match=index):
            raise entry


def test_entry_that_fits_two_photos_is_nobodys(tmp_path):
    first, second, third = found(tmp_path, {"1.jpg": [BOX]}, "a/1.jpg", "b/1.jpg", "a/1.jpg")
    assert "fits" in first and "b/1.jpg" in first and "a/1.jpg" in second and third == first
