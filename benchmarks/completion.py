"""How far hidden keypoints are filled in from where they are, against a mean pose.

    python benchmarks/completion.py rendered
    python benchmarks/completion.py coco --checkpoint mine.safetensors

The poses are those of the validation people of a folder in COCO's layout, distances are in pixels
of the 256x256 crop. Beside the tokens is the mean training pose, moved, scaled (and turned) to
the visible keypoints by least squares. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from complete_pose import MODEL, SKELETON, frame_of

import posezoo
from posezoo.errors import PoseZooError
from posezoo.geometry import image_to_input

LIMBS = {
    "left arm": ("left_elbow", "left_wrist"),
    "right leg": ("right_knee", "right_ankle"),
    "both legs": ("left_knee", "left_ankle", "right_knee", "right_ankle"),
}


def read_people(model: Any, data: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, 17) in input pixels, as x + iy, and which are labelled: at least five."""
    file = data / "annotations" / f"person_keypoints_{split}2017.json"
    rows = [row for row in json.loads(file.read_text())["annotations"] if not row["iscrowd"]]
    keypoints = np.array([row["keypoints"] for row in rows], float).reshape(-1, 17, 3)
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    points = image_to_input(torch.from_numpy(keypoints[..., :2]), *frame_of(model, boxes)).numpy()
    labelled = keypoints[..., 2] > 0
    enough = labelled.sum(1) >= 5
    return points[enough] @ [1, 1j], labelled[enough]


def fit(source: np.ndarray, target: np.ndarray, weights: np.ndarray, turn: bool) -> np.ndarray:
    """Move, scale (and turn) poses (N, 17) as closely as possible to others, by least squares."""
    weights = weights / weights.sum(1, keepdims=True)
    centers = [(weights * pose).sum(1, keepdims=True) for pose in (source, target)]
    source, goal = source - centers[0], target - centers[1]
    factor = (weights * source.conj() * goal).sum(1, keepdims=True)
    factor = factor if turn else np.maximum(factor.real, 0)
    return source * factor / (weights * abs(source) ** 2).sum(1, keepdims=True) + centers[1]


def mean_pose(poses: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Mean (1, 17) of poses that are aligned to it."""
    mean = (poses * labelled).sum(0) / labelled.sum(0)
    for _ in range(10):
        aligned = fit(poses, mean[None].repeat(len(poses), 0), labelled, turn=True)
        mean = (aligned * labelled).sum(0) / labelled.sum(0)
    return mean[None]


def hidden_sets(labelled: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What to hide, (N, 17): none, some at random, limbs; of people who keep four keypoints."""
    order = np.where(labelled, np.random.default_rng(0).random(labelled.shape), 2.0)
    order = order.argsort(1).argsort(1)
    for count in (0, 1, 3, 5, 8):
        enough = labelled.sum(1, keepdims=True) >= count + 4
        yield f"{count} of 17", (order < count) & enough
    for what, names in LIMBS.items():
        hidden = labelled & np.isin(SKELETON.keypoint_names, names)
        yield what, hidden & ((labelled & ~hidden).sum(1, keepdims=True) >= 4)


@torch.inference_mode()
def measure(model: Any, data: Path) -> dict[str, dict[str, float]]:
    """Mean distances in pixels by what is hidden; where nothing is, those of all keypoints."""
    mean = mean_pose(*read_people(model, data, "train"))
    poses, labelled = read_people(model, data, "val")
    points = torch.view_as_real(torch.from_numpy(poses)).float()
    rows = {}
    for what, hidden in hidden_sets(labelled):
        shown = labelled & ~hidden
        asked = hidden if rows else labelled  # the first set hides nothing
        if not asked.any():
            continue
        found = {
            "tokens": model(points, torch.from_numpy(shown)).keypoints.double().numpy() @ [1, 1j],
            "mean pose": fit(mean, poses, shown, turn=False),
            "mean pose, turned": fit(mean, poses, shown, turn=True),
        }
        rows[what] = {k: float(abs(v - poses)[asked].mean()) for k, v in found.items()}
        rows[what]["keypoints"] = int(asked.sum())
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in COCO's layout")
    parser.add_argument(
        "--model", default=MODEL, help="a tokenizer without image guidance (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: pretrained ones)")
    args = parser.parse_args()
    fetch = args.checkpoint is None
    model = posezoo.create_model(args.model, checkpoint=args.checkpoint, pretrained=fetch)
    rows = measure(model, args.data)
    for what, row in rows.items():
        print(f"{what:10s}" + "".join(f"  {k} {round(v, 1):5}" for k, v in row.items()))
    print(json.dumps({"model": args.model, "pixels": rows}))


if __name__ == "__main__":
    try:
        main()
    except (PoseZooError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: error: {error}")
