"""Poses in clusters: what legs, trunk, head and arms do together, inside the limits of joints.

Angles are in degrees. Legs, trunk and head are drawn as angles; a wrist gets a target near its
shoulder, and elbow and upper arm follow (two-bone inverse kinematics). N bodies are drawn at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .human import Human, rotation

__all__ = ["CLUSTERS", "Poses", "is_possible", "sample_poses"]

Array = NDArray[np.float64]
Range = tuple[float, float]

# Where a wrist goes, about its shoulder, in lengths of the straight arm: outwards, back, up; their
# spreads; and where the elbow points
_HANDS: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    "down": ((0.20, -0.04, -0.96), (0.09, 0.13, 0.04), (0.3, 1.0, 0.0)),
    "pocket": ((0.10, -0.08, -0.80), (0.06, 0.08, 0.06), (0.8, 1.0, 0.0)),
    "belly": ((-0.18, -0.48, -0.60), (0.16, 0.12, 0.16), (0.8, 0.6, -0.6)),
    "hip": ((0.14, -0.04, -0.72), (0.05, 0.08, 0.05), (1.0, 0.7, 0.0)),
    "up": ((0.12, -0.12, 0.84), (0.26, 0.24, 0.16), (0.8, 0.2, 0.0)),
    "out": ((0.86, -0.05, 0.02), (0.14, 0.24, 0.36), (0.2, 0.7, -0.8)),
    "front": ((0.00, -0.84, -0.14), (0.24, 0.12, 0.34), (0.6, 0.2, -0.9)),
    "face": ((-0.22, -0.42, 0.22), (0.13, 0.10, 0.16), (0.7, 0.0, -0.8)),
    "ear": ((0.00, -0.16, 0.30), (0.07, 0.10, 0.08), (0.8, -0.2, -0.5)),
    "crossed": ((-0.45, -0.40, -0.32), (0.12, 0.06, 0.10), (0.8, 0.3, -0.6)),
    "nape": ((-0.08, 0.06, 0.36), (0.08, 0.06, 0.08), (1.0, -0.2, 0.3)),
    "back": ((-0.20, 0.26, -0.66), (0.10, 0.06, 0.08), (1.0, 0.6, 0.0)),
    "knee": ((0.00, -0.72, -0.60), (0.12, 0.12, 0.14), (0.8, 0.4, -0.3)),
    "prop": ((0.34, 0.42, -0.80), (0.14, 0.18, 0.08), (0.5, 1.0, 0.0)),
    "carry": ((-0.10, -0.50, -0.30), (0.14, 0.10, 0.22), (0.7, 0.4, -0.8)),
    "wave": ((0.42, -0.22, 0.45), (0.16, 0.16, 0.22), (0.8, 0.1, -0.6)),
}
_HOLD_SPREAD = np.array([0.22, 0.14, 0.30])  # of what both hands hold, before the chest


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the members of a cluster have in common; ranges are drawn evenly.

    Attributes:
        share: of all poses.
        flexion, abduction, outward, knee: of the first leg, and of the second where it differs;
            `apart` is the spread (degrees) of a side about what both have.
        lean: of the whole body, to the front; `bend` of the spine on top of it.
        hands: names in `_HANDS` for a hand, or "hold" for both on one thing, with their weights.
        phase: whether legs and arms swing in turn: degrees of the thighs' swing.
    """

    share: float
    flexion: Range = (-6, 8)
    abduction: Range = (0, 9)
    outward: Range = (-8, 16)
    knee: Range = (0, 8)
    second: tuple[Range, Range, Range, Range] | None = None
    apart: float = 4.0
    lean: Range = (-3, 4)
    bend: Range = (-4, 12)
    tilt: float = 4.0
    hands: tuple[tuple[str, float], ...] = (("down", 1.0),)
    phase: Range | None = None


