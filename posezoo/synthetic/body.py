"""An articulated body: joint angles inside human limits to keypoints in space.

Lengths are in body heights. The frame of the camera is x to the right, y down, z away from it;
a body with zero angles faces the camera, arms and legs straight down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD_RADII", "Body", "sample_body"]

Array = NDArray[np.float64]

HEAD_RADII = np.array([0.056, 0.078, 0.068])  # to the side, along the neck, to the front
_DOWN = np.array([0.0, 1.0, 0.0])

# Degrees, drawn evenly: shoulder flexion, abduction and inward twist, elbow flexion
_ARMS: dict[str, tuple[tuple[float, float], ...]] = {
    "hanging": ((-15, 25), (2, 22), (-20, 40), (0, 35)),
    "swinging": ((-40, 45), (2, 18), (-10, 40), (15, 95)),
    "resting": ((10, 60), (2, 20), (0, 60), (30, 100)),
    "akimbo": ((-20, 5), (35, 55), (75, 105), (80, 110)),
    "raised": ((-10, 20), (120, 175), (-20, 20), (0, 70)),
    "spread": ((-20, 30), (60, 115), (-40, 40), (0, 60)),
    "forward": ((55, 110), (-5, 35), (-30, 60), (0, 80)),
    "any": ((-40, 160), (0, 120), (-60, 80), (0, 140)),
}
# Hip flexion and abduction, knee flexion
_LEGS: dict[str, tuple[tuple[float, float], ...]] = {
    "standing": ((-8, 12), (-1, 11), (0, 10)),
    "leading": ((12, 42), (-3, 8), (0, 35)),
    "trailing": ((-28, -4), (-3, 8), (5, 65)),
    "sitting": ((70, 100), (0, 22), (65, 110)),
    "squatting": ((45, 110), (5, 35), (60, 130)),
    "kicking": ((30, 95), (0, 25), (0, 60)),
    "astride": ((-5, 20), (15, 42), (0, 25)),
    "any": ((-25, 100), (0, 45), (0, 125)),
}
# How often, both legs, choice of each arm
_POSES: tuple[tuple[float, tuple[str, str], tuple[str, ...]], ...] = (
    (0.24, ("standing", "standing"), ("hanging", "hanging", "akimbo", "resting", "forward")),
    (0.22, ("leading", "trailing"), ("swinging", "hanging")),
    (0.14, ("sitting", "sitting"), ("resting", "resting", "hanging", "forward", "raised")),
    (0.12, ("standing", "astride"), ("raised", "raised", "spread")),
    (0.10, ("astride", "astride"), ("spread", "raised", "akimbo", "any")),
    (0.06, ("squatting", "squatting"), ("forward", "resting", "spread")),
    (0.05, ("standing", "kicking"), ("spread", "swinging", "any")),
    (0.07, ("any", "any"), ("any",)),
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """One posed body: named points (x, y, z), and the head as centre and axes (3, 3)."""

    points: dict[str, Array]
    head: Array
    head_axes: Array


def sample_body(rng: np.random.Generator) -> Body:
    """Draw a pose, a direction to face and the keypoints of all three keypoint sets."""
    weights = np.array([pose[0] for pose in _POSES])
    _, legs, arms = _POSES[rng.choice(len(_POSES), p=weights / weights.sum())]
    spread = 45.0 if rng.random() < 0.7 else 130.0
    turn = rng.normal(0.0, spread)
    root = _rotation(rng.normal(0, 7), "z") @ _rotation(rng.normal(4, 7), "x")
    root = root @ _rotation(turn, "y")
    spine = root @ _rotation(rng.uniform(-28, 8), "x") @ _rotation(rng.normal(0, 6), "z")
    spine = spine @ _rotation(rng.normal(0, 10), "y")
    points = {"pelvis": np.zeros(3)}
    points["thorax"] = spine @ np.array([0.0, -0.27, 0.0])
    points["upper_neck"] = spine @ np.array([0.0, -0.335, 0.0])
    look = spine @ _rotation(np.clip(rng.normal(0, 30), -70, 70), "y")
    look = look @ _rotation(rng.normal(-2, 12), "x") @ _rotation(rng.normal(0, 7), "z")
    head = points["upper_neck"] + look @ np.array([0.0, -0.06, -0.012])
    points |= {name: head + look @ (at * HEAD_RADII) for name, at in _FACE.items()}
    sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    for side, leg in zip(sides, legs):
        sign = 1.0 if side == "left" else -1.0
        points |= _leg(rng, root, side, sign, leg)
        points |= _arm(rng, spine, points["thorax"], side, sign, str(rng.choice(arms)))
    return Body(points=points, head=head, head_axes=look)


def _rotation(degrees: float, axis: str) -> Array:
    """Rotate about an axis; "x" brings what points down to the front, "z" to the left."""
    angle = math.radians(degrees)
    c, s = math.cos(angle), math.sin(angle)
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, c, s], [0, -s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])


def _draw(rng: np.random.Generator, ranges: tuple[tuple[float, float], ...]) -> list[float]:
    return [float(rng.uniform(*limits)) for limits in ranges]


def _leg(
    rng: np.random.Generator, root: Array, side: str, sign: float, kind: str
) -> dict[str, Array]:
    flexion, abduction, knee_angle = _draw(rng, _LEGS[kind])
    thigh = root @ _rotation(sign * abduction, "z") @ _rotation(flexion, "x")
    shin = thigh @ _rotation(-knee_angle, "x")
    foot = shin @ _rotation(rng.uniform(-10, 25) if knee_angle < 40 else rng.uniform(-25, 25), "x")
    hip = root @ np.array([sign * 0.052, 0.0, 0.0])
    knee = hip + 0.245 * (thigh @ _DOWN)
    ankle = knee + 0.235 * (shin @ _DOWN)
    toes = {"big_toe": (-0.008, 0.035, -0.115), "small_toe": (0.028, 0.035, -0.095)}
    ends = {**toes, "heel": (0.0, 0.035, 0.035)}
    points = {"hip": hip, "knee": knee, "ankle": ankle}
    points |= {name: ankle + foot @ (np.array(at) * [sign, 1, 1]) for name, at in ends.items()}
    return {f"{side}_{name}": point for name, point in points.items()}


def _arm(
    rng: np.random.Generator, spine: Array, thorax: Array, side: str, sign: float, kind: str
) -> dict[str, Array]:
    flexion, abduction, twist, bend = _draw(rng, _ARMS[kind])
    upper = spine @ _rotation(sign * abduction, "z") @ _rotation(flexion, "x")
    upper = upper @ _rotation(sign * twist, "y")
    lower = upper @ _rotation(bend, "x")
    hand = lower @ _rotation(sign * rng.uniform(-60, 60), "y") @ _rotation(rng.normal(0, 15), "x")
    shoulder = thorax + spine @ np.array([sign * 0.105, 0.015, 0.0])
    elbow = shoulder + 0.165 * (upper @ _DOWN)
    wrist = elbow + 0.145 * (lower @ _DOWN)
    points = {"shoulder": shoulder, "elbow": elbow, "wrist": wrist}
    points |= _fingers(wrist, hand, sign, spread=rng.uniform(0.6, 1.3))
    return {f"{side}_{name}": point for name, point in points.items()}


def _fingers(wrist: Array, hand: Array, sign: float, spread: float) -> dict[str, Array]:
    """Return 21 points; the thumb is on the side that faces forward when the arm hangs."""
    names = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
    points = {"hand_root": wrist + 0.006 * (hand @ _DOWN)}
    for i, name in enumerate(names):
        angle = (-52.0, -16.0, -3.0, 10.0, 24.0)[i] * spread
        reach = (0.016, 0.045, 0.047, 0.045, 0.041)[i]
        step = (0.015, 0.0145, 0.016, 0.0145, 0.011)[i]
        direction = hand @ _rotation(-angle, "x") @ _DOWN
        for joint in range(4):
            points[f"{name}{joint + 1}"] = wrist + (reach + joint * step) * direction
    return points


def _face_table() -> dict[str, Array]:
    """Return the points of the head in its own frame, in units of `HEAD_RADII`."""
    flat: list[tuple[float, float]] = []  # x to the person's left, y down
    jaw = np.linspace(0, math.pi, 17)
    flat += [(-0.95 * math.cos(t), 0.05 + 0.9 * math.sin(t)) for t in jaw]
    brow = [(-0.72 + 0.14 * i, -0.34 - 0.09 * math.sin(math.pi * i / 4)) for i in range(5)]
    flat += brow + [(-x, y) for x, y in reversed(brow)]
    flat += [(0.0, -0.14 + 0.11 * i) for i in range(4)]
    flat += [(-0.18 + 0.09 * i, 0.27 + 0.03 * (2 - abs(i - 2))) for i in range(5)]
    for center in (-0.42, 0.42):
        angles = np.radians([180, 120, 60, 0, -60, -120])
        flat += [(center + 0.17 * math.cos(a), -0.13 - 0.07 * math.sin(a)) for a in angles]
    flat += [
        (-0.32 * math.cos(t), 0.52 - 0.10 * math.sin(t)) for t in np.arange(12) * (math.pi / 6)
    ]
    flat += [(-0.24 * math.cos(t), 0.52 - 0.04 * math.sin(t)) for t in np.arange(8) * (math.pi / 4)]
    named = {f"face-{i}": xy for i, xy in enumerate(flat)}
    named |= {"left_eye": (0.42, -0.13), "right_eye": (-0.42, -0.13)}
    table = {
        name: np.array([x, y, -math.sqrt(max(0.02, 1 - x * x - y * y))])
        for name, (x, y) in named.items()
    }
    for i in range(27, 36):
        table[f"face-{i}"][2] -= 0.06 * (min(i, 30) - 27)
    table["nose"] = table["face-30"]
    table |= {"left_ear": np.array([1.0, 0.0, 0.12]), "right_ear": np.array([-1.0, 0.0, 0.12])}
    table["head_top"] = np.array([0.0, -1.1, 0.1])
    return table


_FACE = _face_table()
