"""Predictions to result rows: rescoring, OKS-NMS, the form of the rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from evaluation.cases import PART_FIELDS, load_case
from posezoo import get_skeleton
from posezoo.errors import DataError, InputError
from posezoo.evaluation import coco_results, oks_nms, rescore

COCO_17, WHOLE_BODY = get_skeleton("coco"), get_skeleton("coco_wholebody")
SIGMAS = {17: COCO_17.sigmas, 133: WHOLE_BODY.sigmas}
CASES = load_case("nms")["cases"]
ARRAYS = ("box_ids", "keypoints", "keypoint_scores", "bbox_scores", "areas")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
def test_stored_people_are_rescored_and_kept_in_order(case: dict[str, Any]) -> None:
    people = case["people"]
    keypoints, box_scores, areas = (
        np.array([p[key] for p in people]) for key in ("keypoints", "box_score", "area")
    )
    scores = rescore(keypoints[..., 2], box_scores)
    np.testing.assert_allclose(scores, [p["rescored"] for p in people], rtol=0, atol=1e-15)
    for threshold in (0.9, 0.5):
        kept = oks_nms(keypoints[..., :2], scores, areas, SIGMAS[case["num_keypoints"]], threshold)
        assert kept.tolist() == case[f"keep_oks_nms_{threshold}"]


def test_rescoring_counts_only_scores_above_the_threshold() -> None:
    scores = np.array([[0.2, 0.2000001, 0.6], [0.1, 0.0, 0.2], [-3.0, 9.0, 5.0]])
    expected = [(0.2000001 + 0.6) / 2 * 0.5, 0, 7.0]
    assert rescore(scores, np.array([0.5, 1.0, 1.0])) == pytest.approx(expected)


def test_among_equal_scores_the_later_person_comes_first() -> None:
    keypoints = np.arange(40)[:, None, None] * np.full((1, 17, 2), 100.0)
    kept = oks_nms(keypoints, np.full(40, 0.5), np.full(40, 10.0), COCO_17.sigmas)
    assert kept.tolist() == list(range(40))[::-1]


def test_a_dropped_person_drops_nobody() -> None:
    # neighbours are similar, the outer two are not
    keypoints = np.array([0.0, 3.0, 6.0])[:, None, None] * np.array([1.0, 0.0]) + np.zeros((17, 1))
    kept = oks_nms(keypoints, np.array([0.9, 0.8, 0.7]), np.full(3, 4e4), [0.1] * 17, 0.99)
    assert kept.tolist() == [0, 2]


def test_similarity_is_compared_in_float32() -> None:
    # OKS 0.9 to within 1e-9: above 0.9 in float64, not in float32
    distance = np.sqrt(-np.log(0.9 + 1e-9) * 2 * (2 * 0.05) ** 2 * 1000)
    keypoints = np.zeros((2, 1, 2))
    keypoints[1, 0, 0] = distance
    assert len(oks_nms(keypoints, np.array([0.9, 0.8]), np.full(2, 1000.0), [0.05])) == 2


def predictions(n: int = 3, k: int = 17) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image_id": np.int64(7),
        "box_ids": np.arange(n),
        "keypoints": rng.random((n, k, 2), dtype=np.float32) * 500,
        "keypoint_scores": rng.random((n, k), dtype=np.float32),
        "bbox_scores": np.linspace(0.2, 0.9, n),
        "areas": np.full(n, 100.0),
        "skeleton": COCO_17 if k == 17 else WHOLE_BODY,
    }


def test_rows_are_json_of_coco_with_the_predictions_of_their_person() -> None:
    given = predictions()
    rows = coco_results(**given)
    assert rows == json.loads(json.dumps(rows))
    assert [list(row) for row in rows] == [["image_id", "category_id", "keypoints", "score"]] * 3
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(7, 1)}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = np.array(rows[0]["keypoints"]).reshape(17, 3)
    person = int(np.argmin(np.abs(given["keypoints"] - best[:, :2]).sum((1, 2))))
    np.testing.assert_array_equal(best[:, :2], given["keypoints"][person])
    np.testing.assert_array_equal(best[:, 2], given["keypoint_scores"][person])
    boxes = np.array([[10.0, 20.0, 40.0, 80.0]])
    assert coco_results(**predictions(1), bboxes=boxes)[0]["bbox"] == [10, 20, 30, 60]
    assert coco_results(**predictions(0)) == []


def test_whole_body_rows_are_split_into_five_fields() -> None:
    given = predictions(1, 133)
    (row,) = coco_results(**given)
    fields = {"keypoints": 17} | PART_FIELDS
    assert {name: len(row[name]) // 3 for name in fields} == fields
    joined = np.array([v for name in fields for v in row[name]]).reshape(133, 3)
    np.testing.assert_array_equal(joined[:, :2], given["keypoints"][0])


def test_of_boxes_with_one_id_the_first_counts_and_near_duplicates_are_dropped() -> None:
    given = predictions(3) | {"box_ids": np.array([4, 2, 4])}
    firsts = {row["keypoints"][0] for row in coco_results(**given)}
    assert firsts == {float(x) for x in given["keypoints"][:2, 0, 0]}
    given = predictions(2)
    given["keypoints"][1], given["keypoint_scores"][1] = (
        given["keypoints"][0], given["keypoint_scores"][0],
    )  # fmt: skip
    (row,) = coco_results(**given)
    assert row["score"] == rescore(given["keypoint_scores"], given["bbox_scores"])[1]


@pytest.mark.parametrize("name", ARRAYS)
def test_predictions_that_are_not_finite_or_do_not_belong_together_are_refused(name: str) -> None:
    given = predictions()
    if name != "box_ids":
        given[name].flat[0] = np.nan
        with pytest.raises(DataError, match=f"image 7: {name} holds NaN"):
            coco_results(**given)
    given[name] = given[name][..., :1] if given[name].ndim > 1 else given[name][:, None]
    with pytest.raises(InputError, match=f"{name} has shape"):
        coco_results(**given)
