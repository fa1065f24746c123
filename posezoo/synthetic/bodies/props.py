"""Furniture and belongings that fit a posed body: seats, tables, what hands hold, things about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .solids import BALL, BOX, MATERIALS, TUBE, Things, place, random_turn, turn_z

__all__ = ["LOWEST_BED", "Stance", "furnish", "hang_mirror", "scatter"]

Array = NDArray[np.float64]
LOWEST_BED = 0.3  # metres
_SEATED = ("sitting", "legs crossed")


@dataclass(frozen=True, kw_only=True)
class Stance:
    """Where a body is, for what is built around it.

    Attributes:
        cluster: of its pose.
        frame: (3, 4) moves what is given in its own frame (it faces -y, the floor is z = 0).
        seat: height of the underside of trunk and thighs, metres.
        back: how far back it reaches (y).
        middle: (x, y) of the hips.
        reach: how far to the front the knees are (y, negative).
        size: its height against that of a grown-up.
        keypoints: by name, in its own frame, and the `crown` of its head.
    """

    cluster: str
    frame: Array
    seat: float
    back: float
    middle: Array
    reach: float
    size: float
    keypoints: dict[str, Array]
    crown: Array


def furnish(rng: np.random.Generator, things: Things, picture: int, body: Stance) -> None:
    """Add what a body sits on, works at and holds."""
    materials = iter(range(picture * MATERIALS, (picture + 1) * MATERIALS))
    start = int(rng.integers(40))

    def number() -> int:
        return start + next(materials)

    if body.cluster in _SEATED and body.seat > 0.12:
        _seat(rng, things, picture, number(), body)
        if rng.random() < 0.3:
            _table(rng, things, picture, number(), body, body.seat + rng.uniform(0.2, 0.32))
    elif body.cluster in ("standing", "resting", "bending") and rng.random() < 0.1:
        _table(rng, things, picture, number(), body, body.size * rng.uniform(0.75, 1.1))
    elif body.cluster == "lying" and body.seat > LOWEST_BED:
        _bed(rng, things, picture, number(), body)
    elif body.cluster == "lying" and rng.random() < 0.6:
        half, x, y = rng.uniform(0.5, 1.1), *body.middle
        low, high = (x - half, y - 1.4, -0.4), (x + half, y + 1.4, 0.02)
        things.box(picture, number(), low, high, body.frame)
    elif body.cluster == "cycling" and rng.random() < 0.7:
        _bicycle(things, picture, number(), body)
    elif body.cluster in ("crouching", "lunging") and rng.random() < 0.45:
        _under_feet(rng, things, picture, number(), body)
    is_sport = body.cluster in ("crouching", "lunging", "running", "kicking", "squatting")
    for side in ("left", "right"):
        if rng.random() < (0.4 if is_sport else 0.2):
            _held(rng, things, picture, number(), body, side, is_sport)
    if rng.random() < 0.1:
        _bag(rng, things, picture, number(), body)
    if rng.random() < 0.06:
        brim = np.array([rng.uniform(0.24, 0.42)] * 2 + [0.02]) * [1, 1.1, 1]
        at = body.crown + [0, rng.choice([0, -0.09]), 0.07]
        things.add(picture, number(), TUBE, place(at, brim, None, body.frame))


def _seat(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance
) -> None:
    """A chair, stool, bench, sofa or step."""
    kind = rng.choice(["chair", "stool", "bench", "sofa", "step"], p=[0.42, 0.1, 0.14, 0.22, 0.12])
    x, y = body.middle
    top, back = body.seat + rng.uniform(-0.005, 0.02), body.back + rng.uniform(0.0, 0.08)
    half = {"chair": 0.24, "stool": 0.19, "bench": 0.8, "sofa": 0.9, "step": 1.2}[kind]
    half *= rng.uniform(0.85, 1.25)
    front = y - rng.uniform(0.16, 0.34)
    shift = rng.uniform(-0.5, 0.5) if half > 0.6 else 0.0
    left, right = x + shift - half, x + shift + half
    thick = {"sofa": 0.3, "step": top}.get(str(kind), rng.uniform(0.03, 0.1))

    def add(low: tuple[float, ...], high: tuple[float, ...]) -> None:
        things.box(picture, material, low, high, body.frame)

    add((left, front, max(0.0, top - thick)), (right, back, top))
    if kind in ("chair", "stool", "bench"):
        w = rng.uniform(0.015, 0.03)
        for px in (left + w, right - w):
            for py in (front + w, back - w):
                add((px - w, py - w, 0), (px + w, py + w, top - thick))
    if kind in ("chair", "sofa") or kind == "bench" and rng.random() < 0.5:
        rise = rng.uniform(0.3, 0.75)
        add(
            (left, back, top + rng.choice([0, 0.12])),
            (right, back + rng.uniform(0.03, 0.2), top + rise),
        )
    if kind == "sofa" or kind == "chair" and rng.random() < 0.35:
        wide = 0.2 if kind == "sofa" else 0.05
        arm = rng.uniform(0.16, 0.26)
        low = 0.0 if kind == "sofa" else arm - 0.04
        for a, b in ((left - wide, left), (right, right + wide)):
            add((a, front, top * (kind != "sofa") + low), (b, back, top + arm))


def _bed(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance
) -> None:
    """A mattress under the body, with a pillow, a headboard and a blanket or without."""
    x, y = body.middle
    nose = body.keypoints["nose"]
    up = float(np.sign(nose[1] - y))  # toward the head
    top, half = body.seat + 0.01, rng.uniform(0.45, 1.0)
    left, right = (x + rng.uniform(-0.4, 0.4) * half + side * half for side in (-1, 1))
    head, foot = y + up * 1.1 * body.size, y - up * 1.2 * body.size

    def add(material: int, first: tuple[float, ...], second: tuple[float, ...]) -> None:
        corners = np.sort([first, second], axis=0).tolist()
        things.box(picture, material, tuple(corners[0]), tuple(corners[1]), body.frame)

    add(material, (left, head, top - 0.2), (right, foot, top))
    add(material + 1, (left + 0.05, head, 0.0), (right - 0.05, foot, top - 0.2))
    if rng.random() < 0.6:
        add(material + 1, (left, head, 0.0), (right, head + 0.06 * up, top + rng.uniform(0.2, 0.7)))
    if rng.random() < 0.8:
        size = np.array([rng.uniform(0.5, 0.8), 0.45, 0.16])
        things.add(
            picture,
            material + 2,
            BALL,
            place(np.array([nose[0], nose[1], top]), size, None, body.frame),
        )
    if rng.random() < 0.35:
        reach = y + up * rng.uniform(-0.5, 0.4) * body.size
        add(material + 3, (left, foot, top - 0.05), (right, reach, top + 0.3 * body.size))


def _table(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance,
    height: float,
) -> None:  # fmt: skip
    """A table or counter before the body, with things on it."""
    x = body.middle[0] + rng.uniform(-0.25, 0.25)
    half, deep = rng.uniform(0.35, 1.1), rng.uniform(0.35, 0.9)
    near = min(body.reach + 0.3, body.middle[1] - 0.22) - rng.uniform(0, 0.12)

    def add(low: tuple[float, ...], high: tuple[float, ...]) -> None:
        things.box(picture, material, low, high, body.frame)

    add((x - half, near - deep, height - 0.04), (x + half, near, height))
    if rng.random() < 0.35:
        add((x - half, near - deep, 0), (x + half, near - 0.05, height - 0.04))
    else:
        for px in (x - half + 0.04, x + half - 0.04):
            for py in (near - deep + 0.04, near - 0.04):
                add((px - 0.025, py - 0.025, 0), (px + 0.025, py + 0.025, height - 0.04))
    for i in range(int(rng.integers(0, 5))):
        size = np.exp(rng.normal(-2.2, 0.5, 3))
        at = np.array([x + rng.uniform(-half, half), near - rng.uniform(0.08, deep), height])
        at[2] += size[2] / 2
        turn = turn_z(rng.uniform(0, 6.28))
        shape = int(rng.choice([BOX, TUBE, BALL]))
        things.add(picture, material + 1 + i, shape, place(at, size, turn, body.frame))


def _bicycle(things: Things, picture: int, material: int, body: Stance) -> None:
    """Two wheels, saddle and frame; wheels are thin discs."""
    x, y = body.middle
    for at in (y + 0.35, y - 0.72):
        for wide, tall in ((0.05, 0.68), (0.06, 0.1)):
            turn = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
            size = np.array([tall, tall, wide])
            center = np.array([x, at, body.seat - 0.55])
            things.add(
                picture, material + (tall < 0.5), TUBE, place(center, size, turn, body.frame)
            )
    for low, high in (
        ((x - 0.02, y - 0.5, body.seat - 0.2), (x + 0.02, y, body.seat - 0.15)),
        ((x - 0.07, y - 0.12, body.seat - 0.06), (x + 0.07, y + 0.16, body.seat)),
        ((x - 0.28, y - 0.62, body.seat + 0.1), (x + 0.28, y - 0.58, body.seat + 0.14)),
        ((x - 0.02, y - 0.66, body.seat - 0.55), (x + 0.02, y - 0.6, body.seat + 0.12)),
    ):
        things.box(picture, material + 1, low, high, body.frame)


def _under_feet(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance
) -> None:
    """A board under both feet, or a ski under each."""
    if rng.random() < 0.5:
        size = np.array([rng.uniform(0.15, 0.4), rng.uniform(0.9, 1.8), 0.04])
        center = np.array([*body.middle, 0.0])
        turn = turn_z(rng.uniform(0, 6.28))
        things.add(picture, material, BOX, place(center, size, turn, body.frame))
        return
    size = np.array([0.09, rng.uniform(1.3, 1.9), 0.03])
    for side in ("left", "right"):
        foot = (body.keypoints[f"{side}_ankle"] + body.keypoints[f"{side}_big_toe"]) / 2
        way = body.keypoints[f"{side}_big_toe"] - body.keypoints[f"{side}_heel"]
        turn = turn_z(float(np.arctan2(way[0], -way[1])))
        center = np.array([*foot[:2], max(0.0, foot[2] - 0.07)])
        things.add(picture, material, BOX, place(center, size, turn, body.frame))


def _held(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance, side: str,
    is_sport: bool,
) -> None:  # fmt: skip
    """A phone, cup, ball, stick or pole, book or umbrella in a hand; in sports mostly a stick."""
    wrist, elbow = body.keypoints[f"{side}_wrist"], body.keypoints[f"{side}_elbow"]
    along = (wrist - elbow) / (np.linalg.norm(wrist - elbow) + 1e-6)
    at = wrist + 0.09 * body.size * along
    weights = (0.02, 0.02, 0.2, 0.7, 0.02, 0.04) if is_sport else (0.2, 0.2, 0.16, 0.2, 0.16, 0.08)
    kind = rng.choice(6, p=weights)
    size = np.array([(0.07, 0.012, 0.14), (0.08, 0.08, 0.11), (0.2, 0.2, 0.2), (0.03, 0.03, 1.0),
                     (0.22, 0.03, 0.28), (0.9, 0.9, 0.12)][kind])  # fmt: skip
    size = size * rng.uniform(0.7, 1.5)
    turn = random_turn(rng)
    shape = (BOX, TUBE, BALL, TUBE, BOX, BALL)[kind]
    if kind == 3:  # held near its end
        at = at + turn[:, 2] * size[2] * rng.choice([-0.42, 0.42, 0.0], p=[0.45, 0.45, 0.1])
    if kind == 5:
        at, turn = at + [0, 0, 0.6], np.eye(3)
    things.add(picture, material, shape, place(at, size, turn, body.frame))


def _bag(
    rng: np.random.Generator, things: Things, picture: int, material: int, body: Stance
) -> None:
    """A backpack, or a bag at the hip."""
    shoulders = (body.keypoints["left_shoulder"] + body.keypoints["right_shoulder"]) / 2
    hips = (body.keypoints["left_hip"] + body.keypoints["right_hip"]) / 2
    if rng.random() < 0.5:
        middle = 0.6 * shoulders + 0.4 * hips
        size = np.array([0.3, 0.18, 0.42]) * body.size * rng.uniform(0.7, 1.2)
        center = middle + [0, 0.2 * body.size, 0]
    else:
        size = np.array([0.14, 0.3, 0.24]) * body.size * rng.uniform(0.6, 1.2)
        center = hips + [rng.choice([-1, 1]) * 0.26 * body.size, 0, rng.uniform(-0.1, 0.1)]
    things.add(picture, material, BOX, place(center, size, None, body.frame))


def hang_mirror(
    rng: np.random.Generator, things: Things, picture: int, normal: Array, distance: float
) -> None:
    """Add the frame of an upright mirror: the plane of points whose product with the unit normal
    (3,) is the distance."""
    along = np.array([-normal[1], normal[0], 0])
    frame = np.stack([along, normal, [0, 0, 1], normal * distance], 1)
    half, top, w = rng.uniform(0.5, 1.6), rng.uniform(1.7, 2.4), rng.uniform(0.02, 0.08)
    low = rng.choice([0.0, 0.5, 0.9])
    for first, second in (
        ((-half - w, low), (-half, top)), ((half, low), (half + w, top)),
        ((-half - w, low - w), (half + w, low)), ((-half - w, top), (half + w, top + w)),
    ):  # fmt: skip
        corners = ((first[0], -0.01, first[1]), (second[0], 0.01, second[1]))
        things.box(picture, (picture + 1) * MATERIALS - 1, *corners, frame)


def scatter(rng: np.random.Generator, things: Things, picture: int, eye: Array) -> None:
    """Add things that stand about, none at the person or right before the camera."""
    for i in range(int(rng.choice([0, 1, 2, 4, 7], p=[0.3, 0.2, 0.2, 0.2, 0.1]))):
        at = rng.normal(0, 2.2, 2)
        size = np.exp(rng.normal([-0.7, -0.7, -0.3], 0.6))
        clear = 0.55 + max(size[:2]) / 2
        toward = eye[:2] / (np.linalg.norm(eye[:2]) + 1e-6)
        is_between = 0 < at @ toward < eye[:2] @ toward + 1 and rng.random() < 0.85
        if np.linalg.norm(at) < clear or np.linalg.norm(at - eye[:2]) < clear + 0.3 or is_between:
            continue
        shape = int(rng.choice([BOX, TUBE, BALL], p=[0.6, 0.3, 0.1]))
        center = np.array([*at, size[2] / 2 + (rng.uniform(0, 1.5) if rng.random() < 0.15 else 0)])
        turn = turn_z(rng.uniform(0, 6.28))
        things.add(picture, picture * MATERIALS + 50 + i, shape, place(center, size, turn))