_EVERYDAY = (
    ("down", 0.30), ("pocket", 0.08), ("belly", 0.14), ("hold", 0.12), ("hip", 0.07), ("up", 0.05),
    ("out", 0.05), ("front", 0.05), ("face", 0.05), ("ear", 0.04), ("crossed", 0.04),
    ("back", 0.03), ("nape", 0.01), ("wave", 0.03), ("carry", 0.08),
)  # fmt: skip
_SEATED = (
    ("knee", 0.24), ("belly", 0.22), ("hold", 0.20), ("face", 0.08), ("front", 0.07),
    ("down", 0.05), ("ear", 0.03), ("crossed", 0.03), ("prop", 0.04), ("out", 0.03),
    ("up", 0.03), ("carry", 0.08), ("wave", 0.02),
)  # fmt: skip
_SPORT = (
    ("hold", 0.24), ("out", 0.20), ("front", 0.14), ("up", 0.14), ("down", 0.06), ("belly", 0.12),
    ("wave", 0.08), ("carry", 0.08),
)  # fmt: skip

CLUSTERS: dict[str, Cluster] = {
    "standing": Cluster(share=0.19, hands=_EVERYDAY),
    "resting": Cluster(  # the weight on one leg
        share=0.07, knee=(0, 5), second=((2, 30), (0, 14), (0, 35), (8, 48)), tilt=6.0,
        hands=_EVERYDAY,
    ),
    "astride": Cluster(
        share=0.04, flexion=(-4, 18), abduction=(9, 26), knee=(0, 25), hands=_SPORT,
    ),
    "walking": Cluster(share=0.10, phase=(12, 32), bend=(0, 10), hands=_EVERYDAY),
    "running": Cluster(share=0.06, phase=(28, 58), lean=(2, 18), bend=(0, 14), hands=_SPORT),
    "sitting": Cluster(
        share=0.13, flexion=(68, 104), abduction=(-2, 24), outward=(-10, 20), knee=(50, 115),
        apart=7.0, lean=(-16, 8), bend=(0, 34), hands=_SEATED,
    ),
    "legs crossed": Cluster(  # one thigh over the other
        share=0.02, flexion=(78, 100), abduction=(-4, 4), outward=(-10, 5), knee=(70, 105),
        second=((88, 108), (-16, -8), (0, 20), (50, 95)), lean=(-16, 4), bend=(4, 26),
        hands=_SEATED,
    ),
    "on the floor": Cluster(
        share=0.03, flexion=(75, 115), abduction=(0, 30), outward=(-5, 25), knee=(0, 125),
        apart=12.0, lean=(-22, 10), bend=(4, 34), hands=_SEATED,
    ),
    "cross-legged": Cluster(
        share=0.02, flexion=(80, 98), abduction=(28, 46), outward=(40, 72), knee=(105, 135),
        apart=6.0, lean=(-12, 6), bend=(8, 30), hands=_SEATED,
    ),
    "squatting": Cluster(
        share=0.03, flexion=(80, 125), abduction=(4, 34), outward=(-5, 20), knee=(90, 140),
        apart=7.0, lean=(10, 42), bend=(0, 26), hands=(*_SPORT, ("knee", 0.3)),
    ),
    "crouching": Cluster(  # ski, board, bat, net
        share=0.06, flexion=(15, 70), abduction=(5, 36), outward=(0, 20), knee=(20, 85),
        apart=9.0, lean=(0, 34), bend=(0, 26), tilt=9.0, hands=(*_SPORT, ("knee", 0.1)),
    ),
    "cycling": Cluster(
        share=0.025, flexion=(40, 62), abduction=(0, 8), knee=(35, 60),
        second=((72, 98), (0, 8), (-5, 8), (85, 112)), lean=(14, 40), bend=(4, 24),
        hands=(("hold", 0.4), ("front", 0.6)),
    ),
    "bending": Cluster(
        share=0.04, flexion=(15, 80), knee=(0, 45), abduction=(0, 14), lean=(12, 62),
        bend=(14, 52), hands=(("front", 0.3), ("hold", 0.3), ("knee", 0.25), ("down", 0.15)),
    ),
    "kicking": Cluster(
        share=0.03, flexion=(-18, 8), knee=(0, 28), second=((25, 100), (0, 26), (-5, 25), (0, 95)),
        lean=(-20, 8), tilt=8.0, hands=_SPORT,
    ),
    "lunging": Cluster(
        share=0.04, flexion=(38, 96), knee=(35, 100), second=((-32, 4), (0, 14), (0, 25), (2, 80)),
        lean=(-4, 26), tilt=7.0, hands=_SPORT,
    ),
    "kneeling": Cluster(
        share=0.025, flexion=(-8, 65), knee=(80, 140), abduction=(0, 16), apart=8.0, lean=(-4, 28),
        hands=(*_EVERYDAY, ("front", 0.2)),
    ),
    "jumping": Cluster(
        share=0.025, flexion=(-10, 75), abduction=(0, 35), outward=(-5, 25), knee=(5, 110),
        apart=22.0, lean=(-14, 24), tilt=9.0, hands=_SPORT,
    ),
    "lying": Cluster(
        share=0.03, flexion=(-8, 55), abduction=(0, 22), knee=(0, 75), apart=14.0, tilt=9.0,
        hands=(*_EVERYDAY, ("nape", 0.1), ("up", 0.1)),
    ),
    "any": Cluster(
        share=0.03, flexion=(-25, 105), abduction=(-4, 42), outward=(-10, 30), knee=(0, 125),
        apart=28.0, lean=(-30, 60), bend=(-12, 46), tilt=16.0, 
        hands=tuple((name, 1.0) for name in _HANDS),
    ),
}  # fmt: skip
_NAMES = tuple(CLUSTERS)


