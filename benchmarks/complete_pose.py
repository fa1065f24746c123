"""Hide keypoints of a pose, fill them in from PCT's token space, draw before and after.

    python benchmarks/complete_pose.py --checkpoint swin_base.pth --hide left_wrist right_knee
    python benchmarks/complete_pose.py photo.jpg poses.json --checkpoint swin_base.pth

The person is a rendered one, or the first of a photo with what `posezoo predict --out` wrote.
Without a checkpoint the tokenizer is random: all runs, but the points filled in mean nothing.
The last line printed is JSON: the 34 tokens and the completed pose in image pixels.
"""

from __future__ import annotations

import argparse
import json
import sys
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

SKELETON = posezoo.get_skeleton("coco")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", type=Path, help="photo (default: a rendered person)")
    parser.add_argument("poses", nargs="?", type=Path, help="JSON of `posezoo predict` for it")
    parser.add_argument("--model", default="pct_tokenizer_swin_base", help="a tokenizer")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: random ones)")
    parser.add_argument(
        "--hide",
        nargs="+",
        default=["left_elbow", "left_wrist", "right_knee"],
        choices=SKELETON.keypoint_names,
        metavar="NAME",
        help="keypoints to hide (default: left_elbow left_wrist right_knee)",
    )
    parser.add_argument("--out", type=Path, default=Path("complete.png"), help="PNG to write")
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


@torch.inference_mode()
def complete(
    model: Any, image: np.ndarray, keypoints: np.ndarray, box: np.ndarray, visible: torch.Tensor
) -> tuple[np.ndarray, list[int]]:
    """Completed keypoints (17, 2) in image pixels, and the tokens."""
    cfg = model.pretrained_cfg.input
    center, size = boxes_to_center_size(box[None], cfg.size, cfg.bbox_padding, cfg.geometry)
    frame = (center, size, cfg.size, cfg.geometry)
    points = image_to_input(torch.from_numpy(keypoints)[None].float(), *frame)  # input pixels
    features = None
    if model.image_guided:
        crop = TopDownCrop(cfg.size, cfg.mean, cfg.std)
        crops = crop(torch.from_numpy(np.ascontiguousarray(image)), crop_matrices(*frame))
        features = model.forward_features(crops)
    ids = model.encode(points, visible, features)
    completed = model.complete(points, visible, features)
    return input_to_image(completed, *frame)[0].numpy(), ids[0].tolist()


def draw(
    image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, box: np.ndarray
) -> np.ndarray:
    result = posezoo.PoseResult(
        keypoints=keypoints[None],
        keypoint_scores=scores[None],
        bboxes=box[None],
        bbox_scores=np.ones(1),
        skeleton=SKELETON,
        image_size=image.shape[:2],
    )
    return np.asarray(draw_poses(image, result, threshold=0.5))


def main() -> int:
    args = parse()
    model = posezoo.create_model(args.model, checkpoint=args.checkpoint)
    if args.checkpoint is None:
        print("no checkpoint: random weights, the points filled in mean nothing", file=sys.stderr)
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
