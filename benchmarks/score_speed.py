"""Time COCO keypoint scoring: pycocotools' COCOeval against posezoo's, on made-up people.

Both score the same results in the same process and must agree. Prints a table and, as the last
line, JSON; exit code 1 if a number differs by more than 1e-12.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.metadata
import io
import json
import platform
import sys
import time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posezoo.evaluation import FastCOCOeval, evaluate_coco
from posezoo.skeletons import get_skeleton

TOLERANCE = 1e-12


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="number of images")
    parser.add_argument("--results", type=int, default=100_000, help="number of result rows")
    parser.add_argument("--seed", type=int, default=0, help="seed of the made-up people")
    args = parser.parse_args()
    ground_truth, results = make_people(args.images, args.results, args.seed)

    times: dict[str, dict[str, float]] = {}
    runs = {}
    for name, scorer in (("pycocotools", COCOeval), ("posezoo", FastCOCOeval)):
        runs[name], times[name] = score(scorer, ground_truth, results)
    start = time.perf_counter()
    stats = evaluate_coco(ground_truth, results, get_skeleton("coco"))
    times["posezoo.evaluate_coco"] = {"everything": time.perf_counter() - start}
    differences = {
        "curves": max(
            float(np.abs(runs["pycocotools"].eval[key] - runs["posezoo"].eval[key]).max())
            for key in ("precision", "recall", "scores")
        ),
        "evaluate_coco": float(
            np.abs(list(stats.to_dict().values())[:10] - runs["pycocotools"].stats).max()
        ),
    }
    report(times, differences, args)
    return int(max(differences.values()) > TOLERANCE)


def make_people(images: int, count: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations of 2.2 people per image and results, most of them near a person."""
    rng = np.random.default_rng(seed)
    people = round(2.2 * images)
    image_ids = rng.integers(0, images, people) + 1
    heights = np.exp(rng.uniform(np.log(20), np.log(400), people))
    corners = rng.uniform(0, 300, (people, 2))
    boxes = np.stack([*corners.T, heights * 0.5, heights], axis=1)
    points = corners[:, None] + rng.random((people, 17, 2)) * boxes[:, None, 2:]
    flags = rng.choice([0, 1, 2], (people, 17), p=[0.3, 0.1, 0.6])
    flags[rng.random(people) < 0.4] = 0  # 6352 of the 11004 people of val2017 have keypoints
    crowds = rng.random(people) < 0.02
    annotations = [
        {
            "id": i + 1,
            "image_id": int(image_ids[i]),
            "category_id": 1,
            "iscrowd": int(crowds[i]),
            "bbox": boxes[i].tolist(),
            "area": float(heights[i] ** 2 * 0.3),
            "num_keypoints": int((flags[i] > 0).sum()),
            "keypoints": np.concatenate([points[i], flags[i, :, None]], 1).ravel().tolist(),
        }
        for i in range(people)
    ]
    person = rng.integers(0, people, count)
    spread = heights[person, None, None] * rng.choice([0.01, 0.03, 0.1, 1.0], (count, 1, 1))
    found = points[person] + spread * rng.standard_normal((count, 17, 2))
    keypoints = np.concatenate([found, rng.random((count, 17, 1))], axis=2).reshape(count, -1)
    scores = rng.random(count).round(4)  # rounded, so that some are equal
    results = [
        {"image_id": i, "category_id": 1, "keypoints": k, "score": s}
        for i, k, s in zip(image_ids[person].tolist(), keypoints.tolist(), scores.tolist())
    ]
    content = {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    return content, results


def score(
    scorer: type[COCOeval], ground_truth: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[COCOeval, dict[str, float]]:
    """Run one scorer; return it with the seconds of each stage."""
    truth, rows = COCO(), copy.deepcopy(results)  # pycocotools writes into what it is given
    times = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = copy.deepcopy(ground_truth)
        start = time.perf_counter()
        truth.createIndex()
        evaluation = scorer(truth, truth.loadRes(rows), "keypoints")
        times["load"] = time.perf_counter() - start
        for stage in ("evaluate", "accumulate", "summarize"):
            start = time.perf_counter()
            getattr(evaluation, stage)()
            times[stage] = time.perf_counter() - start
    times["everything"] = sum(times.values())
    return evaluation, times


def report(
    times: dict[str, dict[str, float]], differences: dict[str, float], args: argparse.Namespace
) -> None:
    columns = ("load", "evaluate", "accumulate", "everything")
    print(f"{args.images} images, {args.results} results; seconds")
    print(f"{'':24}" + "".join(f"{column:>12}" for column in columns))
    for name, row in times.items():
        cells = (f"{row[column]:12.2f}" if column in row else f"{'':12}" for column in columns)
        print(f"{name:24}" + "".join(cells))
    print(f"largest difference: {max(differences.values()):g}")
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pycocotools")}
    machine = {"python": platform.python_version(), "processor": platform.machine(), **versions}
    print(
        json.dumps(
            {"arguments": vars(args), "seconds": times, "differences": differences, **machine}
        )
    )


if __name__ == "__main__":
    sys.exit(main())
