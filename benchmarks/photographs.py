"""How well a model finds people in photographs: any folder of images with COCO annotations.

    python benchmarks/photographs.py hrnet_s_192x144.bodies \\
        --annotations test_coco.json --images coco
    python benchmarks/photographs.py run/best/model.safetensors --architecture hrnet_s_192x144 \\
        --mpii test_mpii.json --images mpii --sheet poses.png

Boxes are the annotated ones. AP and AP50 are COCO's; OKS is the mean over people; "near" is the
share of keypoints within a tenth of the longer side of the box. "half right from" is the score
from which on at least half of the keypoints are near. MPII has joints of its own, so only the 12
that COCO has too count there, and no AP is given. A whole-body model gets AP by part from
COCO-WholeBody's annotations; its OKS and near are those of the 17 keypoints of the body.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import posezoo
from posezoo.datasets.descriptors import pose_set_of
from posezoo.draw import draw_poses
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.predictor import PosePredictor
from posezoo.skeletons import COCO_17, MPII_16

Array = NDArray[np.float64]
SHARED = [name for name in COCO_17.keypoint_names if name in MPII_16.keypoint_names]


def load_model(name: str, architecture: str | None) -> Any:
    """Return a registered model with its weights, or an architecture filled from a file."""
    if architecture is None:
        return posezoo.create_model(name, pretrained=True)
    model = posezoo.create_model(architecture)
    posezoo.load_checkpoint(model, name)
    return model


def coco_people(annotations: Path) -> list[dict[str, Any]]:
    """Return the people with labelled keypoints: image, box xyxy, keypoints (17, 3), area."""
    content = json.loads(annotations.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    people = []
    for row in content["annotations"]:
        if row.get("iscrowd", 0) or not row.get("num_keypoints", 0):
            continue
        x, y, w, h = row["bbox"]
        points = np.array(row["keypoints"], float).reshape(-1, 3)
        people.append({"image": names[row["image_id"]], "box": [x, y, x + w, y + h],
                       "keypoints": points, "area": row["area"]})  # fmt: skip
    return people


def mpii_people(annotations: Path) -> list[dict[str, Any]]:
    """Return the same for MPII's form; the box is that of the joints, a little larger."""
    people = []
    for row in json.loads(annotations.read_text()):
        joints = np.array(row["joints"], float) - 1
        there = np.array(row["joints_vis"]) > 0
        low, high = joints[there].min(axis=0), joints[there].max(axis=0)
        grown = 0.1 * (high - low).max()
        points = np.zeros((17, 3))
        for name in SHARED:
            k, m = COCO_17.keypoint_names.index(name), MPII_16.keypoint_names.index(name)
            points[k] = [*joints[m], 2 * there[m]]
        box = [*(low - grown), *(high + grown)]
        area = 0.6 * (box[2] - box[0]) * (box[3] - box[1])
        people.append({"image": row["image"], "box": box, "keypoints": points, "area": area})
    return people


def find(model: Any, people: list[dict[str, Any]], images: Path) -> Array:
    """Return the keypoints (P, 17, 3) of bodies found in the boxes: x, y, score."""
    predictor = PosePredictor(model, device="cpu", flip_test=True)
    found = []
    for person in people:
        picture = np.asarray(Image.open(images / person["image"]).convert("RGB"))
        result = predictor(picture, np.array([person["box"]]))
        points = np.concatenate([result.keypoints[0], result.keypoint_scores[0][:, None]], 1)
        found.append(points[:17])
    return np.stack(found)


def summarise(people: list[dict[str, Any]], found: Array) -> dict[str, float]:
    """Return OKS, the share of near keypoints, and the score from which half are near."""
    sigmas = np.array(COCO_17.sigmas)
    similarity, near, scores = [], [], []
    for person, points in zip(people, found):
        known = person["keypoints"][:, 2] > 0
        distance = np.linalg.norm(points[:, :2] - person["keypoints"][:, :2], axis=1)
        falloff = distance**2 / (2 * person["area"] * (2 * sigmas) ** 2)
        similarity.append(np.exp(-falloff)[known].mean())
        box = np.array(person["box"])
        near += (distance < 0.1 * (box[2:] - box[:2]).max())[known].tolist()
        scores += points[known, 2].tolist()
    order = np.argsort(scores)[::-1]
    hits = np.array(near)[order].astype(float)
    window = np.convolve(np.pad(hits, 12, mode="edge"), np.ones(25) / 25, "valid")
    below = np.flatnonzero(window < 0.5)
    limit = np.array(scores)[order][below[0]] if len(below) else min(scores)
    return {"people": len(people), "OKS": float(np.mean(similarity)), "near": float(np.mean(near)),
            "half right from": float(limit)}  # fmt: skip


def average_precision(model: Any, annotations: Path, images: Path) -> dict[str, float]:
    """Score with the package's own evaluation, in a folder laid out as COCO is."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "annotations").mkdir()
        (folder / "val2017").symlink_to(images.resolve())
        target = folder / "annotations" / pose_set_of(model.pretrained_cfg).val.annotations[0]
        target.symlink_to(annotations.resolve())
        settings, run = EvaluationSettings(boxes="gt", flip_test=True), RunOptions(device="cpu")
        record = evaluate_model(model, folder, settings, run)
    assert record is not None
    return {k: float(v) for k, v in record.statistics.items() if k.endswith(("AP", "AP50"))}


def draw(model: Any, people: list[dict[str, Any]], images: Path, file: Path) -> None:
    """Write a sheet of the people with the poses found, eight to a row."""
    predictor = PosePredictor(model, device="cpu", flip_test=True)
    tiles = []
    for person in people:
        picture = Image.open(images / person["image"]).convert("RGB")
        box = np.array(person["box"])
        center, half = (box[:2] + box[2:]) / 2, 0.65 * (box[2:] - box[:2]).max()
        corners = np.concatenate([center - half, center + half]).round().astype(int).tolist()
        zoom = 240 / (corners[2] - corners[0])
        crop = picture.crop(corners).resize((240, 240))
        inside = (box.reshape(2, 2) - corners[:2]).reshape(-1) * zoom
        pixels = np.asarray(crop)
        tiles.append(
            np.asarray(draw_poses(pixels, predictor(pixels, inside[None]), threshold=0.05))
        )
    rows = -(-len(tiles) // 8)
    sheet = Image.new("RGB", (8 * 240, rows * 240))
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (i % 8 * 240, i // 8 * 240))
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="architecture.tag, or a file of weights")
    parser.add_argument("--architecture", help="of a file of weights")
    parser.add_argument("--annotations", type=Path, help="COCO's form")
    parser.add_argument("--mpii", type=Path, help="MPII's form")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="PNG of the poses to write")
    args = parser.parse_args()
    if (args.annotations is None) == (args.mpii is None):
        parser.error("give one of --annotations and --mpii")
    model = load_model(args.model, args.architecture)
    people = coco_people(args.annotations) if args.annotations else mpii_people(args.mpii)
    numbers = summarise(people, find(model, people, args.images))
    if args.annotations:
        numbers |= average_precision(model, args.annotations, args.images)
    if args.sheet:
        draw(model, people, args.images, args.sheet)
    print(json.dumps({name: round(value, 4) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
