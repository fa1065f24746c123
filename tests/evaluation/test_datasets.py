from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from evaluation.cases import changed, load_case, one_person
from posezoo import get_skeleton
from posezoo.datasets.samples import _wordnet_ids
from posezoo.errors import DataError
from posezoo.evaluation import (
    BoxRule,
    ImageSample,
    box_source_of,
    clean_boxes,
    read_coco,
    read_imagenet_flat,
    read_imagenet_folders,
    read_mpii,
)

COCO_17 = get_skeleton("coco")
NAN = float("nan")
CLEANING = load_case("boxes")["ground_truth_box_cleaning_640x480"]


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


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


def read(data: Path, boxes: Any = "gt", rule: BoxRule = "mmpose0") -> list[ImageSample]:
    return read_coco(data / "val.json", data, boxes=boxes, skeleton=COCO_17, rule=rule)


def cleaned(case: dict[str, Any], rule: BoxRule) -> tuple[list[float], bool]:
    boxes, keep = clean_boxes(
        np.array([case["box"]]), np.array([100.0]), np.array([[480, 640]]), rule
    )
    return boxes[0].tolist(), bool(keep[0])


@pytest.mark.parametrize("case", CLEANING, ids=lambda case: str(case["box"]))
@pytest.mark.parametrize(
    ("rule", "stored"),
    [("mmpose0", "mmpose_0_29"), ("mmpose0_16", "mmpose_0_16"), ("tokenpose", "tokenpose")],
)
def test_boxes_are_cleaned_as_stored(case: dict[str, Any], rule: BoxRule, stored: str) -> None:
    box, keep = cleaned(case, rule)
    assert keep == (case[stored] is not None)
    if keep:
        x, y, w, h = case[stored]
        assert box == pytest.approx([x, y, x + w, y + h], abs=1e-9)


@pytest.mark.parametrize("case", CLEANING, ids=lambda case: str(case["box"]))
def test_boxes_are_clipped_as_in_mmpose1_and_kept_with_a_size(case: dict[str, Any]) -> None:
    box, keep = cleaned(case, "mmpose1")
    expected = case["mmpose_1x_xyxy"]
    assert box == pytest.approx(expected, abs=1e-9)
    assert keep == (expected[2] > expected[0] and expected[3] > expected[1])


def test_boxes_of_people_without_area_are_left_out_except_in_mmpose1() -> None:
    box, size = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[480, 640]])
    rules: tuple[BoxRule, ...] = ("mmpose0", "mmpose0_16", "tokenpose", "mmpose1")
    kept = [bool(clean_boxes(box, np.zeros(1), size, rule)[1][0]) for rule in rules]
    assert kept == [False, False, False, True]


def test_annotated_boxes_are_those_of_labelled_people_in_file_order(data: Path) -> None:
    first, second = read(data)
    assert (first.image_id, first.path, first.size) == (7, data / "7.jpg", (80, 100))
    assert first.bboxes.tolist() == [[5.0, 10.0, 45.0, 70.0]]
    assert (second.image_id, second.box_ids.tolist()) == (3, [1, 4])
    assert second.bboxes.tolist() == [[50, 10, 70, 40], [60, 20, 99, 50]]
    assert second.bbox_scores.tolist() == [1.0, 1.0]
    assert {sample.box_source for sample in (first, second)} == {"gt"}


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


def test_images_are_found_below_val2017(data: Path) -> None:
    (data / "val2017").mkdir()
    for i in (7, 3):
        (data / f"{i}.jpg").rename(data / "val2017" / f"{i}.jpg")
    assert [sample.path.parent.name for sample in read(data)] == ["val2017", "val2017"]


def test_missing_images_are_named(data: Path) -> None:
    (data / "3.jpg").unlink()
    with pytest.raises(DataError, match="1 of 2 images are missing, first .*3.jpg"):
        read(data)
    with pytest.raises(DataError, match="is not a folder"):
        read_coco(data / "val.json", data / "x", boxes="gt", skeleton=COCO_17, rule="mmpose0")


def test_images_without_sizes_do_for_detected_boxes_only(data: Path) -> None:
    truth = changed(three_images(), ("images", 1, "width"), ...)
    write(data, "val.json", truth)
    assert [sample.size for sample in read(data, data / "boxes.json")] == [None, None]
    with pytest.raises(DataError, match=r"images\[1\] has no field 'width'"):
        read(data)


def test_whole_body_counts_people_by_their_body_alone(tmp_path: Path) -> None:
    truth = one_person()
    person = truth["annotations"][0]
    person |= {f: [0.0] * 3 * k for f, k in (("foot_kpts", 6), ("face_kpts", 68))}
    person |= {f"{side}hand_kpts": [5.0, 5.0, 2.0] * 21 for side in ("left", "right")}
    no_body = person | {"id": 2, "keypoints": [0] * 51, "num_keypoints": 0}
    truth["annotations"].append(no_body)
    (tmp_path / "7.jpg").touch()
    (sample,) = read_coco(
        write(tmp_path, "val.json", truth),
        tmp_path,
        boxes="gt",
        skeleton=get_skeleton("coco_wholebody"),
        rule="mmpose0",
    )
    assert sample.box_ids.tolist() == [0]


