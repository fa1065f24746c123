"""Hide keypoints of a pose, fill them in from PCT's token space, draw before and after.

    python benchmarks/complete_pose.py --hide left_wrist right_knee
    python benchmarks/complete_pose.py photo.jpg poses.json --model pct_tokenizer_swin_base

The person is a rendered one, or the first of a photo with what `posezoo predict --out` wrote.
The weights are those in the package, made from rendered people, unless others are named.
The last line is JSON.
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
from posezoo.errors import DataError, PoseZooError
from posezoo.geometry import boxes_to_center_size, crop_matrices, image_to_input, input_to_image
from posezoo.synthetic import render_scene
from posezoo.transforms import TopDownCrop, load_image

MODEL = "pct_tokenizer_swin_base_woimgguide.rendered"
SKELETON = posezoo.get_skeleton("coco")


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
    args = parser.parse_args()
    if (args.image is None) != (args.poses is None):
        parser.error("give both a photo and its poses, or neither")
    if posezoo.get_pretrained_cfg(args.model).task != "tokenizer":
        parser.error(f"{args.model} is no tokenizer; {posezoo.list_models(task='tokenizer')} are")
    return args


def load_person(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3), keypoints (17, 2) in image pixels, box (4,) xyxy."""
    if args.image is None:
        scene = render_scene(43, (360, 300), people=1)  # all in sight
        return scene.image, scene.keypoints[0, :, :2], scene.bboxes[0]
    try:
        person = json.loads(args.poses.read_text())[0]["persons"][0]
        keypoints, box = np.array(person["keypoints"], float), np.array(person["bbox"], float)
        return load_image(args.image), keypoints.reshape(17, 2), box.reshape(4)
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{args.poses} holds no 17 keypoints and box: {error!r}") from error


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


def main() -> None:
    args = parse()
    fetch = args.checkpoint is None
    model = posezoo.create_model(args.model, checkpoint=args.checkpoint, pretrained=fetch)
    image, keypoints, box = load_person(args)
    visible = torch.tensor([[name not in args.hide for name in SKELETON.keypoint_names]])
    completed, ids = complete(model, image, keypoints, box, visible)
    scores = visible[0].numpy(), np.ones(SKELETON.num_keypoints)
    pair = [draw(image, *shown, box) for shown in zip((keypoints, completed), scores)]
    Image.fromarray(np.concatenate(pair, axis=1)).save(args.out)
    for index in (~visible[0]).nonzero()[:, 0]:
        name, (x, y) = SKELETON.keypoint_names[index], completed[index]
        away = np.hypot(*(completed[index] - keypoints[index]))
        print(f"{name:15s} ({x:7.1f}, {y:7.1f})  {away:6.1f} pixels from where it was")
    print(f"drew {args.out}: before, after")
    print(json.dumps({"model": args.model, "ids": ids, "keypoints": completed.tolist()}))


if __name__ == "__main__":
    try:
        main()
    except (PoseZooError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: error: {error}")
