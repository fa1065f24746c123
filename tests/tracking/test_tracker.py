"""Tracker: the same id for the same person."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from posezoo.errors import DataError, InputError
from posezoo.skeletons import MPII_16
from posezoo.tracking import Tracker

from .made import film, people


def _ids(tracker: Tracker, *corners: tuple[float, float]) -> list[int]:
    ids = tracker.update(people(*corners)).ids
    assert ids is not None
    return ids.tolist()


def test_everybody_in_a_film_of_people_who_cross_keeps_the_id() -> None:
    tracker, last, switches = Tracker(), {}, 0
    for result, truth in film():
        tracked = tracker.update(result)
        assert tracked.ids is not None and len(set(tracked.ids.tolist())) == len(result)
        for person, track in zip(truth.tolist(), tracked.ids.tolist()):
            switches += last.get(person, track) != track
            last[person] = track
    assert switches == 0 and set(last.values()) == {1, 2, 3}


def test_ids_count_from_one_and_do_not_depend_on_the_order_of_a_frame() -> None:
    tracker = Tracker()
    assert _ids(tracker, (0, 0), (200, 0)) == [1, 2]
    assert _ids(tracker, (203, 0), (2, 0)) == [2, 1]
    assert _ids(tracker, (400, 200), (205, 0), (4, 0)) == [3, 2, 1]
    assert _ids(tracker) == []


def test_people_who_walk_through_each_other_keep_their_ids() -> None:
    tracker = Tracker()
    for step in range(40):
        assert _ids(tracker, (5 * step, 0), (195 - 5 * step, 10)) == [1, 2]


def test_a_person_who_was_missed_is_found_further_on() -> None:
    tracker = Tracker()
    for step in range(10):
        _ids(tracker, (6 * step, 0))
    for _ in range(8):
        _ids(tracker)
    slowed = 54 + 6 * (1 - 0.9**9) / 0.1
    assert _ids(tracker, (54, 0), (slowed, 0)) == [2, 1]


def test_a_person_who_ran_out_of_the_image_comes_back_at_its_edge() -> None:
    tracker = Tracker()
    for step in range(8):
        _ids(tracker, (210 - 30 * step, 0))  # the last one at the left edge
    for _ in range(20):
        _ids(tracker)
    assert _ids(tracker, (0, 3)) == [1]


def test_a_narrow_person_so_quick_that_boxes_do_not_overlap_keeps_the_id() -> None:
    tracker = Tracker()
    for x in range(0, 180, 18):
        seen = dataclasses.replace(people((x, 0), scores=0.1), bboxes=[[x, 0, x + 15, 100]])
        assert tracker.update(seen).ids == [1]


def test_a_person_far_away_or_of_another_size_is_somebody_else() -> None:
    assert _ids_after_a_gap((450, 300)) == [2]
    tracker = Tracker()
    _ids(tracker, (100, 100))
    for _ in range(20):
        _ids(tracker)
    small = people((110, 140))
    small = dataclasses.replace(small, bboxes=np.array([[110, 140, 118, 160]]))
    assert tracker.update(small).ids == [2]


def _ids_after_a_gap(corner: tuple[float, float], frames: int = 20) -> list[int]:
    tracker = Tracker(max_gap=30)
    _ids(tracker, (0, 0))
    for _ in range(frames):
        _ids(tracker)
    return _ids(tracker, corner)


def test_ids_end_after_the_longest_gap() -> None:
    assert _ids_after_a_gap((0, 0), frames=30 - 1) == [1]
    assert _ids_after_a_gap((0, 0), frames=30 + 1) == [2]


def test_poses_decide_where_boxes_do_not() -> None:
    tracker = Tracker()
    first = people((0, 0), (0, 0))
    first.keypoints[1] += 8
    assert tracker.update(first).ids == pytest.approx([1, 2])
    assert tracker.update(first[::-1]).ids == pytest.approx([2, 1])


def test_numbers_that_are_not_finite_do_no_harm() -> None:
    tracker = Tracker()
    broken = people((0, 0), (200, 0))
    broken.keypoints[0, 3], broken.keypoint_scores[0, 4] = np.nan, np.nan
    broken.bboxes[1, 2] = np.inf
    tracker.update(broken)
    json.dumps(tracker.state(), allow_nan=False)
    assert _ids(tracker, (0, 0))[0] == 1


def test_nothing_but_the_ids_changes() -> None:
    result = people((0, 0))
    tracked = Tracker().update(result)
    assert result.ids is None
    assert dataclasses.replace(tracked, ids=None).to_dict() == result.to_dict()


@pytest.mark.parametrize("stop", [0, 1, 70, 299])
def test_a_restored_tracker_goes_on_with_the_same_ids(stop: int) -> None:
    frames = [result for result, _ in film()]
    whole, first, second = Tracker(), Tracker(), Tracker()
    expected = [whole.update(result).ids for result in frames]
    got = [first.update(result).ids for result in frames[:stop]]
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    got += [second.update(result).ids for result in frames[stop:]]
    for a, b in zip(got, expected):
        np.testing.assert_array_equal(a, b)
    assert second.state() == whole.state()


@pytest.mark.parametrize("state", [{}, {"next": 1}, {"next": "x", "tracks": []}, {"tracks": [3]}])
def test_other_states_are_refused_and_change_nothing(state: dict[str, object]) -> None:
    tracker = Tracker()
    _ids(tracker, (0, 0))
    before = tracker.state()
    with pytest.raises(DataError, match=r"not a state as Tracker.state\(\) returns it"):
        tracker.restore(state)
    assert tracker.state() == before


def test_one_tracker_serves_one_skeleton() -> None:
    tracker = Tracker()
    _ids(tracker, (0, 0))
    other = people((0, 0))
    other = dataclasses.replace(
        other, keypoints=other.keypoints[:, :16], keypoint_scores=other.keypoint_scores[:, :16],
        skeleton=MPII_16,
    )  # fmt: skip
    with pytest.raises(InputError, match="17 keypoints until now and have 16"):
        tracker.update(other)
    with pytest.raises(InputError, match="max_gap is -1"):
        Tracker(max_gap=-1)
