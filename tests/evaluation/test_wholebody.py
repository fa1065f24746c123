"""COCO-WholeBody statistics, part by part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.cases import PART_FIELDS, changed, load_case, one_person, one_result
from posezoo import get_skeleton
from posezoo.errors import DataError, InputError
from posezoo.evaluation import evaluate_wholebody

WHOLE_BODY = get_skeleton("coco_wholebody")
STORED_NAMES = {
    "body": "body", "feet": "foot", "face": "face", "left_hand": "lefthand",
    "right_hand": "righthand", "whole": "wholebody",
}  # fmt: skip


def one_whole_person() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations of one person and the perfect result."""
    truth, (row,) = one_person(), one_result()
    for number, (field, k) in enumerate(PART_FIELDS.items()):
        points = np.c_[np.full((k, 2), 10.0 * number) + np.arange(k)[:, None], np.ones(k)]
        truth["annotations"][0][field] = row[field] = points.ravel().tolist()
    return truth, [row]


def test_synthetic_set_matches_xtcocotools_and_the_table_row() -> None:
    stored = load_case("coco_synthetic_stats")
    stats = evaluate_wholebody(
        load_case("wholebody_synthetic_gt"), load_case("wholebody_synthetic_results"), WHOLE_BODY
    )
    content = stats.to_dict()
    assert list(content["parts"]) == list(STORED_NAMES)
    for part, values in content["parts"].items():
        expected = stored["wholebody_xtcocotools"][STORED_NAMES[part]]
        assert values == pytest.approx(expected | {"removed": 1}, abs=1e-9)
    row = stored["wholebody_table_row"]
    assert stats.table() == pytest.approx(row, abs=1e-9)
    assert list(stats.table()) == list(row)
    assert content["Whole AP"] == content["parts"]["whole"]["AP"]


def test_people_without_labels_of_a_part_are_ignored_for_it_alone() -> None:
    truth, results = one_whole_person()
    person = truth["annotations"][0]
    person["face_kpts"], person["lefthand_kpts"] = [0.0] * 204, [0.0] * 63
    stats = evaluate_wholebody(truth, results, WHOLE_BODY)
    assert (stats.face.ap, stats.face.ar) == (-1, -1)
    assert stats.body.ap == stats.feet.ap == stats.whole.ap == pytest.approx(1)
    assert stats.table()["Hand AP"] == -1  # the mean of both, and one is undefined


def test_detections_are_removed_part_by_part() -> None:
    truth, results = one_whole_person()
    results[0]["foot_kpts"] = [v if i % 3 < 2 else 0 for i, v in enumerate(results[0]["foot_kpts"])]
    stats = evaluate_wholebody(truth, results, WHOLE_BODY)
    assert (stats.feet.removed, stats.feet.ap, stats.body.removed) == (1, 0, 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 0, "face_kpts"), ..., "has no field 'face_kpts'"),
        (("annotations", 0, "foot_kpts"), [1.0] * 17, "foot_kpts .* valid: 18 finite numbers"),
        (("annotations", 0, "lefthand_kpts", 5), float("nan"), "lefthand_kpts .* 63 finite"),
    ],
)
def test_bad_part_of_the_ground_truth_is_refused(path, value, message):
    truth, results = one_whole_person()
    with pytest.raises(DataError, match=message):
        evaluate_wholebody(changed(truth, path, value), results, WHOLE_BODY)


def test_results_without_a_part_and_skeletons_without_parts_are_refused() -> None:
    with pytest.raises(DataError, match="results.0. has no field 'foot_kpts'"):
        evaluate_wholebody(one_whole_person()[0], one_result(), WHOLE_BODY)
    with pytest.raises(InputError, match="use evaluate_coco"):
        evaluate_wholebody(one_person(), one_result(), get_skeleton("coco"))
