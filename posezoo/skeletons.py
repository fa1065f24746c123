"""Keypoint sets: names, left-right partners, limbs, OKS sigmas and parts.

Names are the single source: partners and limbs are written by name, indices are computed.
Sigmas are those of the official COCO and COCO-WholeBody evaluation.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InputError, UnknownModelError
from .files import load_json

__all__ = ["COCO_17", "COCO_WHOLEBODY_133", "MPII_16", "Skeleton", "get_skeleton"]

Pairs = tuple[tuple[int, int], ...]

_COCO_FIELDS = {
    "body": "keypoints",
    "feet": "foot_kpts",
    "face": "face_kpts",
    "left_hand": "lefthand_kpts",
    "right_hand": "righthand_kpts",
}


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A set of `K` keypoints in a fixed order.

    `flip_pairs` are index pairs of mirror partners, `limbs` index pairs drawn as lines,
    `sigmas` the falloff of each keypoint in OKS, `parts` half-open index ranges by name.

    Quirk: pairs keep the order of the data set, so MPII and the face list the person's right
    side first. Use `flip_indices` for mirroring; it does not depend on that order.

    Raises:
        InputError: counts differ, an index is out of range, or a keypoint has two partners.
    """

    name: str
    keypoint_names: tuple[str, ...]
    flip_pairs: Pairs
    sigmas: tuple[float, ...]
    limbs: Pairs
    parts: Mapping[str, tuple[int, int]] = field(hash=False)

    def __post_init__(self) -> None:
        count = self.num_keypoints
        if len(set(self.keypoint_names)) != count:
            raise InputError(f"skeleton {self.name!r} has two keypoints of the same name")
        bad = [sigma for sigma in self.sigmas if not 0 < sigma <= 1]
        if len(self.sigmas) != count or bad:
            raise InputError(
                f"skeleton {self.name!r} has {count} keypoints and {len(self.sigmas)} sigmas"
                + "".join(f", one of them {sigma}" for sigma in bad[:1])
                + "; each keypoint needs one positive sigma of at most 1"
            )
        for kind, pairs in (("flip pair", self.flip_pairs), ("limb", self.limbs)):
            for a, b in pairs:
                if a == b or not (0 <= a < count and 0 <= b < count):
                    raise InputError(
                        f"skeleton {self.name!r}: {kind} ({a}, {b}) does not join two of "
                        f"the keypoints 0 to {count - 1}"
                    )
        mirrored = [index for pair in self.flip_pairs for index in pair]
        if len(set(mirrored)) != len(mirrored):
            raise InputError(f"skeleton {self.name!r}: a keypoint is in two flip pairs")
        for part, (start, stop) in self.parts.items():
            if not 0 <= start < stop <= count:
                raise InputError(
                    f"skeleton {self.name!r}: part {part!r} is ({start}, {stop}), expected a "
                    f"range inside (0, {count})"
                )

    @classmethod
    def from_json(cls, path: str | Path) -> Skeleton:
        """Read a skeleton of one's own.

        The file is an object with `name`, `keypoint_names`, one of `sigmas` per keypoint, and
        `flip_pairs` and `limbs` as pairs of names. A sigma is the standard deviation of marking
        that keypoint by hand, as a share of the square root of the person's area; those of COCO
        go from 0.025 (eyes) to 0.107 (hips).

        Raises:
            InputError: not such a file, a pair names no keypoint, or the skeleton is not valid.
        """
        content = load_json(path, InputError)
        wanted = {"name", "keypoint_names", "sigmas", "flip_pairs", "limbs"}
        if not isinstance(content, dict) or set(content) != wanted:
            found = ", ".join(sorted(content)) if isinstance(content, dict) else type(content)
            raise InputError(f"{path} holds {found}; valid: {', '.join(sorted(wanted))}")
        names = _texts(content["keypoint_names"], f"{path}: keypoint_names")
        if not isinstance(content["name"], str) or content["name"] in {"", *_SKELETONS}:
            raise InputError(
                f"{path}: name is {content['name']!r}; give a name that is none of "
                f"{', '.join(_SKELETONS)}"
            )
        sigmas = content["sigmas"]
        if not isinstance(sigmas, list) or not all(
            type(sigma) in (int, float) and 0 < sigma <= 1 for sigma in sigmas
        ):
            raise InputError(
                f"{path}: sigmas is {sigmas!r}; valid: a list of numbers above 0 and at most 1"
            )
        pairs = {
            kind: _named_pairs(content[kind], names, f"{path}: {kind}")
            for kind in ("flip_pairs", "limbs")
        }
        return cls(
            name=content["name"],
            keypoint_names=names,
            sigmas=tuple(map(float, sigmas)),
            parts={"body": (0, len(names))},
            **pairs,
        )

    @property
    def num_keypoints(self) -> int:
        """`K`."""
        return len(self.keypoint_names)

    @property
    def coco_fields(self) -> dict[str, tuple[int, int]]:
        """The fields of COCO files by name: the range of keypoints that each of them holds.

        Raises:
            InputError: COCO files have no field for a part, or a keypoint is in no part.
        """
        covered = sum(stop - start for start, stop in self.parts.values())
        if covered != self.num_keypoints or not set(self.parts) <= set(_COCO_FIELDS):
            raise InputError(
                f"skeleton {self.name!r} has {self.num_keypoints} keypoints, {covered} of them in "
                f"the parts {', '.join(self.parts)}; COCO files hold {', '.join(_COCO_FIELDS)}"
            )
        return {_COCO_FIELDS[part]: span for part, span in self.parts.items()}

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """The permutation of length `K` that a mirrored image applies to the keypoints."""
        indices = list(range(self.num_keypoints))
        for a, b in self.flip_pairs:
            indices[a], indices[b] = b, a
        return tuple(indices)


