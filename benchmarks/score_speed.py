"""Time COCO keypoint scoring: pycocotools against posezoo, on made-up people.

    pip install pycocotools
    python benchmarks/score_speed.py
    python benchmarks/score_speed.py --wholebody

Both score the same results in the same process and must agree; whole body is scored by
pycocotools part by part, with a set of annotations and results for each. Times are CPU seconds
of this process. Prints a table and, as the last line, JSON; exit code 1 if a number differs by
more than 1e-12.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import platform
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posezoo.evaluation import evaluate_coco, evaluate_wholebody
from posezoo.skeletons import Skeleton, get_skeleton

TOLERANCE = 1e-12
STATISTICS = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    parser.add_argument("--results", type=int, default=100_000, help="number of result rows")
    parser.add_argument("--wholebody", action="store_true", help="133 keypoints in six parts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the made-up people")
    args = parser.parse_args()
    skeleton = get_skeleton("coco_wholebody" if args.wholebody else "coco")
    truth, results = make_people(skeleton, args.images, args.results, args.seed)

    seconds: dict[str, float] = {}
    start = time.process_time()
    if args.wholebody:
        found = evaluate_wholebody(truth, results, skeleton).to_dict()["parts"]
        spans = {**skeleton.parts, "whole": (0, skeleton.num_keypoints)}
    else:
        found = {"body": evaluate_coco(truth, results, skeleton).to_dict()}
        spans = dict(skeleton.parts)
    seconds["posezoo"] = time.process_time() - start
    differences = {}
    for part, span in spans.items():
        theirs = score(truth, results, skeleton, span, seconds)
        ours = [found[part][name] for name in STATISTICS]
        differences[part] = float(np.abs(np.array(ours) - theirs).max())
    report(seconds, differences, args)
    return int(max(differences.values()) > TOLERANCE)


def make_people(
    skeleton: Skeleton, images: int, count: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations of 2.2 people per image and results, most of them near a person."""
    rng = np.random.default_rng(seed)
    people, k = round(2.2 * images), skeleton.num_keypoints
    image_ids = rng.integers(0, images, people) + 1
    heights = np.exp(rng.uniform(np.log(20), np.log(400), people))
    corners = rng.uniform(0, 300, (people, 2))
    boxes = np.stack([*corners.T, heights * 0.5, heights], axis=1)
    points = corners[:, None] + rng.random((people, k, 2)) * boxes[:, None, 2:]
    flags = rng.choice([0, 1, 2], (people, k), p=[0.3, 0.1, 0.6])
    flags[rng.random(people) < 0.4] = 0  # 6352 of the 11004 people of val2017 have keypoints
    for first, last in list(skeleton.parts.values())[2:]:
        flags[rng.random(people) < 0.5, first:last] = 0  # faces and hands are rarer
    crowds = rng.random(people) < 0.02
    annotations = [
        {
            "id": i + 1, "image_id": int(image_ids[i]), "category_id": 1,
            "iscrowd": int(crowds[i]), "bbox": boxes[i].tolist(),
            "area": float(heights[i] ** 2 * 0.3),
            "num_keypoints": int((flags[i, slice(*skeleton.parts["body"])] > 0).sum()),
            **fields(skeleton, np.concatenate([points[i], flags[i, :, None]], axis=1)),
        }
        for i in range(people)
    ]  # fmt: skip
    person = rng.integers(0, people, count)
    spread = heights[person] * rng.choice([0.01, 0.03, 0.1, 1.0], count)
    scores = rng.random(count).round(4)  # rounded, so that some are equal
    results = []
    for i in range(count):
        found = points[person[i]] + spread[i] * rng.standard_normal((k, 2))
        row = fields(skeleton, np.concatenate([found, rng.random((k, 1))], axis=1))
        image_id = int(image_ids[person[i]])
        results.append({"image_id": image_id, "category_id": 1, "score": float(scores[i]), **row})
    content = {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    return content, results


def fields(skeleton: Skeleton, points: np.ndarray) -> dict[str, list[float]]:
    """The keypoint fields of a row, from `(K, 3)`."""
    return {
        field: points[first:last].ravel().tolist()
        for field, (first, last) in skeleton.coco_fields.items()
    }


def part_of(skeleton: Skeleton, row: Mapping[str, Any], span: tuple[int, int]) -> dict[str, Any]:
    """A copy of a row with the keypoints of a part alone."""
    whole = [value for field in skeleton.coco_fields for value in row[field]]
    return {**row, "keypoints": whole[3 * span[0] : 3 * span[1]]}


def area_of_body(keypoints: list[float]) -> float:
    """The area of the box around the body's keypoints, which is that of a detection."""
    x, y = keypoints[0::3], keypoints[1::3]
    return (max(x) - min(x)) * (max(y) - min(y))


def score(
    truth: dict[str, Any], results: list[dict[str, Any]], skeleton: Skeleton,
    span: tuple[int, int], seconds: dict[str, float],
) -> np.ndarray:  # fmt: skip
    """Score a part with pycocotools; add its time to `seconds`."""
    people = [part_of(skeleton, row, span) for row in truth["annotations"]]
    for person in people:
        person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
    rows = [part_of(skeleton, row, span) for row in results]
    areas = [area_of_body(row["keypoints"]) for row in results]
    coco = COCO()
    coco.dataset = {**truth, "annotations": people}
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = coco.loadRes(rows)
        for annotation, area in zip(found.dataset["annotations"], areas):
            annotation["area"] = area
        evaluation = COCOeval(coco, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas[slice(*span)])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    seconds["pycocotools"] = seconds.get("pycocotools", 0) + time.process_time() - start
    return np.array(evaluation.stats)


def report(
    seconds: dict[str, float], differences: dict[str, float], args: argparse.Namespace
) -> None:
    print(f"{args.images} images, {args.results} results; CPU seconds, loading included")
    for name, value in seconds.items():
        print(f"{name:24}{value:12.2f}")
    print(f"largest difference: {max(differences.values()):g}")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pycocotools")}
    machine = {"python": platform.python_version(), "processor": platform.machine(), **versions}
    print(json.dumps({"arguments": vars(args), "seconds": seconds, "differences": differences,
                      **machine}))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