@dataclass(frozen=True, kw_only=True)
class Poses:
    """N poses: `rotations (N, J, 3, 3)` for `Human.pose`, and `clusters`, N names."""

    rotations: Tensor
    clusters: tuple[str, ...]


def sample_poses(human: Human, rng: np.random.Generator, count: int) -> Poses:
    """Draw poses; some of them cut into themselves, see `is_possible`."""
    shares = np.array([cluster.share for cluster in CLUSTERS.values()])
    which = np.sort(rng.choice(len(shares), count, p=shares / shares.sum()))
    drawn = [
        _draw(rng, CLUSTERS[_NAMES[i]], int(n))
        for i, n in zip(*np.unique(which, return_counts=True))
    ]
    angles = {key: np.concatenate([part[key] for part in drawn]) for key in drawn[0]}
    lying = which == _NAMES.index("lying")
    turns = _Turns(human, count)
    _turn_trunk(turns, rng, angles, lying)
    for side in (0, 1):
        _turn_leg(human, turns, rng, angles, side)
        _turn_arm(human, turns, rng, angles, side)
    names = np.array(_NAMES)[which]
    order = rng.permutation(count)
    rotations = turns.stacked()[torch.from_numpy(order)]
    return Poses(rotations=rotations, clusters=tuple(str(name) for name in names[order]))


def is_possible(human: Human, keypoints: Tensor) -> Tensor:
    """Return (N,) whether arms stay out of trunk and head, and legs out of each other.

    Args:
        keypoints: (N, K, 3) of `human`.
    """
    k = {name: keypoints[:, i] for i, name in enumerate(human.keypoint_names[:17])}
    hips, neck = ((k[f"left_{n}"] + k[f"right_{n}"]) / 2 for n in ("hip", "shoulder"))
    head = (k["left_ear"] + k["right_ear"]) / 2
    trunk = neck - hips
    size = trunk.norm(dim=-1)
    good = torch.ones(len(keypoints), dtype=torch.bool)
    for side in ("left", "right"):
        for name, gap in (("elbow", 0.27), ("wrist", 0.25)):
            point = k[f"{side}_{name}"]
            along = ((point - hips) * trunk).sum(-1) / size**2
            nearest = hips + along.clamp(-0.15, 1)[:, None] * trunk
            good &= (point - nearest).norm(dim=-1) > gap * size
            good &= (point - head).norm(dim=-1) > 0.24 * size
    for name, gap in (("knee", 0.17), ("ankle", 0.13)):
        good &= (k[f"left_{name}"] - k[f"right_{name}"]).norm(dim=-1) > gap * size
    return good