def test_other_categories_are_left_out_and_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(data, "boxes.json", changed(detections(), (0, "category_id"), 18))
    with caplog.at_level(logging.WARNING):
        samples = read(data, data / "boxes.json")
    assert [sample.box_ids.tolist() for sample in samples] == [[1], [2]]
    assert "1 rows of other categories are left out" in caplog.text


def test_annotations_without_a_box_are_refused(data: Path) -> None:
    truth = three_images()
    truth["annotations"] = truth["annotations"][2:4]
    write(data, "val.json", truth)
    with pytest.raises(DataError, match="holds no box to evaluate; all 2"):
        read(data)


BAD_DETECTIONS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "text_image_id": ((1, "image_id"), "7", r"detections\[1\].image_id is '7'; valid: an integer"),
    "unknown_image": ((1, "image_id"), 8, r"\[1\].image_id is 8; .* one of the 3 images of .*val"),
    "nan_box": ((1, "bbox", 2), NAN, r"\[1\].bbox is .* valid: 4 finite numbers"),
    "nan_score": ((1, "score"), NAN, r"\[1\].score is nan; valid: a finite number"),
    "negative_size": ((1, "bbox", 3), -1.0, r"\[1\].bbox is .* no size below 0"),
    "three_numbers": ((1, "bbox"), [1.0, 2.0, 3.0], r"\[1\].bbox is .* valid: 4 finite numbers"),
    "no_score": ((1, "score"), ..., r"\[1\] has no field 'score'"),
    "no_bbox": ((1, "bbox"), ..., r"\[1\] has no field 'bbox'"),
    "no_category": ((1, "category_id"), ..., r"\[1\] has no field 'category_id'"),
    "text_score": ((1, "score"), "0.5", r"\[1\].score is '0.5'; valid: a finite number"),
    "row_is_a_list": ((1,), [1, 2], r"\[1\] is a list of length 2: \[1, 2\]; valid: an object"),
}


@pytest.mark.parametrize("case", BAD_DETECTIONS)
def test_bad_detections_are_refused(case: str, data: Path) -> None:
    path, value, message = BAD_DETECTIONS[case]
    file = write(data, "boxes.json", changed(detections(), path, value))
    with pytest.raises(DataError, match=message) as caught:
        read(data, file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is an empty list; valid: at least one person box"),
        ({"annotations": []}, "detections is an object .* valid: a list"),
        ([{"category_id": 2}], "holds no person .* in 1 rows"),
    ],
)
def test_detection_files_without_a_person_are_refused(
    content: Any, message: str, data: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(data, write(data, "boxes.json", content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images", 0, "file_name"), ..., "has no field 'file_name'"),
        (("images", 0, "file_name"), 7, "file_name is 7; valid: a name"),
        (("images", 0, "height"), 0, "height is 0; valid: an integer from 1"),
        (("images", 0, "width"), 99.5, "width is 99.5; valid: an integer from 1"),
    ],
)
def test_bad_image_entries_are_refused(
    path: tuple[Any, ...], value: Any, message: str, data: Path
) -> None:
    write(data, "val.json", changed(three_images(), path, value))
    with pytest.raises(DataError, match=message):
        read(data)


def test_real_photos_have_the_boxes_of_their_files(photos: Path) -> None:
    folder = photos / "coco"
    for skeleton, name in (("coco", "test_coco"), ("coco_wholebody", "test_coco_wholebody")):
        for boxes, count, source in (
            ("gt", 12, "gt"),
            (folder / "test_coco_det_AP_H_56.json", 118, "det56.4"),
        ):
            samples = read_coco(
                folder / f"{name}.json",
                folder,
                boxes=boxes,  # type: ignore[arg-type]
                skeleton=get_skeleton(skeleton),
                rule="mmpose0",
            )
            assert [s.image_id for s in samples] == [785, 40083, 196141, 197388]
            assert sum(len(s.bboxes) for s in samples) == count
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
        ((1, "scale"), ..., r"people\[1\] has no field 'scale'"),
        ((1, "image"), "", r"people\[1\].image is ''; valid: a name"),
        ((1, "image"), "c.jpg", "1 of 2 images are missing, first .*c.jpg"),
    ],
)
def test_bad_mpii_rows_are_refused(
    path: tuple[Any, ...], value: Any, message: str, mpii: Path
) -> None:
    rows = json.loads((mpii / "valid.json").read_text())
    file = write(mpii, "valid.json", changed(rows, path, value))
    with pytest.raises(DataError, match=message):
        read_mpii(file, mpii)


def test_empty_mpii_file_is_refused(mpii: Path) -> None:
    with pytest.raises(DataError, match="is an empty list"):
        read_mpii(write(mpii, "valid.json", []), mpii)


