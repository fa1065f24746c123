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
from posezoo.errors import DataError, InputError
from posezoo.evaluation import FastCOCOeval, coco_results, evaluate_coco

COCO_17 = get_skeleton("coco")
NAN = float("nan")
ARRAYS = ("box_ids", "keypoints", "keypoint_scores", "bbox_scores", "areas")


def run(scorer: type, truth: dict[str, Any], rows: list[dict[str, Any]], sigmas: Any) -> COCOeval:
    """Run a scorer on fresh copies, as pycocotools writes into its input."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = scorer(coco, coco.loadRes(copy.deepcopy(rows)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_same_evaluation(ours: COCOeval, theirs: COCOeval) -> None:
    for key in ("precision", "recall", "scores"):
        np.testing.assert_allclose(ours.eval[key], theirs.eval[key], rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.stats, theirs.stats, rtol=0, atol=1e-12)
    assert len(ours.evalImgs) == len(theirs.evalImgs)
    for mine, other in zip(ours.evalImgs, theirs.evalImgs):
        assert (mine is None) == (other is None)
        for key in other or ():
            np.testing.assert_array_equal(mine[key], other[key], err_msg=key)


def test_synthetic_set_matches_xtcocotools() -> None:
    expected = load_case("coco_synthetic_stats")["coco_xtcocotools"]
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    stats = evaluate_coco(truth, rows, COCO_17)
    assert stats.removed == 1
    assert {k: v for k, v in stats.to_dict().items() if k != "removed"} == pytest.approx(
        expected, abs=1e-9
    )


def test_fast_scorer_matches_pycocotools_on_the_synthetic_set() -> None:
    stored = load_case("coco_synthetic_stats")
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    ours = run(FastCOCOeval, truth, rows, COCO_17.sigmas)
    assert list(ours.stats) == pytest.approx(list(stored["coco_pycocotools"].values()), abs=1e-9)
    assert_same_evaluation(ours, run(COCOeval, truth, rows, COCO_17.sigmas))


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
            crowd = rng.random() < 0.2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "iscrowd": int(crowd),
                    "bbox": rng.integers(0, 80, 4).tolist(),
                    "area": float(rng.choice([200, 32**2, 3000, 96**2, 96**2 + 1, 2e4])),
                    "num_keypoints": int((flags > 0).sum()),
                    "keypoints": np.c_[points, flags].ravel().tolist(),
                }
            )
        for _ in range(rng.choice([0, 1, 4, 26])):
            base = people[rng.integers(len(people))] if people else rng.integers(0, 80, (k, 2))
            found = base + rng.choice([0, 0, 1, 4, 20]) * rng.integers(-2, 3, (k, 2))
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "keypoints": np.c_[found, np.ones(k)].ravel().tolist(),
                    "score": float(rng.choice([0.0, 0.1, 0.5, 0.5, 0.9])),
                }
            )
    truth = {"images": [{"id": i + 1} for i in range(images)], "annotations": annotations}
    return truth | {"categories": [{"id": 1, "name": "person"}]}, rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 6, 17, 133]),
    images=st.integers(1, 4),
)
def test_fast_scorer_equals_pycocotools(seed: int, k: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    truth, rows = make_people(rng, k, images)
    assume(rows)
    sigmas = rng.choice([0.025, 0.05, 0.1], k)
    ours, theirs = (run(scorer, truth, rows, sigmas) for scorer in (FastCOCOeval, COCOeval))
    assert_same_evaluation(ours, theirs)


def test_hits_exact_to_rounding_count_at_a_threshold_of_one() -> None:
    rows = changed(one_result(), (0, "keypoints", 0), 10 + 1e-6)

    def at_one(scorer: type) -> COCOeval:
        evaluation = run(scorer, one_person(), rows, COCO_17.sigmas)
        evaluation.params.iouThrs = np.array([0.5, 1.0])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    ours = at_one(FastCOCOeval)
    assert_same_evaluation(ours, at_one(COCOeval))
    assert ours.ious[7, 1] < 1
    assert ours.stats[0] == pytest.approx(1)


@pytest.mark.parametrize("change", [{"maxDets": [5, 20]}, {"useCats": 0}])
def test_parameters_that_keypoints_have_no_use_for_are_refused(change: dict[str, Any]) -> None:
    class Changed(FastCOCOeval):
        def evaluate(self) -> None:
            vars(self.params).update(change)
            super().evaluate()

    with pytest.raises(InputError, match="keypoints are scored at one number of detections"):
        run(Changed, one_person(), one_result(), COCO_17.sigmas)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_evaluate_coco_equals_pycocotools(seed: int) -> None:
    truth, rows = make_people(np.random.default_rng(seed), 17, 3)
    assume(rows and any(a["num_keypoints"] and not a["iscrowd"] for a in truth["annotations"]))
    stats = evaluate_coco(truth, rows, COCO_17)
    expected = run(COCOeval, truth, rows, COCO_17.sigmas).stats
    np.testing.assert_allclose(list(stats.to_dict().values())[:10], expected, rtol=0, atol=1e-12)


def test_perfect_result_scores_one_and_empty_ranges_minus_one() -> None:
    stats = evaluate_coco(one_person(), one_result(), COCO_17)
    assert (stats.ap, stats.ar, stats.ap_m) == pytest.approx((1, 1, 1))
    assert (stats.ap_l, stats.ar_l, stats.removed) == (-1, -1, 0)


def test_files_and_content_score_alike_and_stay_unchanged(tmp_path: Path) -> None:
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    before = copy.deepcopy((truth, rows))
    for name, content in (("gt", truth), ("results", rows)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    from_content = evaluate_coco(truth, rows, COCO_17)
    assert from_content == evaluate_coco(tmp_path / "gt.json", tmp_path / "results.json", COCO_17)
    assert (truth, rows) == before


def test_scoring_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_coco(one_person(), one_result(), COCO_17)
    assert capsys.readouterr() == ("", "")


def test_detection_area_from_boxes_only_moves_the_statistics_by_size() -> None:
    truth, rows = load_case("coco_synthetic_gt"), load_case("coco_synthetic_results")
    for row in rows:
        row["bbox"] = [0.0, 0.0, 50.0, 50.0]  # all medium, so unmatched ones never count as large
    by_keypoints = evaluate_coco(truth, rows, COCO_17).to_dict()
    by_boxes = evaluate_coco(truth, rows, COCO_17, detection_area="bbox").to_dict()
    assert {k for k in by_boxes if by_boxes[k] != by_keypoints[k]} == {"AP_M", "AP_L"}
    assert by_boxes["AP_L"] > by_keypoints["AP_L"]


def test_detections_without_positive_scores_are_removed_and_counted() -> None:
    blank = one_result()[0] | {"score": 0.99}
    blank["keypoints"] = [v if i % 3 < 2 else 0.0 for i, v in enumerate(blank["keypoints"])]
    stats = evaluate_coco(one_person(), [*one_result(), blank], COCO_17)
    assert stats.removed == 1
    assert stats == evaluate_coco(one_person(), [blank, *one_result()], COCO_17)
    only_blank = evaluate_coco(one_person(), [blank], COCO_17)
    assert (only_blank.ap, only_blank.ar, only_blank.removed) == (0, 0, 1)


def test_missing_num_keypoints_is_counted_from_the_flags() -> None:
    truth = changed(one_person(), ("annotations", 0, "num_keypoints"), ...)
    assert evaluate_coco(truth, one_result(), COCO_17).ap == pytest.approx(1)


def test_whole_body_skeleton_is_refused() -> None:
    with pytest.raises(InputError, match="evaluate_wholebody"):
        evaluate_coco(one_person(), one_result(), get_skeleton("coco_wholebody"))


PERSON = ("annotations", 0)
BAD_TRUTH: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "annotation_id_zero": ((*PERSON, "id"), 0, r"annotations\[0\].id is 0; valid: .* from 1"),
    "text_id": ((*PERSON, "id"), "1", r"annotations\[0\].id is '1'; valid: an integer"),
    "unknown_image": ((*PERSON, "image_id"), 8, r"image_id is 8; valid: the id of one of the 1"),
    "no_image_id": ((*PERSON, "image_id"), ..., r"annotations\[0\] has no field 'image_id'"),
    "no_category": ((*PERSON, "category_id"), ..., "has no field 'category_id'"),
    "no_area": ((*PERSON, "area"), ..., "has no field 'area'"),
    "no_iscrowd": ((*PERSON, "iscrowd"), ..., "has no field 'iscrowd'"),
    "no_bbox": ((*PERSON, "bbox"), ..., "has no field 'bbox'"),
    "no_keypoints": ((*PERSON, "keypoints"), ..., "has no field 'keypoints'"),
    "iscrowd_two": ((*PERSON, "iscrowd"), 2, "iscrowd is 2; valid: an integer from 0 to 1"),
    "negative_area": ((*PERSON, "area"), -1.0, "area is -1.0; valid: .* at least 0"),
    "nan_area": ((*PERSON, "area"), NAN, "area is nan; valid: a finite number"),
    "negative_size": ((*PERSON, "bbox", 2), -40.0, "bbox .*-40.* no size below 0"),
    "nan_box": ((*PERSON, "bbox", 0), NAN, "bbox is a list of length 4: .nan, .* 4 finite"),
    "sixteen_keypoints": (
        (*PERSON, "keypoints"),
        one_person(16)["annotations"][0]["keypoints"],
        "keypoints is a list of length 48; valid: 51 finite numbers",
    ),
    "nan_keypoint": ((*PERSON, "keypoints", 3), NAN, "keypoints .* 51 finite numbers"),
    "text_keypoint": ((*PERSON, "keypoints", 3), "11.0", "keypoints .* 51 finite numbers"),
    "contradicting_count": ((*PERSON, "num_keypoints"), 0, "num_keypoints is 0; valid: the number"),
    "nobody_labelled": ((*PERSON, "iscrowd"), 1, "holds nobody with labelled keypoints"),
    "other_category_only": ((*PERSON, "category_id"), 3, r"holds no person \(category_id 1\)"),
    "annotations_no_list": (("annotations",), {"a": 1}, "annotations is an object .* a list"),
    "row_no_object": (PERSON, 5, r"annotations\[0\] is 5; valid: an object"),
    "no_images": (("images",), ..., "valid: COCO annotations"),
    "text_image_id": (("images", 0, "id"), "7", r"images\[0\].id is '7'"),
}


@pytest.mark.parametrize("case", BAD_TRUTH)
def test_bad_ground_truth_is_refused(case: str, tmp_path: Path) -> None:
    path, value, message = BAD_TRUTH[case]
    file = tmp_path / "val.json"
    file.write_text(json.dumps(changed(one_person(), path, value)))
    with pytest.raises(DataError, match=message) as caught:
        evaluate_coco(file, one_result(), COCO_17)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("annotations", 1), ("images", 7)])
def test_duplicate_ids_are_refused(name: str, value: int) -> None:
    truth = one_person()
    truth[name].append(copy.deepcopy(truth[name][0]))
    with pytest.raises(DataError, match=rf"{name}\[1\].id is {value}; .* used twice"):
        evaluate_coco(truth, one_result(), COCO_17)


BAD_RESULTS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "nan_keypoint": ((0, "keypoints", 0), NAN, "keypoints .* 51 finite numbers"),
    "infinite_keypoint": ((0, "keypoints", 0), float("inf"), "keypoints .* 51 finite numbers"),
    "nan_score": ((0, "score"), NAN, r"results\[0\].score is nan; valid: a finite number"),
    "text_score": ((0, "score"), "0.8", "score is '0.8'; valid: a finite number"),
    "no_score": ((0, "score"), ..., "has no field 'score'"),
    "unknown_image": ((0, "image_id"), 8, "image_id is 8; valid: the id of one of the 1 images"),
    "text_image_id": ((0, "image_id"), "7", "image_id is '7'; valid: an integer"),
    "sixteen_keypoints": ((0, "keypoints"), one_result(16)[0]["keypoints"], "length 48; valid: 51"),
    "other_category_only": ((0, "category_id"), 2, "holds no person"),
    "empty": ((0,), ..., "is an empty list"),
}


@pytest.mark.parametrize("case", BAD_RESULTS)
def test_bad_results_are_refused(case: str) -> None:
    path, value, message = BAD_RESULTS[case]
    with pytest.raises(DataError, match=message):
        evaluate_coco(one_person(), changed(one_result(), path, value), COCO_17)


def test_bad_row_is_named_by_its_place_in_the_file() -> None:
    rows = [one_result()[0] | {"category_id": 2}, *one_result(), *one_result()]
    with pytest.raises(DataError, match=r"results\[2\].score is None"):
        evaluate_coco(one_person(), changed(rows, (2, "score"), None), COCO_17)


def test_boxes_are_asked_for_where_they_decide_the_area() -> None:
    with pytest.raises(DataError, match="has no field 'bbox'"):
        evaluate_coco(one_person(), one_result(), COCO_17, detection_area="bbox")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [], "annotat', "is not complete JSON .* truncated or damaged"),
        ("[1, 2]", "is a list of length 2: .* valid: COCO annotations"),
        ("", "is not complete JSON"),
        ("\x00\xff", "is not complete JSON"),
    ],
)
def test_file_that_is_no_annotation_file_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "val.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        evaluate_coco(file, one_result(), COCO_17)


@pytest.mark.parametrize(("name", "message"), [("no.json", "does not exist"), ("", "cannot read")])
def test_unreadable_file_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_coco(tmp_path / name, one_result(), COCO_17)


def predictions(n: int = 3, k: int = 17) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image_id": np.int64(7),
        "box_ids": np.arange(n),
        "keypoints": rng.random((n, k, 2), dtype=np.float32) * 500,
        "keypoint_scores": rng.random((n, k), dtype=np.float32),
        "bbox_scores": np.linspace(0.2, 0.9, n),
        "areas": np.full(n, 100.0),
        "skeleton": COCO_17,
    }


def test_result_rows_are_json_with_the_fields_of_coco() -> None:
    rows = coco_results(**predictions())
    assert rows == json.loads(json.dumps(rows))
    assert [list(row) for row in rows] == [["image_id", "category_id", "keypoints", "score"]] * 3
    assert {(row["image_id"], row["category_id"], len(row["keypoints"])) for row in rows} == {
        (7, 1, 51)
    }
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_result_rows_hold_the_predictions_of_their_person() -> None:
    given_ = predictions()
    row = coco_results(**given_)[0]
    best = np.array(row["keypoints"]).reshape(17, 3)
    person = int(np.argmin(np.abs(given_["keypoints"] - best[:, :2]).sum((1, 2))))
    np.testing.assert_array_equal(best[:, :2], given_["keypoints"][person])
    np.testing.assert_array_equal(best[:, 2], given_["keypoint_scores"][person])
    kept = given_["keypoint_scores"][person] > 0.2
    expected = given_["keypoint_scores"][person][kept].mean() * given_["bbox_scores"][person]
    assert row["score"] == pytest.approx(expected, rel=1e-6)


def test_whole_body_rows_are_split_into_five_fields() -> None:
    given_ = predictions(1, 133) | {"skeleton": get_skeleton("coco_wholebody")}
    (row,) = coco_results(**given_)
    fields = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68}
    fields |= {"lefthand_kpts": 21, "righthand_kpts": 21}
    assert {name: len(row[name]) // 3 for name in fields} == fields
    joined = np.array([v for name in fields for v in row[name]]).reshape(133, 3)
    np.testing.assert_array_equal(joined[:, :2], given_["keypoints"][0])


def test_of_boxes_with_one_id_the_first_counts() -> None:
    given_ = predictions(3) | {"box_ids": np.array([4, 2, 4])}
    rows = coco_results(**given_)
    assert len(rows) == 2
    firsts = {row["keypoints"][0] for row in rows}
    assert firsts == {float(x) for x in given_["keypoints"][:2, 0, 0]}


def test_near_duplicates_are_dropped() -> None:
    given_ = predictions(2)
    given_["keypoints"][1] = given_["keypoints"][0]
    given_["keypoint_scores"][1] = given_["keypoint_scores"][0]
    (row,) = coco_results(**given_)
    assert row["score"] == pytest.approx(
        given_["keypoint_scores"][0][given_["keypoint_scores"][0] > 0.2].mean() * 0.9, rel=1e-6
    )


def test_boxes_are_written_as_xywh() -> None:
    boxes = np.array([[10.0, 20.0, 40.0, 80.0]])
    assert coco_results(**predictions(1), bboxes=boxes)[0]["bbox"] == [10, 20, 30, 60]


def test_no_people_give_no_rows() -> None:
    assert coco_results(**predictions(0)) == []


@pytest.mark.parametrize("name", ARRAYS[1:])
def test_predictions_that_are_not_finite_are_refused(name: str) -> None:
    given_ = predictions()
    given_[name].flat[0] = np.nan
    with pytest.raises(DataError, match=f"image 7: {name} holds NaN"):
        coco_results(**given_)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_belong_together_are_refused(name: str) -> None:
    given_ = predictions()
    given_[name] = given_[name][..., :1] if given_[name].ndim > 1 else given_[name][:, None]
    with pytest.raises(InputError, match=f"{name} has shape"):
        coco_results(**given_)
