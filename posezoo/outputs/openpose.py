"""OpenPose's JSON: a file per frame, for Pose2Sim and other readers of that layout.

Points are BODY_25 with hands (21 each) and face (70), each x, y, score, 0 where the skeleton has
no such point. The order is that of OpenPose's documentation of its output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import write_text, writing
from ..results import PoseResult
from ..skeletons import Skeleton
from ..streaming.found import FrameResult
from .sink import Sink

__all__ = ["OpenPoseFolder", "openpose_file"]

_BODY_25: tuple[tuple[str, ...], ...] = (  # several names: their middle
    ("nose",), ("left_shoulder", "right_shoulder"),
    ("right_shoulder",), ("right_elbow",), ("right_wrist",),
    ("left_shoulder",), ("left_elbow",), ("left_wrist",),
    ("left_hip", "right_hip"),
    ("right_hip",), ("right_knee",), ("right_ankle",),
    ("left_hip",), ("left_knee",), ("left_ankle",),
    ("right_eye",), ("left_eye",), ("right_ear",), ("left_ear",),
    ("left_big_toe",), ("left_small_toe",), ("left_heel",),
    ("right_big_toe",), ("right_small_toe",), ("right_heel",),
)  # fmt: skip
_PUPILS = (range(36, 42), range(42, 48))  # of 68 face points; OpenPose adds their middles


class OpenPoseFolder(Sink):
    """A file per photo, `street_keypoints.json`, or per frame of a film.

    Frames go into a folder per film, `clip_json/clip_000000000012_keypoints.json`, as Pose2Sim
    reads those of a camera.

    Args:
        stems: path of each source without ending, below the output folder.
        skeleton: of the model.

    Raises:
        InputError: the skeleton has none of OpenPose's body points.
    """

    def __init__(self, stems: Mapping[str, Path], skeleton: Skeleton) -> None:
        self.stems = stems
        self.body = _indices(skeleton)
        if not any(self.body):
            raise InputError(
                f"the skeleton {skeleton.name!r} has none of OpenPose's points; use .jsonl or .csv"
            )
        self.parts = {part: slice(*span) for part, span in skeleton.parts.items()}

    def write(self, frames: Sequence[FrameResult]) -> None:
        for found in frames:
            if found.result is None:
                continue
            path = openpose_file(self.stems[found.source], found.index)
            with writing(path):
                write_text(path, json.dumps(self.content(found.result)) + "\n")

    def content(self, result: PoseResult) -> dict[str, Any]:
        """Return what OpenPose would write for one image."""
        points = np.concatenate([result.keypoints, result.keypoint_scores[..., None]], axis=2)
        points = np.where(np.isfinite(points).all(axis=2, keepdims=True), points, 0)  # (N, K, 3)
        people = []
        for i, person in enumerate(points.astype(np.float64)):
            part = {name: person[span] for name, span in self.parts.items()}
            face = part.get("face", np.zeros((0, 3)))
            if len(face):
                face = np.concatenate([face, [_middle(face, list(eye)) for eye in _PUPILS]])
            people.append({
                "person_id": [-1 if result.ids is None else int(result.ids[i])],
                "pose_keypoints_2d": _flat(np.array([_middle(person, j) for j in self.body])),
                "face_keypoints_2d": _flat(face),
                "hand_left_keypoints_2d": _flat(part.get("left_hand", face[:0])),
                "hand_right_keypoints_2d": _flat(part.get("right_hand", face[:0])),
                "pose_keypoints_3d": [],
                "face_keypoints_3d": [],
                "hand_left_keypoints_3d": [],
                "hand_right_keypoints_3d": [],
            })  # fmt: skip
        return {"version": 1.3, "people": people}


def openpose_file(stem: Path, index: int | None) -> Path:
    """Return the file of a photo, or of a frame of a film, by the path without an ending."""
    if index is None:
        return stem.with_name(f"{stem.name}_keypoints.json")
    return stem.with_name(f"{stem.name}_json") / f"{stem.name}_{index:012d}_keypoints.json"


def _indices(skeleton: Skeleton) -> list[list[int]]:
    """Return for each BODY_25 point the keypoints whose middle it is, none where one is missing."""
    index = {name: i for i, name in enumerate(skeleton.keypoint_names)}
    return [
        [index[n] for n in names] if all(n in index for n in names) else [] for names in _BODY_25
    ]


def _middle(person: NDArray[np.float64], indices: list[int]) -> NDArray[np.float64]:
    """Return the mean point (3,) with the lowest score; zeros if there is none or one has 0."""
    if not indices:
        return np.zeros(3)
    chosen = person[indices]
    score = chosen[:, 2].min()
    return np.append(chosen[:, :2].mean(axis=0), score) if score > 0 else np.zeros(3)


def _flat(points: NDArray[np.float64]) -> list[float]:
    values: list[float] = points.round(4).reshape(-1).tolist()
    return values
