"""A made data set, networks quick enough to run them many times, and `evaluate` for short.

Also a script: `python -m evaluation.made DATA OUT` evaluates it, alone or under torchrun.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import posezoo
from posezoo.evaluation import EvaluationRecord, EvaluationSettings, RunOptions, evaluate_model
from posezoo.zoo.model import PoseModel, ZooModel

RUN_FIELDS = {field.name for field in dataclasses.fields(RunOptions)}
DETECTIONS = "COCO_val2017_detections_AP_H_56_person.json"
ANNOTATIONS = "annotations/person_keypoints_val2017.json"


class Brightest(PoseModel):
    """Keypoint k sits on the brightest spot of colour channel k % 3."""

    def __init__(self, name: str = "uniformer_s_256x192") -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg(name)
        self.num_keypoints = self.pretrained_cfg.skeleton.num_keypoints

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.avg_pool2d(images.float(), 4)  # (B, 3, h, w)
        return maps.repeat(1, 6, 1, 1)[:, : self.num_keypoints] + 3


def make_coco(folder: Path, images: int = 40, seed: int = 0, shuffle: bool = False) -> Path:
    """Noise pictures with annotated people and detections, under COCO's file names."""
    rng = np.random.default_rng(seed)
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    detections = []
    (folder / "val2017").mkdir(parents=True, exist_ok=True)
    for i in range(1, images + 1):
        height, width = rng.integers(60, 140, 2).tolist()
        name = f"{i:012d}.jpg"
        picture = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(picture).save(folder / "val2017" / name)
        truth["images"].append({"id": i, "file_name": name, "width": width, "height": height})
        for _ in range(int(rng.integers(1, 3))):
            box = [*rng.uniform(0, 20, 2), *rng.uniform(30, 60, 2)]
            points = np.column_stack([*rng.uniform(0, 60, (2, 17)), np.full(17, 2)])
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": 1,
                 "iscrowd": 0, "area": 2000.0, "bbox": box, "num_keypoints": 17,
                 "keypoints": points.ravel().tolist()}
            )  # fmt: skip
            for _ in range(int(rng.integers(1, 4))):
                shifted = (np.array(box) + rng.uniform(-3, 3, 4)).tolist()
                score = float(rng.uniform(0.01, 1))
                detections.append(
                    {"image_id": i, "category_id": 1, "bbox": shifted, "score": score}
                )
    if shuffle:
        order = np.random.default_rng(1)
        truth["images"] = [truth["images"][i] for i in order.permutation(images)]
        detections = [detections[i] for i in order.permutation(len(detections))]
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / ANNOTATIONS).write_text(json.dumps(truth))
    (folder / DETECTIONS).write_text(json.dumps(detections))
    return folder


def evaluate(model: ZooModel, data: Path, **options: Any) -> EvaluationRecord | None:
    """Call `evaluate_model` on the CPU with fields of settings and run options."""
    settings = {name: value for name, value in options.items() if name not in RUN_FIELDS}
    run = {name: value for name, value in options.items() if name in RUN_FIELDS}
    return evaluate_model(
        model, data, EvaluationSettings(**settings), RunOptions(device="cpu", **run)
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, target = map(Path, sys.argv[1:])
    print("scored" if evaluate(Brightest(), folder, out=target, resume=True) else "shared")
