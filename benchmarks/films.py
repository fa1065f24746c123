"""A film end to end: poses of rendered people who cross, ids, jitter, and frames per second.

    python benchmarks/films.py --frames 300

Three people walk across each other in a film of 270 x 480 pixels and 25 frames a second, which is
encoded and read back. Boxes are those of the truth, moved a little, so that they cost as much as a
torchvision detector on this machine: that network runs with random weights, which is as much work,
and its answer is thrown away. Printed for `detect_every` 1, 5 and 10: frames per second, people
found of those in sight, ids that changed (in frames where it is clear who is who), the mean
distance to the truth and the mean acceleration of sure keypoints before and after smoothing, in
pixels.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from posezoo import PosePredictor
from posezoo.media.film import FilmWriter
from posezoo.results import PoseResult
from posezoo.synthetic import FilmFrame, render_film
from posezoo.tracking import OneEuroSmoother, SavitzkyGolaySmoother

_MODEL = "hrnet_xs_192x144.rendered"
_RATE = 25
_SURE = 0.3


class Detector:
    """Gives the boxes of the frames it is asked for, at the cost of a torchvision detector."""

    def __init__(self, truth: list[FilmFrame], builder: str) -> None:
        self.truth, self.calls = truth, 0
        self.small = np.stack([_small(frame.image) for frame in truth])
        import torchvision

        build = getattr(torchvision.models.detection, builder)
        self.network = build(weights=None, weights_backbone=None).eval()
        self.rng = np.random.default_rng(0)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        self.network([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
        which = np.abs(self.small - _small(image)).mean(axis=(1, 2, 3)).argmin()
        boxes = self.truth[which].bboxes
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        return boxes + self.rng.normal(0, 0.02, boxes.shape) * size, np.ones(len(boxes))


def _small(image: np.ndarray) -> np.ndarray:
    return image[1::3, 1::3].astype(np.float32)


def matched(result: PoseResult, frame: FilmFrame) -> list[tuple[int, int, bool]]:
    """Return (person of the truth, person of the result, whether it can be no other), best first.

    Boxes are matched by their overlap (IoU).
    """
    pairs: list[tuple[int, int, bool]] = []
    if not len(result) or not len(frame.bboxes):
        return pairs
    a, b = frame.bboxes[:, None], result.bboxes[None].astype(np.float64)
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    both = shared.prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    overlap = both / (areas[0] + areas[1] - both)
    clear = (overlap > 0.5) & ((overlap > 0.25).sum(axis=1, keepdims=True) == 1)
    while overlap.max() > 0.3:
        i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        pairs.append((int(i), int(j), bool(clear[i, j])))
        overlap[i], overlap[:, j] = 0, 0
    return pairs


def judge(results: list[PoseResult], truth: list[FilmFrame]) -> str:
    """Return people found, id changes, error and acceleration of a run."""
    last: dict[int, int] = {}
    paths: dict[int, dict[int, np.ndarray]] = {}
    changes = found = 0
    errors = []
    for number, (result, frame) in enumerate(zip(results, truth, strict=True)):
        for i, j, is_clear in matched(result, frame):
            found += 1
            person, given = int(frame.ids[i]), int(result.ids[j])  # type: ignore[index]
            if is_clear:
                changes += last.setdefault(person, given) != given
                last[person] = given
            sure = (frame.keypoints[i, :, 2] == 2) & (result.keypoint_scores[j] > _SURE)
            points = np.where(sure[:, None], result.keypoints[j], np.nan)
            paths.setdefault(person, {})[number] = points
            errors.append(np.linalg.norm(points - frame.keypoints[i, :, :2], axis=1))
    bends = []
    for path in paths.values():
        for n in path:
            if n - 1 in path and n + 1 in path:
                bends.append(np.linalg.norm(path[n - 1] - 2 * path[n] + path[n + 1], axis=1))
    people = sum(len(frame.ids) for frame in truth)
    return (
        f"{found} of {people} found, {changes} id changes, "
        f"error {np.nanmean(errors):.2f} px, acceleration {np.nanmean(bends):.2f} px/frame²"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detector", default="fasterrcnn_mobilenet_v3_large_fpn")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 5, 10])
    options = parser.parse_args()
    truth = list(render_film(options.seed, options.frames))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        with FilmWriter(path, Fraction(_RATE)) as film:
            for i, frame in enumerate(truth):
                film.write(frame.image, i / _RATE)
        for every in options.every:
            detector = Detector(truth, options.detector)
            predictor = PosePredictor(_MODEL, detector=detector, flip_test=False)
            start, spent = time.perf_counter(), time.process_time()
            found = list(predictor.stream(path, detect_every=every, track=True))
            rates = [
                options.frames / (clock() - began)
                for clock, began in ((time.perf_counter, start), (time.process_time, spent))
            ]
            print(
                f"detect_every {every}: {rates[0]:.2f} frames per second, "
                f"{rates[1]:.2f} per second of CPU time, {detector.calls} detections",
                flush=True,
            )
            tracked = [(one.result, one.time) for one in found if one.result is not None]
            print("  as found   ", judge([result for result, _ in tracked], truth), flush=True)
            for name, calm in (
                ("one-euro   ", OneEuroSmoother()),
                ("savgol     ", SavitzkyGolaySmoother()),
            ):
                smooth = [r for result, t in tracked for r, _ in calm.push(result, t or 0.0)]
                smooth += [r for r, _ in calm.flush()]
                print(f"  {name}", judge(smooth, truth), flush=True)


if __name__ == "__main__":
    main()
