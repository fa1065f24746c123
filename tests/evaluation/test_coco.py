"""COCO statistics: equal to pycocotools and the stored numbers, and nothing from a bad file."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.cases import changed, load_case, one_person, one_result
from posezoo import get_skeleton
from posezoo.datasets import read_annotations
from posezoo.errors import DataError, InputError
from posezoo.evaluation import evaluate_coco
from posezoo.skeletons import Skeleton

COCO_17 = get_skeleton("coco")
NAN = float("nan")


def pycocotools(truth: dict[str, Any], rows: list[dict[str, Any]], sigmas: Any) -> np.ndarray:
    """The ten statistics, from copies, as pycocotools writes into its input."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(rows)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def make_people(rng: np.random.Generator, k: int, images: int) -> tuple[Any, Any]:
    """Return people and results on a coarse grid, so that equal OKS and scores do occur."""
    annotations, rows = [], []
    for image_id in range(1, images + 1):
        people = []
        for _ in range(rng.integers(0, 5)):
            flags = rng.choice([0, 1, 2], k) * (rng.random() < 0.7)
            points = rng.integers(0, 20, (k, 2)) * 4
            points = people[-1] if people and rng.random() < 0.3 else points
            people.append(points)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": 1,
                "iscrowd": int(rng.random() < 0.2), "bbox": rng.integers(0, 80, 4).tolist(),
                "area": float(rng.choice([200, 32**2, 3000, 96**2, 96**2 + 1, 2e4])),
                "num_keypoints": int((flags > 0).sum()),
                "keypoints": np.c_[points, flags].ravel().tolist(),
            })  # fmt: skip
        for _ in range(rng.choice([0, 1, 4, 26])):
            base = people[rng.integers(len(people))] if people else rng.integers(0, 80, (k, 2))
            found = base + rng.choice([0, 0, 1, 4, 20]) * rng.integers(-2, 3, (k, 2))
            rows.append({
                "image_id": image_id, "category_id": 1,
                "keypoints": np.c_[found, np.ones(k)].ravel().tolist(),
                "score": float(rng.choice([0.0, 0.1, 0.5, 0.5, 0.9])),
            })  # fmt: skip
    truth = {"images": [{"id": i + 1} for i in range(images)], "annotations": annotations}
    return truth | {"categories": [{"id": 1, "name": "person"}]}, rows


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.sampled_from([1, 6, 17, 133]), images=st.integers(1, 4))
def test_statistics_equal_those_of_pycocotools(seed: int, k: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    truth, rows = make_people(rng, k, images)
    assume(rows and any(a["num_keypoints"] and not a["iscrowd"] for a in truth["annotations"]))
    skeleton = Skeleton(
        name="any", keypoint_names=tuple(map(str, range(k))), flip_pairs=(), limbs=(),
        sigmas=tuple(rng.choice([0.025, 0.05, 0.1], k).tolist()), parts={"body": (0, k)},
    )  # fmt: skip
    found = list(evaluate_coco(truth, rows, skeleton).to_dict().values())[:10]
    np.testing.assert_allclose(found, pycocotools(truth, rows, skeleton.sigmas), rtol=0, atol=1e-12)


def test_oks_of_exactly_a_threshold_is_a_match() -> None:
    """One of two labelled keypoints is exact, the other infinitely far: OKS 0.5."""
    truth, rows = one_person(), one_result()
    labelled, found = truth["annotations"][0]["keypoints"], rows[0]["keypoints"]
    labelled[2::3] = [2, 2] + 15 * [0]
    truth["annotations"][0]["num_keypoints"] = 2
    found[:2], found[3:5] = labelled[:2], [1e6, 1e6]
    stats = evaluate_coco(truth, rows, COCO_17)
    assert (stats.ap50, stats.ap75) == pytest.approx((1, 0))
    expected = pycocotools(truth, rows, COCO_17.sigmas)
    assert list(stats.to_dict().values())[:10] == pytest.approx(expected.tolist())


def test_synthetic_set_matches_xtcocotools_from_content_and_from_files(tmp_path: Path) -> None:
    expected = load_case("coco_synthetic_stats")["coco_xtcocotools"]
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    before = copy.deepcopy((truth, rows))
    stats = evaluate_coco(truth, rows, COCO_17)
    assert (truth, rows) == before
    assert stats.to_dict() == pytest.approx(expected | {"removed": 1}, abs=1e-9)
    for name, content in (("gt", truth), ("results", rows)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert stats == evaluate_coco(tmp_path / "gt.json", tmp_path / "results.json", COCO_17)


def test_perfect_result_scores_one_and_empty_ranges_minus_one(capsys: Any) -> None:
    stats = evaluate_coco(one_person(), one_result(), COCO_17)
    assert (stats.ap, stats.ar, stats.ap_m) == pytest.approx((1, 1, 1))
    assert (stats.ap_l, stats.ar_l, stats.removed) == (-1, -1, 0)
    assert capsys.readouterr() == ("", "")
    uncounted = changed(one_person(), ("annotations", 0, "num_keypoints"), ...)
    assert evaluate_coco(uncounted, one_result(), COCO_17) == stats


def test_detection_area_from_boxes_only_moves_the_statistics_by_size() -> None:
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    for row in rows:
        row["bbox"] = [0.0, 0.0, 50.0, 50.0]  # all medium, so unmatched ones never count as large
    by_keypoints = evaluate_coco(truth, rows, COCO_17).to_dict()
    by_boxes = evaluate_coco(truth, rows, COCO_17, detection_area="bbox").to_dict()
    assert {k for k in by_boxes if by_boxes[k] != by_keypoints[k]} == {"AP_M", "AP_L"}
    assert by_boxes["AP_L"] > by_keypoints["AP_L"]
    with pytest.raises(DataError, match="has no field 'bbox'"):
        evaluate_coco(one_person(), one_result(), COCO_17, detection_area="bbox")


def test_detections_without_positive_scores_are_removed_and_counted() -> None:
    blank = one_result()[0] | {"score": 0.99}
    blank["keypoints"] = [v if i % 3 < 2 else 0.0 for i, v in enumerate(blank["keypoints"])]
    stats = evaluate_coco(one_person(), [*one_result(), blank], COCO_17)
    assert stats.removed == 1
    assert stats == evaluate_coco(one_person(), [blank, *one_result()], COCO_17)
    only_blank = evaluate_coco(one_person(), [blank], COCO_17)
    assert (only_blank.ap, only_blank.ar, only_blank.removed) == (0, 0, 1)


def test_whole_body_skeleton_is_refused() -> None:
    with pytest.raises(InputError, match="evaluate_wholebody"):
        evaluate_coco(one_person(), one_result(), get_skeleton("coco_wholebody"))


PERSON = ("annotations", 0)
BAD_TRUTH: list[tuple[tuple[Any, ...], Any, str]] = [
    ((*PERSON, "id"), -1, r"annotations\[0\].id is -1; valid: .* from 0"),
    ((*PERSON, "id"), "1", r"annotations\[0\].id is '1'; valid: an integer"),
    ((*PERSON, "image_id"), 8, r"image_id is 8; valid: the id of one of the 1"),
    ((*PERSON, "category_id"), ..., r"annotations\[0\] has no field 'category_id'"),
    ((*PERSON, "keypoints"), ..., "has no field 'keypoints'"),
    ((*PERSON, "iscrowd"), 2, "iscrowd is 2; valid: an integer from 0 to 1"),
    ((*PERSON, "area"), -1.0, "area is -1.0; valid: .* at least 0"),
    ((*PERSON, "area"), NAN, "area is nan; valid: a finite number"),
    ((*PERSON, "area"), 8001.0, "area is 8001.0; valid: .* no more than the image"),
    ((*PERSON, "iscrowd"), "0", "iscrowd is '0'; valid: an integer"),
    ((*PERSON, "category_id"), "1", "category_id is '1'; valid: an integer"),
    (("categories", 0, "id"), "1", r"categories\[0\].id is '1'; valid: an integer"),
    (
        ("categories",),
        [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "1 cat, 2 dog; name",
    ),
    ((*PERSON, "bbox", 2), -40.0, "bbox .*-40.* no size below 0"),
    ((*PERSON, "bbox", 0), NAN, "bbox is a list of length 4: .nan, .* 4 finite"),
    ((*PERSON, "keypoints"), [1.0] * 48, "list of length 48; valid: 51 finite numbers"),
    ((*PERSON, "keypoints", 3), NAN, "keypoints .* 51 finite numbers"),
    ((*PERSON, "keypoints", 3), "11.0", "keypoints .* 51 finite numbers"),
    ((*PERSON, "num_keypoints"), 0, "num_keypoints is 0; valid: the number"),
    ((*PERSON, "iscrowd"), 1, "holds nobody with labelled keypoints"),
    ((*PERSON, "category_id"), 3, r"holds no person \(category_id 1\)"),
    (("annotations",), {"a": 1}, "annotations is an object .* a list"),
    (PERSON, 5, r"annotations\[0\] is 5; valid: an object"),
    (("images",), ..., "valid: COCO annotations"),
    (("images", 0, "id"), "7", r"images\[0\].id is '7'"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_TRUTH)
def test_bad_ground_truth_is_refused(path, value, message, tmp_path):
    file = tmp_path / "val.json"
    file.write_text(json.dumps(changed(one_person(), path, value)))
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(file, one_result(), COCO_17)
    assert str(file) in str(caught.value)


def test_ids_from_0_and_missing_defaults_change_nothing(caplog) -> None:
    truth = one_person()
    expected = evaluate_coco(truth, one_result(), COCO_17)
    person = truth["annotations"][0]
    person["id"] = 0
    del person["iscrowd"]
    assert evaluate_coco(truth, one_result(), COCO_17) == expected
    assert not caplog.records
    del person["area"]  # that of the box, 2400, is medium, too
    assert evaluate_coco(truth, one_result(), COCO_17) == expected
    assert "1 people have no area; that of their box is taken" in caplog.text
    person |= {"area": 0, "bbox": [5, 10, 0, 60]}
    with pytest.raises(DataError, match=r"annotations\[0\].bbox is .* square pixels above 0"):
        evaluate_coco(truth, one_result(), COCO_17)


@pytest.mark.parametrize("name", ["person", "Person", "mouse"])
@pytest.mark.parametrize("number", [0, 2])
def test_people_may_have_any_category_number(name, number) -> None:
    truth, rows = one_person(), one_result()
    truth["categories"][0] |= {"id": number, "name": name}
    for row in (*truth["annotations"], *rows):
        row["category_id"] = number
    assert evaluate_coco(truth, rows, COCO_17).ar == 1


def test_category_is_asked_for_by_name_or_id() -> None:
    truth = one_person()
    truth["annotations"][0]["category_id"] = 3
    truth["categories"] = [{"id": 1, "name": "person"}, {"id": 3, "name": "player"}]
    for category in ("player", "3"):
        assert read_annotations(truth, COCO_17, category).category == 3
    with pytest.raises(DataError, match="category 'x' once; its categories: 1 person, 3 player"):
        read_annotations(truth, COCO_17, "x")


@pytest.mark.parametrize(("name", "value"), [("annotations", 1), ("images", 7)])
def test_duplicate_ids_are_refused(name: str, value: int) -> None:
    truth = one_person()
    truth[name].append(copy.deepcopy(truth[name][0]))
    with pytest.raises(DataError, match=rf"{name}\[1\].id is {value}; .* used twice"):
        evaluate_coco(truth, one_result(), COCO_17)


BAD_RESULTS: list[tuple[tuple[Any, ...], Any, str]] = [
    ((0, "keypoints", 0), NAN, "keypoints .* 51 finite numbers"),
    ((0, "keypoints", 0), float("inf"), "keypoints .* 51 finite numbers"),
    ((0, "score"), NAN, r"results\[0\].score is nan; valid: a finite number"),
    ((0, "score"), "0.8", "score is '0.8'; valid: a finite number"),
    ((0, "score"), ..., "has no field 'score'"),
    ((0, "image_id"), 8, "image_id is 8; valid: the id of one of the 1 images"),
    ((0, "image_id"), "7", "image_id is '7'; valid: an integer"),
    ((0, "keypoints"), one_result(16)[0]["keypoints"], "length 48; valid: 51"),
    ((0, "category_id"), 2, "holds no person"),
    ((0,), ..., "is an empty list"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD_RESULTS)
def test_bad_results_are_refused(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_coco(one_person(), changed(one_result(), path, value), COCO_17)


def test_bad_row_is_named_by_its_position_in_the_file() -> None:
    rows = [one_result()[0] | {"category_id": 2}, *one_result(), *one_result()]
    with pytest.raises(DataError, match=r"results\[2\].score is None"):
        evaluate_coco(one_person(), changed(rows, (2, "score"), None), COCO_17)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotat', "is not complete JSON .* if it was truncated"),
        ("[1, 2]", "is a list of length 2: .* valid: COCO annotations"),
        ("", "is not complete JSON"),
        ("\x00\xff", "is not complete JSON"),
        (None, "does not exist"),
    ],
)
def test_file_that_is_no_annotation_file_is_refused(content, message, tmp_path):
    file = tmp_path / "val.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        evaluate_coco(file, one_result(), COCO_17)
    with pytest.raises(DataError, match="cannot read"):
        evaluate_coco(tmp_path, one_result(), COCO_17)
