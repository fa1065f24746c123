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
NAN = float("nan")
SETS = {"coco17": COCO_17, "wholebody133": COCO_WHOLEBODY_133, "mpii16": MPII_16}


@pytest.mark.parametrize("key", SETS)
def test_equals_the_stored_lists(key: str) -> None:
    stored, skeleton = STORED[key], SETS[key]
    assert skeleton.keypoint_names == tuple(stored["names"])
    assert skeleton.flip_pairs == tuple(map(tuple, stored["flip_pairs"]))
    assert skeleton.flip_indices == tuple(stored["flip_index"])
    assert skeleton.limbs == tuple(map(tuple, stored["skeleton"]))
    assert skeleton.sigmas == tuple(stored["sigmas"])


def test_whole_body_parts_equal_the_stored_ranges_and_have_fields_in_coco_files() -> None:
    stored = {part: tuple(span) for part, span in STORED["wholebody133"]["parts"].items()}
    ours = ("body", "feet", "face", "left_hand", "right_hand")
    theirs = ("body", "foot", "face", "lefthand", "righthand")
    assert dict(COCO_WHOLEBODY_133.parts) == {o: stored[t] for o, t in zip(ours, theirs)}
    fields = {"keypoints" if t == "body" else f"{t}_kpts": stored[t] for t in theirs}
    assert COCO_WHOLEBODY_133.coco_fields == fields
    assert MPII_16.coco_fields == {"keypoints": (0, 16)}
    for parts in ({"body": (0, 16)}, {"tail": (0, 17)}):
        with pytest.raises(InputError, match="COCO files hold body, feet, face"):
            assert dataclasses.replace(COCO_17, parts=parts).coco_fields


@pytest.mark.parametrize("skeleton", SETS.values(), ids=lambda s: s.name)
def test_rules_of_every_set(skeleton: Skeleton) -> None:
    flip, names = skeleton.flip_indices, skeleton.keypoint_names
    assert [flip[i] for i in flip] == list(range(skeleton.num_keypoints))
    swap = {"left": "right", "right": "left"}
    for name, partner in zip(names, flip, strict=True):
        side, _, rest = name.partition("_")
        if side in swap:
            assert names[partner] == f"{swap[side]}_{rest}"
    covered = [i for start, stop in skeleton.parts.values() for i in range(start, stop)]
    assert covered == list(range(skeleton.num_keypoints))
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
        *(({"sigmas": (s, *COCO_17.sigmas[1:])}, "positive sigma") for s in (0.0, NAN, -1, 2.6)),
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
