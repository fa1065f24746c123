"""Data sets: descriptors, and files to samples, or one error that names what is wrong."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import posezoo
from evaluation.cases import changed, load_case, one_person
from posezoo import get_skeleton
from posezoo.datasets import data_set_of, read_annotations
from posezoo.datasets.descriptors import DATA_SETS, MPII, pose_set_of
from posezoo.errors import DataError, InputError
from posezoo.evaluation import ImageSample, box_source_of, clean_boxes, read_coco, read_mpii
from posezoo.geometry import CONVENTIONS, TOKENPOSE

COCO_17 = get_skeleton("coco")
NAN = float("nan")


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def test_every_model_has_a_data_set_with_its_keypoints() -> None:
    for cfg in map(posezoo.get_pretrained_cfg, posezoo.list_models(tags=True)):
        assert data_set_of(cfg).name == cfg.dataset
        if cfg.task == "classification":
            with pytest.raises(InputError, match="has no crops of people"):
                pose_set_of(cfg)
        else:
            assert pose_set_of(cfg).skeleton is cfg.skeleton


def test_own_keypoints_have_the_layout_of_coco_and_unknown_sets_are_refused() -> None:
    cfg = posezoo.get_pretrained_cfg("hrnet_xs_128x96")
    own = dataclasses.replace(COCO_17, name="mine")
    found = pose_set_of(dataclasses.replace(cfg, dataset="mine", own_skeleton=own))
    assert found == dataclasses.replace(
        DATA_SETS["coco"], name="mine", skeleton=own, detections=(), counts={}
    )
    with pytest.raises(InputError, match="for the data set 'mine'; known: coco, coco_wholebody"):
        data_set_of(dataclasses.replace(cfg, dataset="mine"))
    with pytest.raises(InputError, match="mpii has no split 'val'; valid: train, valid"):
        MPII.split("val")


def test_files_are_found_in_the_usual_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no valid.json or mpii_val.json below .*annot/valid.json"):
        MPII.val.find_annotations(tmp_path)
    (tmp_path / "annot").mkdir()
    file = write(tmp_path / "annot", "mpii_val.json", [])
    assert MPII.val.find_annotations(tmp_path) == file
    assert MPII.val.find_annotations(write(tmp_path, "valid.json", []).parent).name == "valid.json"


CLEANING = load_case("boxes")["ground_truth_box_cleaning_640x480"]
STORED = {"mmpose0": "mmpose_0_29", "mmpose0_16": "mmpose_0_16", "tokenpose": "tokenpose"}


@pytest.mark.parametrize("case", CLEANING, ids=lambda case: str(case["box"]))
def test_boxes_are_cleaned_as_stored(case: dict[str, Any]) -> None:
    given = np.array([case["box"]]), np.array([100.0]), np.array([[480, 640]])
    for rule, stored in STORED.items():
        boxes, keep = clean_boxes(*given, rule)  # type: ignore[arg-type]
        assert keep[0] == (case[stored] is not None)
        if keep[0]:
            x, y, w, h = case[stored]
            np.testing.assert_allclose(boxes[0], [x, y, x + w, y + h], rtol=0, atol=1e-9)
    boxes, keep = clean_boxes(*given, "mmpose1")
    expected = case["mmpose_1x_xyxy"]
    np.testing.assert_allclose(boxes[0], expected, rtol=0, atol=1e-9)
    assert keep[0] == (expected[2] > expected[0] and expected[3] > expected[1])


def test_boxes_of_people_without_area_are_left_out_except_in_mmpose1() -> None:
    given = np.array([[1.0, 2.0, 3.0, 4.0]]), np.zeros(1), np.array([[480, 640]])
    kept = {name: bool(clean_boxes(*given, rule)[1][0]) for name, rule in CONVENTIONS.items()}
    assert kept == {name: name == "mmpose1" for name in CONVENTIONS}


def three_images() -> dict[str, Any]:
    """Return annotations of images 7, 3 and 5; image 3 has two people, 5 nobody to box."""
    truth = one_person()
    truth["images"] += [
        {"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 80} for i in (3, 5)
    ]
    person = truth["annotations"][0]
    truth["annotations"] += [
        person | {"id": 2, "image_id": 3, "bbox": [50.0, 10.0, 20.0, 30.0]},
        person | {"id": 3, "image_id": 5, "iscrowd": 1},
        person | {"id": 4, "image_id": 3, "keypoints": [0] * 51, "num_keypoints": 0},
        person | {"id": 5, "image_id": 3, "bbox": [60.0, 20.0, 80.0, 30.0]},
    ]
    return truth


def detections() -> list[dict[str, Any]]:
    rows = [(3, [1.5, 2.0, 10.0, 20.0], 0.9), (7, [-5.0, 3.0, 200.0, 9.0], 0.003)]
    rows.append((3, [4.0, 5.0, 6.0, 7.0], 0.5))
    return [
        {"image_id": i, "category_id": 1, "bbox": box, "score": score} for i, box, score in rows
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in (7, 3, 5):
        (tmp_path / f"{i}.jpg").touch()
    write(tmp_path, "val.json", three_images())
    write(tmp_path, "boxes.json", detections())
    return tmp_path


def read(data: Path, boxes: Any = "gt", rule: Any = "mmpose0") -> list[ImageSample]:
    return read_coco(data / "val.json", data, boxes=boxes, skeleton=COCO_17, rule=rule)


def test_annotated_boxes_are_those_of_labelled_people_in_file_order(data: Path) -> None:
    first, second = read(data)
    assert (first.image_id, first.path, first.size) == (7, data / "7.jpg", (80, 100))
    assert first.bboxes.tolist() == [[5.0, 10.0, 45.0, 70.0]] and first.count == 1
    assert (second.image_id, second.box_ids.tolist()) == (3, [1, 4])
    assert second.bboxes.tolist() == [[50, 10, 70, 40], [60, 20, 99, 50]]
    assert second.bbox_scores.tolist() == [1.0, 1.0]
    assert {sample.box_source for sample in (first, second)} == {"gt"}
    named, given = read(data, rule="tokenpose"), read(data, rule=TOKENPOSE)
    assert [s.bboxes.tolist() for s in named] == [s.bboxes.tolist() for s in given]
    with pytest.raises(InputError, match="geometry is 'mmpose2'"):
        read(data, rule="mmpose2")


def test_detected_boxes_are_used_as_they_are(data: Path) -> None:
    first, second = read(data, data / "boxes.json")
    assert first.bboxes.tolist() == [[-5.0, 3.0, 195.0, 12.0]]
    assert first.bboxes.dtype == np.float64
    assert second.bboxes.tolist() == [[1.5, 2.0, 11.5, 22.0], [4.0, 5.0, 10.0, 12.0]]
    assert (second.box_ids.tolist(), second.bbox_scores.tolist()) == ([0, 2], [0.9, 0.5])
    assert second.box_source == "boxes"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("COCO_val2017_detections_AP_H_56_person.json", "det56.4"),
        ("COCO_test-dev2017_detections_AP_H_609_person.json", "det60.9"),
        ("detections_AP_H_560.json", "detections_AP_H_560"),
        ("yolo.v8.json", "yolo.v8"),
    ],
)
def test_box_source_is_named_after_the_file(name: str, label: str) -> None:
    assert box_source_of(Path("some") / name) == label


def test_images_are_found_below_val2017_and_missing_ones_named(data: Path) -> None:
    (data / "val2017").mkdir()
    for i in (7, 3):
        (data / f"{i}.jpg").rename(data / "val2017" / f"{i}.jpg")
    assert [sample.path.parent.name for sample in read(data)] == ["val2017", "val2017"]
    (data / "val2017/3.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 images are missing, first .*3.jpg"):
        read(data)
    with pytest.raises(DataError, match="is not a folder"):
        read_coco(data / "val.json", data / "x", boxes="gt", skeleton=COCO_17, rule="mmpose0")


def test_images_without_sizes_do_for_detected_boxes_only(data: Path) -> None:
    write(data, "val.json", changed(three_images(), ("images", 1, "width"), ...))
    assert [sample.size for sample in read(data, data / "boxes.json")] == [None, None]
    with pytest.raises(DataError, match=r"images\[1\] has no field 'width'"):
        read(data)


def test_whole_body_counts_people_by_their_body_alone(tmp_path: Path) -> None:
    truth = one_person()
    person = truth["annotations"][0]
    person |= {f: [0.0] * 3 * k for f, k in (("foot_kpts", 6), ("face_kpts", 68))}
    person |= {f"{side}hand_kpts": [5.0, 5.0, 2.0] * 21 for side in ("left", "right")}
    truth["annotations"].append(person | {"id": 2, "keypoints": [0] * 51, "num_keypoints": 0})
    (tmp_path / "7.jpg").touch()
    skeleton = get_skeleton("coco_wholebody")
    people = read_annotations(write(tmp_path, "val.json", truth), skeleton)
    (sample,) = read_coco(people, tmp_path, boxes="gt", skeleton=skeleton, rule="mmpose0")
    assert sample.box_ids.tolist() == [0]


def test_other_categories_are_left_out_and_counted(data: Path, caplog: Any) -> None:
    write(data, "boxes.json", changed(detections(), (0, "category_id"), 18))
    with caplog.at_level(logging.WARNING):
        samples = read(data, data / "boxes.json")
    assert [sample.box_ids.tolist() for sample in samples] == [[1], [2]]
    assert "1 rows of other categories are left out" in caplog.text


BAD_DETECTIONS: list[tuple[tuple[Any, ...], Any, str]] = [
    ((1, "image_id"), "7", r"detections\[1\].image_id is '7'; valid: an integer"),
    ((1, "bbox", 2), NAN, r"\[1\].bbox is .* valid: 4 finite numbers"),
    ((1, "bbox", 3), -1.0, r"\[1\].bbox is .* no size below 0"),
    ((1, "bbox"), [1.0, 2.0, 3.0], r"\[1\].bbox is .* valid: 4 finite numbers"),
    ((1, "score"), NAN, r"\[1\].score is nan; valid: a finite number"),
    ((1, "score"), ..., r"\[1\] has no field 'score'"),
    ((1,), [1, 2], r"\[1\] is a list of length 2: \[1, 2\]; valid: an object"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_DETECTIONS)
def test_bad_detections_are_refused(path, value, message, data):
    file = write(data, "boxes.json", changed(detections(), path, value))
    with pytest.raises(DataError, match=message) as caught:
        read(data, file)
    assert str(file) in str(caught.value)


def test_boxes_of_images_that_are_not_annotated_are_left_out_and_counted(data, caplog):
    rows = changed(detections(), (0, "image_id"), 8)
    with caplog.at_level(logging.WARNING):
        samples = read(data, write(data, "boxes.json", rows))
    assert [sample.box_ids.tolist() for sample in samples] == [[1], [2]]
    assert "1 rows of images that" in caplog.text
    for row in rows:
        row["image_id"] = 8
    with pytest.raises(DataError, match=r"\[0\].image_id is 8; .* one of the 3 images of .*val"):
        read(data, write(data, "boxes.json", rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is an empty list; valid: at least one person box"),
        ({"annotations": []}, "detections is an object .* valid: a list"),
        ([{"category_id": 2}], "holds no person .* in 1 rows"),
    ],
)
def test_detection_files_without_a_person_are_refused(content: Any, message: str, data: Path):
    with pytest.raises(DataError, match=message):
        read(data, write(data, "boxes.json", content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images", 0, "file_name"), ..., "has no field 'file_name'"),
        (("images", 0, "file_name"), 7, "file_name is 7; valid: a name"),
        (("images", 0, "height"), 0, "height is 0; valid: an integer from 1"),
        (("images", 0, "width"), 99.5, "width is 99.5; valid: an integer from 1"),
        (("annotations",), three_images()["annotations"][2:4], "no box to evaluate; all 2"),
    ],
)
def test_files_that_give_no_samples_are_refused(path, value, message, data):
    write(data, "val.json", changed(three_images(), path, value))
    with pytest.raises(DataError, match=message):
        read(data)


def test_real_photos_have_the_boxes_of_their_files(photos: Path) -> None:
    folder = photos / "coco"
    found = folder / "test_coco_det_AP_H_56.json"
    for skeleton, name in (("coco", "test_coco"), ("coco_wholebody", "test_coco_wholebody")):
        people = read_annotations(folder / f"{name}.json", get_skeleton(skeleton))
        for boxes, count, source in (("gt", 12, "gt"), (found, 118, "det56.4")):
            samples = read_coco(
                people, folder, boxes=boxes, skeleton=get_skeleton(skeleton), rule="mmpose0"
            )
            assert [s.image_id for s in samples] == [785, 40083, 196141, 197388]
            assert sum(s.count for s in samples) == count
            assert {s.box_source for s in samples} == {source}


def mpii_person(image: str, scale: float) -> dict[str, Any]:
    joints = [[10.0 + i, 20.0 + i] for i in range(16)]
    person = {"image": image, "center": [101.0, 51.0], "scale": scale}
    return person | {"joints": joints, "joints_vis": [1] * 16}


@pytest.fixture
def mpii(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("b.jpg", "a.jpg"):
        (tmp_path / "images" / name).touch()
    rows = [mpii_person("b.jpg", 1.0), mpii_person("a.jpg", 2.0), mpii_person("b.jpg", 0.5)]
    write(tmp_path, "valid.json", rows)
    return tmp_path


def test_mpii_people_are_grouped_by_image_and_keep_their_rows(mpii: Path) -> None:
    first, second = read_mpii(mpii / "valid.json", mpii)
    assert (first.path, first.person_ids.tolist()) == (mpii / "images" / "b.jpg", [0, 2])
    assert (second.path.name, second.person_ids.tolist()) == ("a.jpg", [1])
    assert first.centers.tolist() == [[100.0, 65.0], [100.0, 57.5]]
    assert first.box_sizes.tolist() == [[250.0, 250.0], [125.0, 125.0]]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((1, "joints"), [[1.0, 2.0]] * 17, r"people\[1\].joints .* valid: 16 x 2 finite numbers"),
        ((1, "joints_vis"), [1] * 15, r"people\[1\].joints_vis .* valid: 16 finite numbers"),
        ((1, "center"), [1.0, NAN], r"people\[1\].center .* valid: 2 finite numbers"),
        ((1, "scale"), 0.0, r"people\[1\].scale is 0.0; valid: a number above 0"),
        ((1, "scale"), 1e-6, r"people\[1\].scale is 1e-06; .* with a crop of 1 to 1e9 pixels"),
        ((1, "image"), "", r"people\[1\].image is ''; valid: a name"),
        ((1, "image"), "c.jpg", "1 of 2 images are missing, first .*c.jpg"),
        ((slice(None),), ..., "is an empty list"),
    ],
)
def test_bad_mpii_rows_are_refused(path: tuple[Any, ...], value: Any, message: str, mpii: Path):
    rows = json.loads((mpii / "valid.json").read_text())
    file = write(mpii, "valid.json", changed(rows, path, value))
    with pytest.raises(DataError, match=message):
        read_mpii(file, mpii)


def test_real_mpii_file_is_read(photos: Path) -> None:
    samples = read_mpii(photos / "mpii" / "test_mpii.json", photos / "mpii")
    assert len(samples) == 5
    assert samples[0].centers[0] == pytest.approx([965.0, 340.0 + 15 * 4.718488 - 1])
