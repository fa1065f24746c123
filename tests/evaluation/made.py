"""A made data set and a network quick enough to run it many times.

Also a script: `python -m evaluation.made DATA OUT [BATCH]` evaluates it, alone or under torchrun.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import posezoo


class Brightest(nn.Module):
    """Keypoint k sits on the brightest spot of colour channel k % 3."""

    def __init__(self, name: str = "uniformer_s_256x192") -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = posezoo.get_pretrained_cfg(name)
        self.num_keypoints = posezoo.get_skeleton(self.pretrained_cfg.dataset).num_keypoints

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.avg_pool2d(images.float(), 4)  # (B, 3, h, w)
        return maps.repeat(1, 6, 1, 1)[:, : self.num_keypoints] + 3


def make_coco(folder: Path, images: int = 40, seed: int = 0, shuffle: bool = False) -> Path:
    """Noise pictures with annotated people and detections, under COCO's file names."""
    chance = np.random.default_rng(seed)
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    detections = []
    (folder / "val2017").mkdir(parents=True, exist_ok=True)
    for i in range(1, images + 1):
        height, width = chance.integers(60, 140, 2).tolist()
        name = f"{i:012d}.jpg"
        picture = chance.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(picture).save(folder / "val2017" / name)
        truth["images"].append({"id": i, "file_name": name, "width": width, "height": height})
        for _ in range(int(chance.integers(1, 3))):
            box = [*chance.uniform(0, 20, 2), *chance.uniform(30, 60, 2)]
            points = np.column_stack([*chance.uniform(0, 60, (2, 17)), np.full(17, 2)])
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": 1,
                 "iscrowd": 0, "area": 2000.0, "bbox": box, "num_keypoints": 17,
                 "keypoints": points.ravel().tolist()}
            )  # fmt: skip
            for _ in range(int(chance.integers(1, 4))):
                shifted = (np.array(box) + chance.uniform(-3, 3, 4)).tolist()
                score = float(chance.uniform(0.01, 1))
                detections.append(
                    {"image_id": i, "category_id": 1, "bbox": shifted, "score": score}
                )
    if shuffle:
        order = np.random.default_rng(1)
        truth["images"] = [truth["images"][i] for i in order.permutation(images)]
        detections = [detections[i] for i in order.permutation(len(detections))]
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations/person_keypoints_val2017.json").write_text(json.dumps(truth))
    name = "COCO_val2017_detections_AP_H_56_person.json"
    (folder / name).write_text(json.dumps(detections))
    return folder


def main(data: str, out: str, batch: str = "7") -> None:
    from posezoo.evaluation.entry import evaluate_model

    torch.set_num_threads(1)
    record = evaluate_model(
        Brightest(), Path(data), out=Path(out), batch_size=int(batch), device="cpu", resume=True
    )
    print("scored" if record else "shared")


if __name__ == "__main__":
    main(*sys.argv[1:])
