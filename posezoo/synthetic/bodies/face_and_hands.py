"""The keypoints of faces and hands that the source of the body does not name.

Joints of fingers are the heads of their bones. The 68 points of a face (300-W, arXiv 1603.00775)
were picked on the mean body, looking at it from the front and from the side; a point that is not
a vertex moves with the corners of its triangle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_face_and_hands"]

Array = NDArray[np.float64]

# x (to the left), y (to the back), z (up) of the left half of a face in millimetres
_JAW = ((71, -66, 800), (70, -68, 783), (68, -72, 766), (63, -80, 748), (56, -90, 731),
        (47, -103, 716), (35, -118, 705), (19, -132, 697), (0, -140, 694))  # fmt: skip
_BROW = ((13, -153, 819), (24, -153, 823), (35, -147, 824), (45, -143, 821), (52, -135, 814))
_BRIDGE = ((0, -151, 806), (0, -154, 795), (0, -162, 783), (0, -170, 770))
_NOSTRILS = ((0, -163, 757), (8, -157, 759), (15, -155, 762))
_EYE = ((16, -143, 801), (26, -145, 808), (36, -145, 808), (44, -137, 803),
        (36, -142, 800), (26, -143, 799))  # fmt: skip
_LIPS = ((0, -162, 743), (6, -161, 744), (16, -156, 740), (25, -147, 733), (17, -152, 726),
         (8, -154, 723), (0, -156, 722))  # fmt: skip
_MOUTH = ((0, -157, 736), (8, -156, 736), (22, -148, 734), (8, -154, 734), (0, -156, 734))
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def add_face_and_hands(body: dict[str, Any], influences: int) -> dict[str, Any]:
    """Return the arrays of a baked body with 100 more keypoints behind those it has.

    Args:
        body: what `bake` writes, in its units.
        influences: bones per point.
    """
    vertices, points = sum(body["counts"][:3]), sum(body["counts"])
    mean = body["mean"].astype(np.float64)
    bones = [str(name) for name in body["bones"]]
    skin = np.zeros((points, len(bones)))
    np.put_along_axis(skin, body["influences"].astype(np.int64), body["weights"] / 65535, axis=1)
    names: list[str] = []
    rows: list[Array] = []  # shares of the points and of the heads of bones, (points + bones,)
    weights: list[Array] = []
    faces = body["faces"][body["part_of_face"] == 0].astype(np.int64)
    for i, (x, y, z) in enumerate(_face()):
        target = np.array([x, y, z]) * 10.0  # tenths of a millimetre
        corners, shares = _nearest(mean[:vertices][faces], target)
        row = np.zeros(points + len(bones))
        row[faces[corners]] = shares
        names.append(f"face-{i}")
        rows.append(row)
        weights.append(row[:points] @ skin)
    for name, bone in _joints():
        row = np.zeros(points + len(bones))
        row[points + bones.index(bone)] = 1
        names.append(name)
        rows.append(row)
        weights.append(np.eye(len(bones))[bones.index(bone)])
    mix, known = np.stack(rows), len(body["keypoint_names"])
    order = np.argsort(-np.stack(weights), axis=1, kind="stable")[:, :influences]
    kept = np.take_along_axis(np.stack(weights), order, axis=1)
    scaled = np.round(65535 * kept / kept.sum(axis=1, keepdims=True))
    added = {
        "influences": order, "weights": scaled, "keypoint_names": names,
        "keypoint_of_point": known + np.arange(len(names)), "keypoint_share": np.ones(len(names)),
    }  # fmt: skip
    joined = {
        key: np.concatenate([body[key], np.asarray(value).astype(body[key].dtype)])
        if key != "keypoint_names" else np.array([*body[key], *names])
        for key, value in added.items()
    }  # fmt: skip
    basis = body["basis"].astype(np.float64)
    more = np.round(mix @ mean), np.round(np.einsum("pq,cqi->cpi", mix, basis))
    counts = np.array(body["counts"]) + [0, 0, 0, len(names)]
    return {
        **body, **joined, "counts": counts.astype(np.int32),
        "mean": np.insert(body["mean"], points, more[0], axis=0),
        "basis": np.insert(body["basis"], points, more[1].transpose(1, 0, 2), axis=1),
    }  # fmt: skip


def _face() -> list[tuple[int, int, int]]:
    """Return the 68 points from the person's right to the left, as they are numbered."""

    def mirrored(points: Any) -> list[tuple[int, int, int]]:
        return [(-x, y, z) for x, y, z in points]

    right_eye = mirrored(_EYE)
    return [
        *mirrored(_JAW[:8]), *_JAW[::-1],
        *mirrored(_BROW[::-1]), *_BROW, *_BRIDGE,
        *mirrored(_NOSTRILS[:0:-1]), *_NOSTRILS,
        *right_eye[3::-1], right_eye[5], right_eye[4], *_EYE,
        *mirrored(_LIPS[3:0:-1]), *_LIPS, *mirrored(_LIPS[5:3:-1]),
        *mirrored(_MOUTH[2:0:-1]), *_MOUTH, *mirrored(_MOUTH[3:4]),
    ]  # fmt: skip


def _joints() -> list[tuple[str, str]]:
    """Return the joints of both hands but for the tips, each with its bone."""
    found = []
    for side in ("left", "right"):
        end = side[0].upper()
        found.append((f"{side}_hand_root", f"wrist.{end}"))
        for i, finger in enumerate(_FINGERS):
            found += [(f"{side}_{finger}{j}", f"finger{i + 1}-{j}.{end}") for j in (1, 2, 3)]
    return found


def _nearest(triangles: Array, target: Array) -> tuple[int, Array]:
    """Return which triangle (T, 3, 3) is nearest to a point, and the shares of its corners."""
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    away = target - triangles[:, 0]
    a, b, c = ((p * q).sum(1) for p, q in ((first, first), (first, second), (second, second)))
    d, e = (away * first).sum(1), (away * second).sum(1)
    whole = np.maximum(a * c - b * b, 1e-9)
    u, v = (c * d - b * e) / whole, (a * e - b * d) / whole
    shares = np.stack([1 - u - v, u, v], 1).clip(0)
    shares /= shares.sum(axis=1, keepdims=True)
    gaps = np.linalg.norm((shares[..., None] * triangles).sum(1) - target, axis=1)
    best = int(gaps.argmin())
    return best, shares[best]
