"""How well a detector finds people, and what that costs a pose model: any folder of images with
COCO annotations.

    python benchmarks/find_people.py hrnet_s_192x144.bodies --detector bodies \\
        --annotations test_coco.json --images coco --sheet found.png

"found" counts annotated people, crowds left out, with a box of their own that overlaps theirs by
more than half (IoU), of all of them and of the large ones, whose longer side is a quarter of the
photo's or more. "false" counts the boxes left, but for those on a crowd. AP and AP50 are of the
poses, in the boxes found.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou

import posezoo
from posezoo.detectors import DETECTORS, PeopleFinder
from posezoo.detectors.bodies import BODIES_THRESHOLD
from posezoo.draw import draw_poses
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.images import load_image

LARGE = 0.25
_LEAST = 0.05  # AP counts boxes of all scores


def find(finder: PeopleFinder, images: Path, names: list[str]) -> list[Any]:
    """Return the boxes and scores of each image."""
    return [finder.find([load_image(images / name)])[0] for name in names]


def count(content: dict[str, Any], found: dict[int, Any], threshold: float) -> dict[str, int]:
    """Compare boxes of images, by id, with the annotated ones; the best boxes choose first."""
    rows = {"people": 0, "found": 0, "large": 0, "large found": 0, "false": 0}
    for image in content["images"]:
        boxes, scores = found[image["id"]]
        kept = torch.from_numpy(boxes[scores >= threshold]).float().reshape(-1, 4)
        annotated = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        own = torch.tensor([a["bbox"] for a in annotated], dtype=torch.float32).reshape(-1, 4)
        own = torch.cat([own[:, :2], own[:, :2] + own[:, 2:]], 1)
        crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in annotated], dtype=torch.bool)
        longer = (own[:, 2:] - own[:, :2]).amax(1) / max(image["height"], image["width"])
        is_large = (longer >= LARGE) & ~crowd
        is_found = torch.zeros(len(own), dtype=torch.bool)
        for overlap in box_iou(own, kept).T:
            free = torch.where(is_found | crowd, 0, overlap)
            if len(own) and free.max() > 0.5:
                is_found[free.argmax()] = True
            else:
                rows["false"] += not bool((overlap[crowd] > 0.5).any())
        rows["people"] += int((~crowd).sum())
        rows["found"] += int(is_found.sum())
        rows["large"] += int(is_large.sum())
        rows["large found"] += int((is_found & is_large).sum())
    return rows


def average_precision(name: str, content: Path, images: Path, found: Any) -> dict[str, float]:
    """Score the poses in the boxes found with the package's own evaluation."""
    model = posezoo.create_model(name, pretrained=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "annotations").mkdir()
        (folder / "val2017").symlink_to(images.resolve())
        (folder / "annotations" / "person_keypoints_val2017.json").symlink_to(content.resolve())
        rows = [
            {"image_id": key, "category_id": 1, "score": float(score),
             "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))]}
            for key, (boxes, scores) in found.items() for box, score in zip(boxes, scores)
        ]  # fmt: skip
        (folder / "found.json").write_text(json.dumps(rows))
        settings = EvaluationSettings(boxes=folder / "found.json", flip_test=True)
        record = evaluate_model(model, folder, settings, RunOptions(device="cpu"))
    assert record is not None
    return {key: float(record.statistics[key]) for key in ("AP", "AP50")}


def draw(name: str, images: Path, names: list[str], boxes: list[Any], file: Path) -> None:
    """Write a sheet of the photos with the poses found, four to a row."""
    predictor = posezoo.PosePredictor(name, device="cpu", flip_test=True)
    sheet = Image.new("RGB", (4 * 400, -(-len(names) // 4) * 320))
    for i, (image, found) in enumerate(zip(names, boxes)):
        pixels = load_image(images / image)
        poses = predictor(pixels, found) if len(found) else None
        drawn = pixels if poses is None else np.asarray(draw_poses(pixels, poses, threshold=0.05))
        tile = Image.fromarray(drawn)
        tile.thumbnail((400, 320))
        sheet.paste(tile, (i % 4 * 400, i // 4 * 320))
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="architecture.tag of a COCO model")
    parser.add_argument("--detector", choices=list(DETECTORS), default="bodies")
    parser.add_argument(
        "--threshold", type=float, default=BODIES_THRESHOLD, help="of what is counted and drawn"
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO's form")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="PNG of the poses to write")
    args = parser.parse_args()
    for path in (args.annotations, args.images, (args.sheet or args.images).parent):
        if not path.exists():
            parser.error(f"{path} does not exist")
    if posezoo.get_pretrained_cfg(args.model).dataset != "coco":
        parser.error(f"{args.model} does not find the 17 keypoints of COCO")
    content = json.loads(args.annotations.read_text())
    names = [image["file_name"] for image in content["images"]]
    rows = find(PeopleFinder(args.detector, threshold=_LEAST), args.images, names)
    found = dict(zip([image["id"] for image in content["images"]], rows))
    numbers: dict[str, float] = dict(count(content, found, args.threshold))
    numbers |= average_precision(args.model, args.annotations, args.images, found)
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))
    if args.sheet:
        kept = [boxes[scores >= args.threshold] for boxes, scores in rows]
        draw(args.model, args.images, names, kept, args.sheet)


if __name__ == "__main__":
    main()
