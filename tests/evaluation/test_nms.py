from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.cases import load_case
from posezoo import get_skeleton
from posezoo.evaluation import oks_nms, rescore

SIGMAS = {17: get_skeleton("coco").sigmas, 133: get_skeleton("coco_wholebody").sigmas}
CASES = load_case("nms")["cases"]


def arrays(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    people = case["people"]
    keypoints = np.array([p["keypoints"] for p in people])
    return keypoints, *(np.array([p[key] for p in people]) for key in ("box_score", "area"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
def test_rescoring_matches_the_stored_cases(case: dict[str, Any]) -> None:
    keypoints, box_scores, _ = arrays(case)
    expected = [p["rescored"] for p in case["people"]]
    np.testing.assert_allclose(rescore(keypoints[..., 2], box_scores), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("threshold", [0.9, 0.5])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["note"])
def test_nms_keeps_the_stored_people_in_order(case: dict[str, Any], threshold: float) -> None:
    keypoints, box_scores, areas = arrays(case)
    scores = rescore(keypoints[..., 2], box_scores)
    sigmas = SIGMAS[case["num_keypoints"]]
    kept = oks_nms(keypoints[..., :2], scores, areas, sigmas, threshold)
    assert kept.tolist() == case[f"keep_oks_nms_{threshold}"]


def test_rescoring_counts_only_scores_above_the_threshold() -> None:
    scores = np.array([[0.2, 0.2000001, 0.6], [0.1, 0.0, 0.2], [-3.0, 9.0, 5.0]])
    expected = [(0.2000001 + 0.6) / 2 * 0.5, 0, 7.0]
    assert rescore(scores, np.array([0.5, 1.0, 1.0])) == pytest.approx(expected)


def test_among_equal_scores_the_later_person_comes_first() -> None:
    keypoints = np.arange(40)[:, None, None] * np.full((1, 17, 2), 100.0)
    kept = oks_nms(keypoints, np.full(40, 0.5), np.full(40, 10.0), SIGMAS[17])
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


def test_nobody_in_nobody_out() -> None:
    assert oks_nms(np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0), SIGMAS[17]).tolist() == []
    assert rescore(np.zeros((0, 17)), np.zeros(0)).shape == (0,)
