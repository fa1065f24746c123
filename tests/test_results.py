"""PoseResult: validation, selection, and what it becomes for other tools."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from typing import Any

import numpy as np
import pytest

from posezoo.errors import InputError
from posezoo.results import PoseResult
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton


def _result(count: int = 3, skeleton: Skeleton = COCO_17) -> PoseResult:
    rng = np.random.default_rng(0)
    k = skeleton.num_keypoints
    corner = rng.uniform(0, 50, (count, 2))
    return PoseResult(
        keypoints=rng.uniform(0, 100, (count, k, 2)),
        keypoint_scores=rng.uniform(0, 1, (count, k)),
        bboxes=np.concatenate([corner, corner + 40], axis=1),
        bbox_scores=rng.uniform(0, 1, count),
        skeleton=skeleton,
        image_size=(100, 120),
    )


def test_arrays_become_float32() -> None:
    result = _result()
    for name in ("keypoints", "keypoint_scores", "bboxes", "bbox_scores"):
        assert getattr(result, name).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((3, 16, 2))}, r"has shape \(3, 16, 2\), expected \(3, 17, 2\)"),
        ({"keypoints": np.zeros((3, 17, 3))}, "keypoints has shape"),
        ({"keypoint_scores": np.zeros((2, 17))}, r"keypoint_scores has shape \(2, 17\)"),
        ({"bbox_scores": np.zeros((3, 1))}, r"bbox_scores has shape \(3, 1\), expected \(3,\)"),
        ({"bboxes": np.zeros((3, 5))}, r"bboxes has shape \(3, 5\), expected \(3, 4\)"),
        ({"skeleton": MPII_16}, "16 keypoints of 'mpii'"),
        ({"image_size": (0, 5)}, r"image_size is \(0, 5\)"),
        ({"image_size": (5, 5, 3)}, r"image_size is \(5, 5, 3\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(_result(), **change)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (np.int64(0), [0]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([True, False, True], [0, 2]),
        (np.array([2, 0]), [2, 0]),
        ([2, 0], [2, 0]),
        ([], []),
    ],
    ids=str,
)
def test_selection_keeps_all_fields_together(index: Any, expected: list[int]) -> None:
    result = _result()
    selected = result[index]
    assert len(selected) == len(expected)
    assert selected.skeleton is COCO_17 and selected.image_size == (100, 120)
    for name in ("keypoints", "keypoint_scores", "bboxes", "bbox_scores"):
        assert (getattr(selected, name) == getattr(result, name)[expected]).all()


@pytest.mark.parametrize("index", [3, -4])
def test_a_person_out_of_range_raises(index: int) -> None:
    with pytest.raises(IndexError, match=f"person {index} of a result with 3 persons"):
        _result()[index]


def test_iteration_yields_every_person_once() -> None:
    result = _result()
    persons = list(result)
    assert [len(person) for person in persons] == [1, 1, 1]
    assert (np.concatenate([p.keypoints for p in persons]) == result.keypoints).all()
    assert list(_result(0)) == []


def test_coco_rows_hold_points_scores_and_xywh_boxes() -> None:
    result = _result()
    rows = result.to_coco(785)
    assert json.loads(json.dumps(rows)) == rows
    for i, row in enumerate(rows):
        assert (row["image_id"], row["category_id"]) == (785, 1)
        points = np.array(row["keypoints"]).reshape(17, 3)
        assert (points[:, :2] == result.keypoints[i]).all()
        assert (points[:, 2] == result.keypoint_scores[i]).all()
        x1, y1, x2, y2 = result.bboxes[i]
        np.testing.assert_allclose(row["bbox"], [x1, y1, x2 - x1, y2 - y1], rtol=1e-6)


def test_coco_score_is_box_score_times_mean_of_good_keypoints() -> None:
    scores = np.zeros((3, 17))
    scores[0, :3] = 0.5, 0.9, 0.125  # the last does not count
    scores[1] = 0.125
    scores[2] = 8.0  # PCT logits
    result = dataclasses.replace(
        _result(), keypoint_scores=scores, bbox_scores=np.array([0.5, 1.0, 0.25])
    )
    rescored = [row["score"] for row in result.to_coco(1)]
    assert rescored == pytest.approx([0.35, 0.0, 2.0])


def test_score_of_exactly_the_threshold_does_not_count() -> None:
    scores = np.full((1, 17), 0.2, np.float32)
    result = dataclasses.replace(_result(1), keypoint_scores=scores)
    assert result.to_coco(1)[0]["score"] == 0.0


def test_whole_body_rows_are_split_into_the_official_lists() -> None:
    result = _result(2, COCO_WHOLEBODY_133)
    row = result.to_coco(1)[1]
    keys = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    assert [len(row[key]) // 3 for key in keys] == [17, 6, 68, 21, 21]
    together = np.concatenate([row[key] for key in keys]).reshape(133, 3)
    assert (together[:, :2] == result.keypoints[1]).all()


def test_dict_is_strict_json_with_names() -> None:
    result = _result()
    result.keypoint_scores[1, 4] = np.nan
    data = result.to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert data["keypoint_names"][0] == "nose" and data["parts"] == {"body": [0, 17]}
    assert data["image_size"] == [100, 120] and data["skeleton"] == "coco"
    assert data["persons"][1]["keypoint_scores"][4] is None
    assert np.array(data["persons"][2]["keypoints"], np.float32).tolist() == (
        result.keypoints[2].tolist()
    )
    assert data["persons"][0]["bbox"] == result.bboxes[0].tolist()


def test_coco_rows_are_strict_json_and_of_finite_numbers() -> None:
    result = _result(3)
    expected = _result(3).to_coco(1)
    result.keypoints[0, 4], result.keypoint_scores[1, 2] = np.nan, np.inf
    result.bboxes[1, 0], result.bbox_scores[2] = np.inf, np.nan
    rows = result.to_coco(1)
    json.dumps(rows, allow_nan=False)
    assert rows[0]["keypoints"][12:15] == rows[1]["keypoints"][6:9] == [0, 0, 0]
    assert rows[0]["keypoints"][:12] == expected[0]["keypoints"][:12]
    assert rows[1]["bbox"] == [0] * 4 and rows[1]["score"] == rows[2]["score"] == 0


def test_nobody_gives_empty_lists() -> None:
    assert _result(0).to_coco(1) == []
    assert _result(0).to_dict()["persons"] == []


def test_supervision_gets_points_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("supervision")
    module.KeyPoints = lambda xy, class_id, scores: (xy, class_id, scores)  # type: ignore
    monkeypatch.setitem(sys.modules, "supervision", module)
    result = _result()
    xy, class_id, scores = result.to_supervision()
    assert (xy == result.keypoints).all() and (scores == result.keypoint_scores).all()
    assert class_id is None


def test_missing_supervision_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"posezoo\[supervision\]"):
        _result().to_supervision()
