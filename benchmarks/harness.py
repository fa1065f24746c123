"""Where the time of an evaluation run goes.

    python benchmarks/harness.py uniformer_s_256x192 --images 300 --boxes 20
    python benchmarks/harness.py uniformer_s_256x192 --engine openvino --dtype bfloat16

Makes a data set of JPEGs with person boxes, measures each stage on its own, then a plain loop that
reads the image once per box and runs one crop at a time, then a whole run of `posezoo eval`. What
is outside the network there is what the harness costs. Times are CPU seconds of one thread in
torch, wall seconds on CUDA and of another engine, which needs an idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

import posezoo
from posezoo.evaluation import EvaluationSettings, RunOptions, evaluate_model
from posezoo.evaluation.tasks import CocoTask
from posezoo.geometry import crop_matrices, input_to_image
from posezoo.inflight import halves
from posezoo.transforms import load_image

DETECTIONS = "COCO_val2017_detections_AP_H_56_person.json"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="pose model with 17 keypoints")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--boxes", type=int, default=20, help="boxes per image")
    parser.add_argument("--loop", type=int, default=40, help="boxes of the plain loop")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engine", help="torch (default), onnxruntime or openvino")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images")
    return parser.parse_args()


def make_data(folder: Path, images: int, boxes: int) -> None:
    """COCO-sized smooth noise, which JPEG packs like photographs, with boxes all over."""
    rng = np.random.default_rng(0)
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    detections, files = [], []
    for _ in range(min(images, 100)):  # further images are copies
        noise, file = rng.integers(0, 255, (480, 640, 3), np.uint8), BytesIO()
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    for i in range(1, images + 1):
        name = f"{i:012d}.jpg"
        (folder / "val2017" / name).write_bytes(files[i % len(files)])
        truth["images"].append({"id": i, "file_name": name, "width": 640, "height": 480})
        points = np.column_stack([*rng.uniform(100, 300, (2, 17)), np.full(17, 2)])
        truth["annotations"].append(
            {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 20000.0,
             "bbox": [100, 100, 200, 200], "num_keypoints": 17,
             "keypoints": points.ravel().tolist()}
        )  # fmt: skip
        for _ in range(boxes):
            box = [*rng.uniform(0, 300, 2), *rng.uniform(40, 180, 2)]
            found = {"image_id": i, "category_id": 1, "bbox": box}
            detections.append(found | {"score": float(rng.uniform())})
    (folder / "annotations/person_keypoints_val2017.json").write_text(json.dumps(truth))
    (folder / DETECTIONS).write_text(json.dumps(detections))


def stopwatch(device: torch.device, engine: str | None) -> Callable[[], float]:
    """CPU seconds (other programs do not count), wall time of an engine and, in step, of CUDA."""
    if device.type != "cuda":
        return time.perf_counter if engine else time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


class NetworkTime:
    """Seconds that a model spends in its forward; on CUDA by events, which wait for nothing."""

    def __init__(self, model: torch.nn.Module, device: torch.device, engine: str | None) -> None:
        self.cuda = device.type == "cuda"
        # the threads that read do not count, those of an engine do
        self.clock = time.perf_counter if engine else time.thread_time
        self.starts: list[Any] = []
        self.ends: list[Any] = []
        self.hooks = (
            model.register_forward_pre_hook(lambda *_: self.starts.append(self.mark())),
            model.register_forward_hook(lambda *_: self.ends.append(self.mark())),
        )

    def mark(self) -> Any:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        return self.clock()

    def stop(self) -> float:
        for hook in self.hooks:
            hook.remove()
        if not self.cuda:
            return sum(self.ends) - sum(self.starts)
        torch.cuda.synchronize()
        return sum(a.elapsed_time(b) for a, b in zip(self.starts, self.ends)) / 1e3


@torch.inference_mode()
def stages(task: CocoTask, count: int, now: Callable[[], float]) -> dict[str, float]:
    """Seconds per box of each stage, measured one after the other on `count` images."""
    predictor, samples = task.predictor, task.samples[:count]
    spent = dict.fromkeys(("read", "warp", "network", "decode"), 0.0)
    for sample in samples:
        start = now()
        image = load_image(sample.path)
        spent["read"] += now() - start
        start = now()
        request = predictor.request(image, sample.bboxes)
        size, geometry = predictor.cfg.input.size, predictor.cfg.input.geometry
        matrices = crop_matrices(request.centers, request.box_sizes, size, geometry)
        crops = predictor.crop(torch.from_numpy(image).to(predictor.device), matrices)
        spent["warp"] += now() - start
        start = now()
        batches = crops.split(predictor.batch_size)
        outputs = [predictor.model(torch.cat([x, x.flip(-1)])) for x in batches]
        spent["network"] += now() - start
        start = now()
        merged = [predictor.codec.merge_flip(*halves(o, len(x))) for o, x in zip(outputs, batches)]
        points = torch.cat([predictor.codec.decode(output)[0] for output in merged])
        input_to_image(points, request.centers, request.box_sizes, size, geometry).cpu()
        spent["decode"] += now() - start
    boxes = sum(len(s.bboxes) for s in samples)
    return {stage: seconds / boxes for stage, seconds in spent.items()}


def plain_loop(task: CocoTask, count: int, now: Callable[[], float]) -> float:
    """Seconds per box of the obvious way: one box, one image, one forward at a time."""
    predictor = posezoo.PosePredictor(task.predictor.model, batch_size=1)
    boxes = [(s, b) for s in task.samples for b in s.bboxes][:count]
    start = now()
    for sample, box in boxes:
        predictor(sample.path, box[None])
    return (now() - start) / len(boxes)


def main() -> None:
    args = parse()
    model = posezoo.create_model(args.name)
    if args.engine:
        model = posezoo.optimize(model, engine=args.engine, dtype=args.dtype)
    device = torch.device(args.device)
    torch.set_num_threads(1)
    now = stopwatch(device, args.engine)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        make_data(data, args.images, args.boxes)
        predictor = posezoo.PosePredictor(model, device=device)
        files = (data / "annotations/person_keypoints_val2017.json", data)
        task = CocoTask(predictor, *files, data / DETECTIONS)
        parts = stages(task, max(1, min(args.images, 10)), now)
        loop = plain_loop(task, args.loop, now)
        inside = NetworkTime(model, device, args.engine)
        start = now()
        record = evaluate_model(
            model, data, EvaluationSettings(dtype=getattr(torch, args.dtype)),
            RunOptions(device=args.device, batch_size=args.batch_size, workers=args.workers),
        )  # fmt: skip
        run = now() - start
        network = inside.stop()
    boxes = args.images * args.boxes
    rows = parts | {"network in run": network / boxes, "all of a run": run / boxes}
    rows["plain loop"] = loop
    for stage, seconds in rows.items():
        print(f"{stage:14s} {1e3 * seconds:9.3f} ms per box")
    outside = 1 - network / run
    print(f"outside the network: {100 * outside:.1f} %; plain loop / run: {loop * boxes / run:.2f}")
    result = {"seconds_per_box": rows, "seconds": record.seconds if record else {}}
    print(json.dumps({"command": " ".join(sys.argv), "outside_network": outside, **result}))


if __name__ == "__main__":
    main()
