"""Hide keypoints of a pose, fill them in from PCT's token space, draw before and after.

    python benchmarks/complete_pose.py --hide left_wrist right_knee
    python benchmarks/complete_pose.py photo.jpg poses.json --model pct_tokenizer_swin_base
    python benchmarks/complete_pose.py --measure rendered

The person is a rendered one, or the first of a photo with what `posezoo predict --out` wrote.
The weights are those in the package, made from rendered people, unless others are named.

--measure prints how far hidden keypoints of the validation people of a folder in COCO's layout
are filled in from where they are, in pixels of the 256x256 crop, beside the mean training pose
moved, scaled (and turned) to the visible ones by least squares. The last line is JSON.
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
from PIL import Image

import posezoo
from posezoo.draw import draw_poses
from posezoo.evaluation.synthetic import render_scene
from posezoo.geometry import boxes_to_center_size, crop_matrices, image_to_input, input_to_image
from posezoo.transforms import TopDownCrop, load_image

MODEL = "pct_tokenizer_swin_base_woimgguide.rendered"
SKELETON = posezoo.get_skeleton("coco")
LIMBS = {
    "left arm": ("left_elbow", "left_wrist"),
    "right leg": ("right_knee", "right_ankle"),
    "both legs": ("left_knee", "left_ankle", "right_knee", "right_ankle"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", type=Path, help="photo (default: a rendered person)")
    parser.add_argument("poses", nargs="?", type=Path, help="JSON of `posezoo predict` for it")
    parser.add_argument("--model", default=MODEL, help="a tokenizer (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: pretrained ones)")
    parser.add_argument(
        "--hide", nargs="+", default=["left_elbow", "left_wrist", "right_knee"], metavar="NAME",
        choices=SKELETON.keypoint_names, help="default: left_elbow left_wrist right_knee",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("complete.png"), help="PNG to write")
    parser.add_argument("--measure", type=Path, metavar="DATA", help="folder in COCO's layout")
    args = parser.parse_args()
    if (args.image is None) != (args.poses is None):
        parser.error("give both a photo and its poses, or neither")
    return args


def load_person(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3), keypoints (17, 2) in image pixels, box (4,) xyxy."""
    if args.image is None:
        scene = render_scene(43, (360, 300), people=1)  # all in sight
        return scene.image, scene.keypoints[0, :, :2], scene.bboxes[0]
    person = json.loads(args.poses.read_text())[0]["persons"][0]
    return load_image(args.image), np.array(person["keypoints"]), np.array(person["bbox"])


def frame_of(model: Any, boxes: np.ndarray) -> tuple[Any, ...]:
    """What `image_to_input` wants to know of boxes (N, 4)."""
    cfg = model.pretrained_cfg.input
    place = boxes_to_center_size(boxes, cfg.size, cfg.bbox_padding, cfg.geometry)
    return (*place, cfg.size, cfg.geometry)


@torch.inference_mode()
def complete(
    model: Any, image: np.ndarray, keypoints: np.ndarray, box: np.ndarray, visible: torch.Tensor
) -> tuple[np.ndarray, list[int]]:
    """Completed keypoints (17, 2) in image pixels, and the tokens."""
    cfg, frame = model.pretrained_cfg.input, frame_of(model, box[None])
    points = image_to_input(torch.from_numpy(keypoints)[None].float(), *frame)  # input pixels
    features = None
    if model.image_guided:
        crop = TopDownCrop(cfg.size, cfg.mean, cfg.std)
        crops = crop(torch.from_numpy(np.ascontiguousarray(image)), crop_matrices(*frame))
        features = model.forward_features(crops)
    ids = model.encode(points, visible, features)
    completed = model.complete(points, visible, features)
    return input_to_image(completed, *frame)[0].numpy(), ids[0].tolist()


def draw(image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, box: np.ndarray) -> Any:
    result = posezoo.PoseResult(
        keypoints=keypoints[None],
        keypoint_scores=scores[None],
        bboxes=box[None],
        bbox_scores=np.ones(1),
        skeleton=SKELETON,
        image_size=image.shape[:2],
    )
    return np.asarray(draw_poses(image, result, threshold=0.5))


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
        asked = hidden if hidden.any() else labelled
        found = {
            "tokens": model(points, torch.from_numpy(shown)).keypoints.double().numpy() @ [1, 1j],
            "mean pose": fit(mean, poses, shown, turn=False),
            "mean pose, turned": fit(mean, poses, shown, turn=True),
        }
        rows[what] = {k: float(abs(v - poses)[asked].mean()) for k, v in found.items()}
        rows[what]["keypoints"] = int(asked.sum())
    return rows


def main() -> int:
    args = parse()
    fetch = args.checkpoint is None
    model = posezoo.create_model(args.model, checkpoint=args.checkpoint, pretrained=fetch)
    if args.measure:
        rows = measure(model, args.measure)
        for what, row in rows.items():
            print(f"{what:10s}" + "".join(f"  {k} {round(v, 1):5}" for k, v in row.items()))
        print(json.dumps({"model": args.model, "pixels": rows}))
        return 0
    image, keypoints, box = load_person(args)
    visible = torch.tensor([[name not in args.hide for name in SKELETON.keypoint_names]])
    completed, ids = complete(model, image, keypoints, box, visible)
    before = draw(image, keypoints, visible[0].numpy(), box)
    after = draw(image, completed, np.ones(SKELETON.num_keypoints), box)
    Image.fromarray(np.concatenate([before, after], axis=1)).save(args.out)
    for name in args.hide:
        index = SKELETON.keypoint_names.index(name)
        x, y = completed[index]
        away = float(np.linalg.norm(completed[index] - keypoints[index]))
        print(f"{name:15s} ({x:7.1f}, {y:7.1f})  {away:6.1f} pixels from where it was")
    print(f"drew {args.out}: before, after")
    print(json.dumps({"model": args.model, "ids": ids, "keypoints": completed.tolist()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