def _draw(rng: np.random.Generator, cluster: Cluster, count: int) -> dict[str, Array]:
    """Draw the angles (count, 2) of legs, left first, those (count,) of the trunk, and targets of
    the hands (count, 2, 3) with poles of the elbows."""
    first = (cluster.flexion, cluster.abduction, cluster.outward, cluster.knee)
    second = cluster.second or first
    is_same = cluster.second is None
    swap = rng.random(count) < 0.5
    legs = {}
    for name, a, b in zip(("flexion", "abduction", "outward", "knee"), first, second):
        one = rng.uniform(*a, count)
        other = one.copy() if is_same else rng.uniform(*b, count)
        both = np.stack([one, other], 1) + rng.normal(0, cluster.apart, (count, 2))
        legs[name] = np.where(swap[:, None], both[:, ::-1], both)
    poles, targets = _draw_hands(rng, cluster, count)
    if cluster.phase is not None:
        swing = rng.uniform(*cluster.phase, count)
        turn = rng.uniform(0, 2 * np.pi, count)
        for side in (0, 1):
            s, c = np.sin(turn + np.pi * side), np.cos(turn + np.pi * side)
            legs["flexion"][:, side] += swing * s + 0.25 * swing
            lift = rng.uniform(1.2, 2.2, count) * swing * np.maximum(0, c)
            legs["knee"][:, side] += lift + rng.uniform(0, 0.6, count) * swing * np.maximum(0, -s)
            back = np.minimum(0.9, swing / 45) * s * rng.uniform(0.5, 1.2, count)
            free = rng.random(count) < 0.6
            bent = np.clip(swing / 60 + rng.normal(0, 0.12, count), 0.1, 0.9)
            swung = np.stack([0.14 + 0 * s, 0.6 * back - 0.25 * bent, -0.95 + 0.4 * bent], 1)
            targets[free, side] = swung[free] + rng.normal(0, 0.06, (free.sum(), 3))
            poles[free, side] = (0.3, 1.0, 0.0)
    return {
        **legs, "targets": targets, "poles": poles,
        "lean": rng.uniform(*cluster.lean, count), "bend": rng.uniform(*cluster.bend, count),
        "tilt": rng.normal(0, cluster.tilt, count),
    }  # fmt: skip


def _draw_hands(rng: np.random.Generator, cluster: Cluster, count: int) -> tuple[Array, Array]:
    """Return poles and targets (count, 2, 3)."""
    names = [name for name, _ in cluster.hands]
    weights = np.array([weight for _, weight in cluster.hands])
    one, two = (rng.choice(len(names), count, p=weights / weights.sum()) for _ in range(2))
    alike = rng.random(count) < 0.55
    styles = np.stack([one, np.where(alike, one, two)], 1)
    poles, targets = np.empty((count, 2, 3)), np.empty((count, 2, 3))
    for i, name in enumerate(names):
        use = styles == i
        mean, spread, pole = _HANDS["belly" if name == "hold" else name]
        targets[use] = np.array(mean) + rng.normal(size=(use.sum(), 3)) * spread
        poles[use] = np.array(pole) + rng.normal(0, 0.25, (use.sum(), 3))
    if "hold" in names:
        both = (styles == names.index("hold")).any(1)
        middle = np.array([0, -0.55, -0.30]) + rng.normal(size=(both.sum(), 3)) * _HOLD_SPREAD
        gap = rng.uniform(-0.05, 0.25, both.sum())
        for side, sign in ((0, 1), (1, -1)):
            point = middle.copy()
            point[:, 0] = sign * middle[:, 0] - 0.36 + gap  # the shoulder is so far from the middle
            targets[both, side] = point
    return poles, targets