def test_real_mpii_file_is_read(photos: Path) -> None:
    samples = read_mpii(photos / "mpii" / "test_mpii.json", photos / "mpii")
    assert len(samples) == 5
    assert samples[0].centers[0] == pytest.approx([965.0, 340.0 + 15 * 4.718488 - 1])


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    for name in _wordnet_ids():
        (root / name).mkdir()
        (root / name / f"{name}_1.JPEG").touch()
    (root / "n01443537" / "n01443537_0.JPEG").touch()
    return root


def test_class_folders_are_numbered_in_sorted_order(class_folders: Path) -> None:
    samples = read_imagenet_folders(class_folders)
    assert len(samples) == 1001
    assert [(s.path.name, s.label) for s in samples[:4]] == [
        ("n01440764_1.JPEG", 0),
        ("n01443537_0.JPEG", 1),
        ("n01443537_1.JPEG", 1),
        ("n01484850_1.JPEG", 2),
    ]
    assert samples[-1].label == 999


def test_missing_and_unknown_class_folders_are_named(class_folders: Path) -> None:
    (class_folders / "n01440764").rename(class_folders / "tench")
    try:
        with pytest.raises(DataError, match="1 missing: n01440764; 1 unknown: tench"):
            read_imagenet_folders(class_folders)
    finally:
        (class_folders / "tench").rename(class_folders / "n01440764")


def test_few_class_folders_are_refused_with_the_count(tmp_path: Path) -> None:
    (tmp_path / "n01443537").mkdir()
    message = "holds 1 class folders, not the 1000 .* 999 missing: n01440764, n01484850, .*…"
    with pytest.raises(DataError, match=message):
        read_imagenet_folders(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        read_imagenet_folders(tmp_path / "none")


def test_class_folder_without_images_is_refused(class_folders: Path) -> None:
    image = class_folders / "n01440764" / "n01440764_1.JPEG"
    image.unlink()
    try:
        with pytest.raises(DataError, match="n01440764"):
            read_imagenet_folders(class_folders)
    finally:
        image.touch()


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Three validation images of the devkit's classes 1000, 1 and 2; IDs run backwards here."""
    for i in (1, 2, 3):
        (tmp_path / f"ILSVRC2012_val_{i:08d}.JPEG").touch()
    (tmp_path / "truth.txt").write_text("1000\n1\n2\n")
    (tmp_path / "synsets.txt").write_text("\n".join(reversed(_wordnet_ids())))
    return tmp_path


def test_flat_folder_takes_labels_through_the_synsets(flat: Path) -> None:
    samples = read_imagenet_flat(flat, flat / "truth.txt", flat / "synsets.txt")
    assert [s.label for s in samples] == [0, 999, 998]
    assert [s.path.name[-8:-5] for s in samples] == ["001", "002", "003"]


def test_meta_mat_and_synset_list_say_the_same(flat: Path) -> None:
    names = [*reversed(_wordnet_ids()), "n00001740"]  # a high-level synset comes after the 1000
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("num_children", "f8")]
    rows = [(i, name, float(i > 1000)) for i, name in enumerate(names, 1)]
    savemat(flat / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]})
    by_list = read_imagenet_flat(flat, flat / "truth.txt", flat / "synsets.txt")
    assert read_imagenet_flat(flat, flat / "truth.txt", flat / "meta.mat") == by_list


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("truth.txt", "1000\n0\n2\n", "line 2 is '0'; valid: an ILSVRC2012_ID from 1 to 1000"),
        ("truth.txt", "1000\n1001\n2\n", "line 2 is '1001'"),
        ("truth.txt", "1000\nn01440764\n2\n", "line 2 is 'n01440764'"),
        ("truth.txt", "1000\n1\n", "3 validation images, .* 2 lines; .* only one of them: 3"),
        ("synsets.txt", "n01440764\nx1\n", "lists 2 synsets, not the 1000 .* unknown: x1"),
        ("synsets.txt", "\n".join(_wordnet_ids()), "sorted order, which is not that of ILSVRC"),
    ],
)
def test_bad_devkit_lists_are_refused(name: str, text: str, message: str, flat: Path) -> None:
    (flat / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_imagenet_flat(flat, flat / "truth.txt", flat / "synsets.txt")


def test_missing_validation_image_is_named(flat: Path) -> None:
    (flat / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(DataError, match="holds 2 validation images, .* only one of them: 2"):
        read_imagenet_flat(flat, flat / "truth.txt", flat / "synsets.txt")


def test_unreadable_devkit_files_are_refused(flat: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*none.txt as text"):
        read_imagenet_flat(flat, flat / "none.txt", flat / "synsets.txt")
    (flat / "meta.mat").write_text("<html>")
    with pytest.raises(DataError, match="as meta.mat of the ILSVRC2012 development kit"):
        read_imagenet_flat(flat, flat / "truth.txt", flat / "meta.mat")
    with pytest.raises(DataError, match="is not a folder"):
        read_imagenet_flat(flat / "none", flat / "truth.txt", flat / "synsets.txt")
