"""Keypoint sets against the stored lists, and the rules every set obeys."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

from posezoo.errors import InputError, UnknownModelError
from posezoo.skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton, get_skeleton

STORED = json.loads((Path(__file__).parent / "goldens/evaluation/keypoints.json").read_text())
SKELETONS = [COCO_17, COCO_WHOLEBODY_133, MPII_16]
PAIRS = [(COCO_17, "coco17"), (COCO_WHOLEBODY_133, "wholebody133"), (MPII_16, "mpii16")]


def _pairs(rows: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, rows))


@pytest.mark.parametrize(("skeleton", "key"), PAIRS, ids=lambda x: getattr(x, "name", x))
def test_equals_the_stored_lists(skeleton: Skeleton, key: str) -> None:
    stored = STORED[key]
    assert skeleton.keypoint_names == tuple(stored["names"])
    assert skeleton.flip_pairs == _pairs(stored["flip_pairs"])
    assert skeleton.flip_indices == tuple(stored["flip_index"])
    assert skeleton.limbs == _pairs(stored["skeleton"])
    assert skeleton.sigmas == tuple(stored["sigmas"])


def test_whole_body_parts_equal_the_stored_ranges() -> None:
    ours = ("body", "feet", "face", "left_hand", "right_hand")
    theirs = ("body", "foot", "face", "lefthand", "righthand")
    stored = STORED["wholebody133"]["parts"]
    assert dict(COCO_WHOLEBODY_133.parts) == {
        o: tuple(stored[t]) for o, t in zip(ours, theirs, strict=True)
    }


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_flipping_twice_changes_nothing(skeleton: Skeleton) -> None:
    flip = skeleton.flip_indices
    assert [flip[i] for i in flip] == list(range(skeleton.num_keypoints))


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_flipping_swaps_left_and_right_names(skeleton: Skeleton) -> None:
    swap = {"left": "right", "right": "left"}
    for name, partner in zip(skeleton.keypoint_names, skeleton.flip_indices, strict=True):
        side, _, rest = name.partition("_")
        if side in swap:
            assert skeleton.keypoint_names[partner] == f"{swap[side]}_{rest}"


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_parts_cover_every_keypoint_once(skeleton: Skeleton) -> None:
    covered = [i for start, stop in skeleton.parts.values() for i in range(start, stop)]
    assert covered == list(range(skeleton.num_keypoints))


@pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
def test_is_found_by_name_hashable_and_picklable(skeleton: Skeleton) -> None:
    assert get_skeleton(skeleton.name) is skeleton
    assert pickle.loads(pickle.dumps(skeleton)) == skeleton
    assert len({skeleton, dataclasses.replace(skeleton)}) == 1


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'coco_wholebody'"):
        get_skeleton("coco-wholebody")
    with pytest.raises(KeyError, match="valid: coco, coco_wholebody, mpii"):
        get_skeleton("halpe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": COCO_17.sigmas[:-1]}, "17 keypoints and 16 sigmas"),
        ({"sigmas": (0.0, *COCO_17.sigmas[1:])}, "positive sigma"),
        ({"flip_pairs": ((1, 17),)}, r"flip pair \(1, 17\)"),
        ({"flip_pairs": ((1, -2),)}, r"flip pair \(1, -2\)"),
        ({"flip_pairs": ((3, 3),)}, r"flip pair \(3, 3\)"),
        ({"flip_pairs": ((1, 2), (2, 3))}, "in two flip pairs"),
        ({"limbs": ((0, 40),)}, r"limb \(0, 40\)"),
        ({"keypoint_names": ("nose",) * 17}, "same name"),
        ({"parts": {"body": (0, 18)}}, r"part 'body' is \(0, 18\)"),
        ({"parts": {"body": (5, 5)}}, r"part 'body' is \(5, 5\)"),
    ],
)
def test_inconsistent_sets_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(COCO_17, **change)