def _texts(value: Any, field_name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise InputError(f"{field_name} is {value!r}; valid: a list of names")
    return tuple(value)


def _named_pairs(value: Any, names: tuple[str, ...], field_name: str) -> Pairs:
    """Turn pairs of names into pairs of indices."""
    if not isinstance(value, list):
        raise InputError(f"{field_name} is {value!r}; valid: a list of pairs of names")
    for pair in value:
        if len(_texts(pair, field_name)) != 2 or not set(pair) <= set(names):
            raise InputError(f"{field_name} has {pair!r}; valid: two of {', '.join(names)}")
    return _pairs(names, value)


def _pairs(names: tuple[str, ...], pairs: Iterable[tuple[str, str]]) -> Pairs:
    index = {name: i for i, name in enumerate(names)}
    return tuple((index[a], index[b]) for a, b in pairs)


def _both_sides(*stems: str) -> tuple[str, ...]:
    return tuple(f"{side}_{stem}" for stem in stems for side in ("left", "right"))


def _partners(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pair each `left_` name with its `right_` name, in the order of the left ones."""
    return [(n, n.replace("left_", "right_", 1)) for n in names if n.startswith("left_")]


def _chain(*names: str) -> list[tuple[str, str]]:
    return list(zip(names, names[1:]))


def _twice(*values: float) -> tuple[float, ...]:
    return tuple(value for value in values for _ in range(2))


_COCO_NAMES = (
    "nose",
    *_both_sides(
        "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle",
    ),
)  # fmt: skip
_COCO_SIGMAS = (0.026, *_twice(0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089))
_COCO_LIMBS = [
    *_chain("left_ankle", "left_knee", "left_hip"),
    *_chain("right_ankle", "right_knee", "right_hip"),
    ("left_hip", "right_hip"),
    *((f"{side}_shoulder", f"{side}_hip") for side in ("left", "right")),
    ("left_shoulder", "right_shoulder"),
    *((f"{side}_shoulder", f"{side}_elbow") for side in ("left", "right")),
    *((f"{side}_elbow", f"{side}_wrist") for side in ("left", "right")),
    ("left_eye", "right_eye"),
    *(("nose", f"{side}_eye") for side in ("left", "right")),
    *((f"{side}_eye", f"{side}_ear") for side in ("left", "right")),
    *((f"{side}_ear", f"{side}_shoulder") for side in ("left", "right")),
]

COCO_17 = Skeleton(
    name="coco",
    keypoint_names=_COCO_NAMES,
    flip_pairs=_pairs(_COCO_NAMES, _partners(_COCO_NAMES)),
    sigmas=_COCO_SIGMAS,
    limbs=_pairs(_COCO_NAMES, _COCO_LIMBS),
    parts={"body": (0, 17)},
)


_FEET = tuple(f"{s}_{p}" for s in ("left", "right") for p in ("big_toe", "small_toe", "heel"))
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def _hand(side: str) -> tuple[str, ...]:
    joints = (f"{side}_{finger}{joint}" for finger in _FINGERS for joint in range(1, 5))
    return (f"{side}_hand_root", *joints)


def _hand_limbs(side: str) -> list[tuple[str, str]]:
    """One chain of five per finger, from the root to the tip."""
    root, *joints = _hand(side)
    return [limb for i in range(0, 20, 4) for limb in _chain(root, *joints[i : i + 4])]


def _face_partners() -> list[tuple[str, str]]:
    """Mirror the 68 face points: each run of numbers maps onto the run with the same sum."""
    runs = (  # first points of a run, number that both partners add up to
        (range(0, 8), 16),  # jaw
        (range(17, 22), 43),  # brows
        (range(31, 33), 66),  # nostrils
        (range(36, 40), 81),  # eyes, upper lids
        (range(40, 42), 87),  # eyes, lower lids
        (range(48, 51), 102),  # outer lips, upper
        (range(55, 57), 114),  # outer lips, lower
        (range(60, 62), 124),  # inner lips, upper
        (range(65, 66), 132),  # inner lips, lower
    )
    return [(f"face-{i}", f"face-{total - i}") for run, total in runs for i in run]


_WHOLEBODY_NAMES = (
    *_COCO_NAMES,
    *_FEET,
    *(f"face-{i}" for i in range(68)),
    *_hand("left"),
    *_hand("right"),
)
_FEET_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037,
    0.038, 0.043, 0.041, 0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013,
    0.015, 0.009, 0.007, 0.007, 0.007, 0.012, 0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009,
    0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034, 0.008, 0.008, 0.009, 0.008,
    0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008, 0.008,
    0.008, 0.010, 0.008,
)  # fmt: skip
_HAND_SIGMAS = (
    0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024,
    0.022, 0.026, 0.017, 0.021, 0.021, 0.032, 0.020, 0.019, 0.022, 0.031,
)  # fmt: skip

COCO_WHOLEBODY_133 = Skeleton(
    name="coco_wholebody",
    keypoint_names=_WHOLEBODY_NAMES,
    flip_pairs=_pairs(
        _WHOLEBODY_NAMES,
        [
            *_partners((*_COCO_NAMES, *_FEET)),
            *_face_partners(),
            *_partners(_hand("left")),
        ],
    ),
    sigmas=(*_COCO_SIGMAS, *_FEET_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
    limbs=_pairs(
        _WHOLEBODY_NAMES,
        [
            *_COCO_LIMBS,
            *((f"{name.split('_')[0]}_ankle", name) for name in _FEET),
            *_hand_limbs("left"),
            *_hand_limbs("right"),
        ],
    ),
    parts={
        "body": (0, 17),
        "feet": (17, 23),
        "face": (23, 91),
        "left_hand": (91, 112),
        "right_hand": (112, 133),
    },
)


_MPII_LEG = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle")
_MPII_TRUNK = ("pelvis", "thorax", "upper_neck", "head_top")
_MPII_ARM = (
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
_MPII_NAMES = (*_MPII_LEG, *_MPII_TRUNK, *_MPII_ARM)

MPII_16 = Skeleton(
    name="mpii",
    keypoint_names=_MPII_NAMES,
    flip_pairs=_pairs(
        _MPII_NAMES, [(row[i], row[5 - i]) for row in (_MPII_LEG, _MPII_ARM) for i in range(3)]
    ),
    # PCKh does not use sigmas; these are the COCO-like ones of mmpose
    sigmas=(
        0.089,
        0.083,
        0.107,
        0.107,
        0.083,
        0.089,
        0.026,
        0.026,
        0.026,
        0.026,
        0.062,
        0.072,
        0.179,
        0.179,
        0.072,
        0.062,
    ),  # fmt: skip
    limbs=_pairs(
        _MPII_NAMES,
        [
            *_chain(*_MPII_LEG[:3], "pelvis", *_MPII_LEG[3:]),
            *_chain(*_MPII_TRUNK),
            *_chain("upper_neck", *reversed(_MPII_ARM[:3])),
            *_chain("upper_neck", *_MPII_ARM[3:]),
        ],
    ),
    parts={"body": (0, 16)},
)

_SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_17, COCO_WHOLEBODY_133, MPII_16)}


def get_skeleton(name: str) -> Skeleton:
    """Return the keypoint set of a data set: "coco", "coco_wholebody" or "mpii".

    Raises:
        UnknownModelError: a KeyError that lists close names and the valid ones.
    """
    if name not in _SKELETONS:
        close = difflib.get_close_matches(name, _SKELETONS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UnknownModelError(f"no skeleton named {name!r}; {hint}valid: {', '.join(_SKELETONS)}")
    return _SKELETONS[name]