class _Turns:
    """The rotations (N, 3, 3) of some bones; all others stay at rest."""

    def __init__(self, human: Human, count: int) -> None:
        self.human, self.count = human, count
        self.of: dict[str, Tensor] = {}

    def about(self, axis: tuple[float, float, float] | Array, degrees: Array) -> Tensor:
        unit = torch.from_numpy(np.broadcast_to(axis, (self.count, 3)).astype(np.float32))
        return rotation(unit, torch.from_numpy(np.radians(degrees).astype(np.float32)))

    def stacked(self) -> Tensor:
        still = torch.eye(3).expand(self.count, 3, 3)
        return torch.stack([self.of.get(name, still) for name in self.human.bone_names], 1)


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _turn_trunk(
    turns: _Turns, rng: np.random.Generator, angles: dict[str, Array], lying: NDArray[np.bool_]
) -> None:
    n = turns.count
    lean, bend, tilt = angles["lean"], angles["bend"], angles["tilt"]
    twist = rng.normal(0, 9, n) + 0.8 * tilt
    for name in ("spine05", "spine04", "spine03", "spine02", "spine01"):
        turn = turns.about(_X, bend / 5) @ turns.about(_Y, tilt / 5) @ turns.about(_Z, twist / 5)
        turns.of[name] = turn
    down = rng.random(n) < 0.3
    nod = rng.normal(2, 11, n) - rng.uniform(0.2, 0.8, n) * (lean + bend - 10).clip(0)
    nod = np.clip(nod + down * rng.uniform(5, 35, n), -45, 45)
    yaw = np.clip(rng.normal(0, 26, n), -70, 70)
    for name in ("neck01", "neck02", "neck03", "head"):
        turn = turns.about(_X, nod / 4) @ turns.about(_Y, rng.normal(0, 7, n) / 2)
        turns.of[name] = turn @ turns.about(_Z, yaw / 4)
    root = turns.about(_X, lean) @ turns.about(_Y, rng.normal(0, 3, n) + 0.4 * tilt)
    flat = np.where(rng.random(n) < 0.65, -90, 90) + rng.normal(0, 9, n)
    on_side = np.where(rng.random(n) < 0.4, rng.normal(0, 45, n), 0)
    laid = turns.about(_X, flat) @ turns.about(_Z, on_side)
    turns.of["root"] = torch.where(torch.from_numpy(lying)[:, None, None], laid, root)


def _turn_leg(
    human: Human, turns: _Turns, rng: np.random.Generator, angles: dict[str, Array], side: int
) -> None:
    n, end, sign = turns.count, "LR"[side], 1 - 2 * side
    flexion, abduction, outward, knee = (
        angles[name][:, side] for name in ("flexion", "abduction", "outward", "knee")
    )
    hip, ankle = (human.heads[human.bone(f"{name}.{end}")] for name in ("upperleg01", "foot"))
    apart = math.degrees(math.atan2(abs(float(ankle[0] - hip[0])), float(hip[2] - ankle[2])))
    abduction = abduction - apart  # the legs are apart at rest
    knee = knee.clip(0, 145)
    thigh = turns.about((-1, 0, 0), flexion.clip(-35, 130))
    thigh = thigh @ turns.about((0, -sign, 0), abduction) @ turns.about((0, 0, sign), outward)
    turns.of[f"upperleg01.{end}"] = thigh
    turns.of[f"lowerleg01.{end}"] = turns.about(_X, knee)
    pointed = rng.normal(0, 9, n) + (rng.random(n) < 0.3) * (knee > 50) * rng.uniform(0, 35, n)
    foot = turns.about(_X, pointed) @ turns.about((0, 0, sign), rng.normal(3, 6, n))
    turns.of[f"foot.{end}"] = foot


