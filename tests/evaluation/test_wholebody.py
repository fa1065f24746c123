from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from evaluation.cases import changed, load_case, one_person, one_result
from posezoo import get_skeleton
from posezoo.errors import DataError, InputError
from posezoo.evaluation import WholeBodyStats, evaluate_wholebody

WHOLE_BODY = get_skeleton("coco_wholebody")
STORED_NAMES = {
    "body": "body",
    "feet": "foot",
    "face": "face",
    "left_hand": "lefthand",
    "right_hand": "righthand",
    "whole": "wholebody",
}
FIELDS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}


@pytest.fixture(scope="module")
def synthetic() -> WholeBodyStats:
    return evaluate_wholebody(
        load_case("wholebody_synthetic_gt"), load_case("wholebody_synthetic_results"), WHOLE_BODY
    )


def one_whole_person() -> dict[str, Any]:
    truth = one_person()
    for number, (field, k) in enumerate(FIELDS.items()):
        points = np.c_[np.full((k, 2), 10.0 * number) + np.arange(k)[:, None], np.ones(k)]
        truth["annotations"][0][field] = points.ravel().tolist()
    return truth


def whole_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    row = one_result()[0]
    return [row | {field: truth["annotations"][0][field] for field in FIELDS}]


@pytest.mark.parametrize("part", STORED_NAMES)
def test_synthetic_set_matches_xtcocotools_on_every_part(
    part: str, synthetic: WholeBodyStats
) -> None:
    expected = load_case("coco_synthetic_stats")["wholebody_xtcocotools"][STORED_NAMES[part]]
    stats = getattr(synthetic, part).to_dict()
    assert stats.pop("removed") == 1
    assert stats == pytest.approx(expected, abs=1e-9)


def test_table_row_matches_the_stored_one_in_the_published_order(synthetic: WholeBodyStats) -> None:
    expected = load_case("coco_synthetic_stats")["wholebody_table_row"]
    assert synthetic.table() == pytest.approx(expected, abs=1e-9)
    assert list(synthetic.table()) == list(expected)


def test_dictionary_holds_the_table_and_the_parts(synthetic: WholeBodyStats) -> None:
    content = synthetic.to_dict()
    assert content["Whole AP"] == content["parts"]["whole"]["AP"]
    assert list(content["parts"]) == list(STORED_NAMES)


def test_people_without_labels_of_a_part_are_ignored_for_it_alone() -> None:
    truth = one_whole_person()
    results = whole_results(truth)
    truth["annotations"][0]["face_kpts"] = [0.0] * 204
    stats = evaluate_wholebody(truth, results, WHOLE_BODY)
    assert (stats.face.ap, stats.face.ar) == (-1, -1)
    assert stats.body.ap == stats.feet.ap == stats.whole.ap == pytest.approx(1)


def test_hand_is_undefined_where_one_hand_is() -> None:
    truth = one_whole_person()
    results = whole_results(truth)
    truth["annotations"][0]["lefthand_kpts"] = [0.0] * 63
    assert evaluate_wholebody(truth, results, WHOLE_BODY).table()["Hand AP"] == -1


def test_detections_are_removed_part_by_part() -> None:
    truth = one_whole_person()
    results = whole_results(truth)
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
def test_bad_part_of_the_ground_truth_is_refused(
    path: tuple[Any, ...], value: Any, message: str
) -> None:
    truth = one_whole_person()
    with pytest.raises(DataError, match=message):
        evaluate_wholebody(changed(truth, path, value), whole_results(truth), WHOLE_BODY)


def test_results_without_a_part_are_refused() -> None:
    with pytest.raises(DataError, match="results.0. has no field 'foot_kpts'"):
        evaluate_wholebody(one_whole_person(), one_result(), WHOLE_BODY)


def test_skeleton_without_parts_is_refused() -> None:
    with pytest.raises(InputError, match="use evaluate_coco"):
        evaluate_wholebody(one_person(), one_result(), get_skeleton("coco"))
