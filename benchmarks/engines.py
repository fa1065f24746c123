"""The predictor on each engine: how far keypoints are from torch's, and the time per person.

    python benchmarks/engines.py
    python benchmarks/engines.py hrnet_xs_128x96 vitpose_b_simple_256x192 --rounds 7 --threads 2

One variant per family by default, on a rendered picture whose one person is given several times, in
boxes that differ. Engines take turns in every round, so that whatever else the machine does hits
all alike; times are the shortest of the rounds, wall and of the process. Packaged weights are used
where there are any, else random ones, whose flat heatmaps make keypoints jump: then look at the
network's output, the largest difference as a share of its spread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import posezoo
from posezoo import PosePredictor
from posezoo.device import autocast
from posezoo.errors import PoseZooError
from posezoo.synthetic.scene import render_scene

FAMILIES = (
    "hrnet_xs_128x96", "tokenpose_xs_128x96", "uniformer_s_256x192", "tcformer_mta_256x192",
    "pct_swin_base", "tmpose_b_256x192", "vitpose_b_simple_256x192",
)  # fmt: skip
ENGINES = (
    ("torch", "float32"), ("torch", "bfloat16"), ("onnxruntime", "float32"),
    ("openvino", "float32"), ("openvino", "bfloat16"),
)  # fmt: skip
COLUMNS = (
    "model", "weights", "engine", "dtype", "open s", "ms/person", "CPU ms/person", "pixels",
    "of spread",
)  # fmt: skip


def picture(people: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) and boxes (N, 4) around its person, two pixels apart."""
    scene = render_scene(0, (480, 640), people=1)
    boxes = np.stack([scene.bboxes[0] + 2 * i for i in range(people)])
    return scene.image, boxes.clip(0, [639, 479, 639, 479])


def cases_of(name: str, photo: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
    """Return a row per engine: its predictor, and what that and its network put out."""
    torch.manual_seed(0)
    packaged = posezoo.get_pretrained_cfg(name).source.packaged is not None
    model = posezoo.create_model(name, pretrained=packaged)
    images = torch.randn(2, 3, *model.pretrained_cfg.input.size)
    rows: list[dict[str, Any]] = []
    for engine, dtype in ENGINES:
        start = time.perf_counter()
        try:
            predictor = PosePredictor(
                model, detector=None, engine=engine, dtype=dtype, flip_test=False
            )
        except PoseZooError as error:
            print(f"{name} on {engine}, {dtype}: {error}", file=sys.stderr)
            continue
        row = {"model": name, "weights": "packaged" if packaged else "random", "engine": engine}
        row |= {"dtype": dtype, "open s": round(time.perf_counter() - start, 1)}
        with torch.inference_mode(), autocast(predictor.device, predictor.dtype):
            output = predictor.model(images)
        output = output if isinstance(output, torch.Tensor) else output[0]
        row |= {"predictor": predictor, "output": output.float(), "times": []}
        rows.append(row | {"keypoints": predictor(photo, boxes).keypoints})
    return rows


def compare(rows: list[dict[str, Any]], photo: np.ndarray, boxes: np.ndarray, rounds: int) -> None:
    """Time all engines of a model in turn, and compare each with the first."""
    for _ in range(rounds):
        for row in rows:
            wall, cpu = time.perf_counter(), time.process_time()
            row["predictor"](photo, boxes)
            row["times"].append((time.perf_counter() - wall, time.process_time() - cpu))
    first = rows[0]["output"], rows[0]["keypoints"]
    for row in rows:
        wall, cpu = (min(times) * 1e3 / len(boxes) for times in zip(*row.pop("times")))
        row |= {"ms/person": round(wall, 2), "CPU ms/person": round(cpu, 2)}
        distance = np.linalg.norm(row.pop("keypoints") - first[1], axis=-1).max()
        share = (row.pop("output") - first[0]).abs().max() / first[0].std()
        row |= {"pixels": float(f"{distance:.2g}"), "of spread": float(f"{share:.2g}")}
        del row["predictor"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=FAMILIES, help="pose models")
    parser.add_argument("--people", type=int, default=8, help="boxes (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    photo, boxes = picture(args.people)
    rows: list[dict[str, Any]] = []
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for name in args.names:
        found = cases_of(name, photo, boxes)
        compare(found, photo, boxes, args.rounds)
        for row in found:
            print("| " + " | ".join(str(row[c]) for c in COLUMNS) + " |", flush=True)
        rows += found
    record = {"command": " ".join(sys.argv), "rows": rows, "machine": platform.machine()}
    record |= {"threads": args.threads, "torch": torch.__version__, "load": os.getloadavg()}
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