def _turn_arm(
    human: Human, turns: _Turns, rng: np.random.Generator, angles: dict[str, Array], side: int
) -> None:
    """Bend the arm so that the wrist is at its target: law of cosines, elbow towards its pole."""
    n, end, sign = turns.count, "LR"[side], 1 - 2 * side
    joints = [human.heads[human.bone(f"{name}.{end}")].double().numpy()
              for name in ("upperarm01", "lowerarm01", "wrist")]  # fmt: skip
    upper, lower = joints[1] - joints[0], joints[2] - joints[1]
    a, b = np.linalg.norm(upper), np.linalg.norm(lower)
    upper, lower = upper / a, lower / b
    hinge = _unit(np.cross(upper, lower))
    mirror = np.array([sign, 1, 1])
    target = angles["targets"][:, side] * mirror * (a + b)
    far = np.linalg.norm(target, axis=1, keepdims=True)
    along = target / far
    reach = far[:, 0].clip(0.34 * (a + b), 0.985 * (a + b))
    pole = angles["poles"][:, side] * mirror
    across = _unit(pole - (pole * along).sum(1, keepdims=True) * along)
    cosine = ((a**2 + reach**2 - b**2) / (2 * a * reach)).clip(-1, 1)[:, None]
    elbow = a * (cosine * along + np.sqrt(1 - cosine**2) * across)
    u, f = elbow / a, _unit(reach[:, None] * along - elbow)
    axis = _unit(np.cross(u, f))
    before = np.stack([upper, hinge, np.cross(upper, hinge)], 1)
    after = np.stack([u, axis, np.cross(u, axis)], 2)  # (N, 3, 3), columns
    turns.of[f"upperarm01.{end}"] = torch.from_numpy((after @ before.T).astype(np.float32))
    bent = np.degrees(np.arccos((u * f).sum(1).clip(-1, 1)) - np.arccos(upper @ lower))
    turns.of[f"lowerarm01.{end}"] = turns.about(hinge, bent)
    turns.of[f"lowerarm02.{end}"] = turns.about(lower, rng.normal(0, 32, n))
    raised = (along[:, 2] + 0.3).clip(0) * 16 * rng.uniform(0.5, 1.3, n)
    clavicle = turns.about((0, -sign, 0), raised) @ turns.about(
        (0, 0, -sign), 9 * (-along[:, 1]).clip(0)
    )
    turns.of[f"clavicle.{end}"] = clavicle
    wrist = turns.about(hinge, rng.normal(0, 20, n)) @ turns.about(_Y, rng.normal(0, 10, n))
    turns.of[f"wrist.{end}"] = wrist
    _curl(human, turns, rng, end)


def _curl(human: Human, turns: _Turns, rng: np.random.Generator, end: str) -> None:
    """Close the fingers together, each a little differently."""
    heads = {name: human.heads[i].double().numpy() for i, name in enumerate(human.bone_names)}
    steps = [heads[f"finger3-{i + 1}.{end}"] - heads[f"finger3-{i}.{end}"] for i in (1, 2)]
    axis = _unit(np.cross(steps[0], steps[1]))
    closed = np.where(rng.random(turns.count) < 0.4, rng.uniform(-5, 20, turns.count),
                      rng.uniform(10, 78, turns.count))  # fmt: skip
    for finger in (2, 3, 4, 5):
        own = closed * rng.uniform(0.75, 1.1, turns.count)
        for joint in (1, 2, 3):
            turns.of[f"finger{finger}-{joint}.{end}"] = turns.about(axis, own)
    for joint in (2, 3):
        turns.of[f"finger1-{joint}.{end}"] = turns.about(axis, 0.4 * closed)


def _unit(vector: Array) -> Array:
    unit: Array = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    return unit
