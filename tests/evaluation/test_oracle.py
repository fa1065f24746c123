"""The whole pipeline, boxes to statistics, through the code that `posezoo eval` runs.

The network is a stand-in whose output depends on the boxes, not on the pixels: each box finds the
annotated person it overlaps most and gets noisy heatmaps (or joints) of that person's keypoints.
So everything but the weights is compared with what the published code computed. The runner calls
it like any model, with batches of crops in box order, plain images first, mirrored ones behind.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from evaluation.cases import GOLDENS
from evaluation.made import evaluate
from posezoo import PosePredictor, PretrainedCfg
from posezoo.datasets import Annotations, ImageSample, read_annotations, read_coco
from posezoo.geometry import boxes_to_center_size, crop_matrices
from posezoo.zoo.config import DecodeCfg, InputCfg
from posezoo.zoo.model import PoseModel

NAMES = ["AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L"]
COCO_RUNS = [
    "mmpose1_256x192_det", "uniformer_256x192_det", "uniformer_256x192_gt",
    "uniformer_448x320_det", "unbiased_256x192_det", "pct_256x256_det",
    "tmpose_256x192_gt", "tmpose_256x192_det",
]  # fmt: skip


class Joints(NamedTuple):
    keypoints: Tensor
    logits: Tensor


def load_run(name: str) -> tuple[dict[str, Any], np.ndarray]:
    """The description of a run and the keypoints (N, K, 3) that the published code found."""
    with gzip.open(GOLDENS / "oracle.json.gz", "rt") as file:
        run = json.load(file)[name]
    with safe_open(GOLDENS / "oracle.safetensors", "np") as file:
        return run, file.get_tensor(name)


def cfg_of(run: dict[str, Any]) -> PretrainedCfg:
    """The recipe of a run as a model configuration."""
    width, height = run["input_wh"]
    coordinates = run["kind"] == "coordinates"
    refine = "quarter" if run.get("post_process") == "default" else "dark"
    decode = DecodeCfg(codec="regression")
    if not coordinates:
        decode = DecodeCfg(
            codec="heatmap",
            heatmap_size=tuple(reversed(run["heatmap_wh"])),
            refine=refine,
            blur_kernel=run.get("modulate_kernel") if refine == "dark" else None,
            shift_heatmap=run["flip"] == "shift by one",
        )
    return PretrainedCfg(
        architecture="oracle",
        tag="run",
        task="pose",
        dataset={17: "coco", 133: "coco_wholebody"}[run["num_keypoints"]],
        input=InputCfg(
            size=(height, width), bbox_padding=run["padding"], geometry=run["convention"]
        ),
        decode=decode,
    )


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    key = [zlib.crc32(f"input:{name}".encode()), 0]
    noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(size=shape)
    return noise.astype(np.float32).astype(np.float64)


def blank_images(annotations: dict[str, Any], folder: Path) -> Path:
    """Black images of the annotated sizes: the stand-in does not look at pixels."""
    for image in annotations["images"]:
        size = (image["width"], image["height"])
        Image.new("RGB", size).save(folder / image["file_name"], quality=20)
    return folder


class OracleNetwork(PoseModel):
    """Answers the crops of all boxes in order."""

    def __init__(
        self, name: str, run: dict[str, Any], people: Annotations, samples: list[ImageSample]
    ) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = cfg_of(run)
        self.num_keypoints = run["num_keypoints"]
        self.name, self.run = name, run
        self.flip = list(self.pretrained_cfg.skeleton.flip_indices)
        self.targets = [t for s in samples for t in self._targets(s, people)]
        self.next = 0

    def _targets(self, sample: ImageSample, people: Annotations) -> list[Any]:
        """Per box: file position, points in input pixels or None, labelled, overlap."""
        cfg = self.pretrained_cfg.input
        centers, sizes = boxes_to_center_size(
            sample.bboxes, cfg.size, cfg.bbox_padding, cfg.geometry
        )
        matrices = crop_matrices(centers, sizes, cfg.size, cfg.geometry)
        mine = people.select(people.is_counted & (people.image_ids == sample.image_id))
        found = []
        for i, (box_id, matrix) in enumerate(zip(sample.box_ids.tolist(), matrices)):
            overlaps = [_iou(sample.bboxes[i], box) for box in mine.bboxes_xyxy]
            best = int(np.argmax(overlaps)) if overlaps else -1
            q = overlaps[best] if overlaps else 0.0
            if q < 0.1:
                found.append((box_id, None, None, 0.0))
                continue
            points = mine.keypoints[best, :, :2] @ matrix[:, :2].T + matrix[:, 2]
            jitter = normal(f"oracle/{self.name}/{box_id}/jitter", (self.num_keypoints, 2))
            points = points + 0.012 * cfg.size[1] * jitter
            found.append((box_id, points, mine.keypoints[best, :, 2] > 0, q))
        return found

    def forward(self, images: Tensor) -> Tensor | Joints:
        count = len(images) // 2
        batch = self.targets[self.next : self.next + count]
        self.next += count
        make = self._joints if self.run["kind"] == "coordinates" else self._heatmaps
        plain = [make(t, mirrored=False) for t in batch]
        both = plain + [make(t, mirrored=True) for t in batch]
        if self.run["kind"] == "coordinates":
            return Joints(*(torch.from_numpy(np.stack(x)) for x in zip(*both)))
        return torch.from_numpy(np.stack(both))

    def _heatmaps(self, target: Any, mirrored: bool) -> np.ndarray:
        box_id, points, labelled, q = target
        (w, h), (w_in, h_in) = self.run["heatmap_wh"], self.run["input_wh"]
        kind = "mirrored" if mirrored else "plain"
        maps = 0.02 * normal(f"oracle/{self.name}/{box_id}/{kind}", (self.num_keypoints, h, w))
        if points is None:
            return maps.astype(np.float32)
        if mirrored:
            points, labelled = points[self.flip], labelled[self.flip]
            points = np.stack([w_in - 1 - points[:, 0], points[:, 1]], axis=1)
        if self.run["convention"] == "tokenpose":
            cells = points * [(w - 1) / (w_in - 1), (h - 1) / (h_in - 1)]
        else:
            cells = points * [w / w_in, h / h_in]
        x = (np.arange(w) - cells[:, :1]) ** 2  # (K, w)
        y = (np.arange(h) - cells[:, 1:]) ** 2  # (K, h)
        peak = np.exp(-(y[:, :, None] + x[:, None]) / (2 * self.run["sigma"] ** 2))
        height = (0.95 - 0.05 * (np.arange(self.num_keypoints) % 7)) * (0.5 + 0.5 * q)
        return (maps + (height * labelled)[:, None, None] * peak).astype(np.float32)

    def _joints(self, target: Any, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        box_id, points, _, q = target
        where = f"oracle/{self.name}/{box_id}"
        if points is None:
            points = 128 + 40 * normal(f"{where}/nobody", (17, 2))
        if mirrored:
            points = points[self.flip]
            points = np.stack([255 - points[:, 0], points[:, 1]], axis=1)
        kind = "mirrored" if mirrored else "plain"
        joints = points + normal(f"{where}/{kind}", (17, 2))
        logits = 6 + 4 * q + normal(f"{where}/logits-{kind}", (34, 1))
        return joints.astype(np.float32), logits.astype(np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inside = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return inside / (areas - inside)


def _unpack(name: str, folder: Path) -> Path:
    path = folder / name
    with gzip.open(GOLDENS / f"{name}.gz", "rb") as file:
        path.write_bytes(file.read())
    return path


def _check(name: str, annotations: Path, detections: Path, images: Path):
    run, expected = load_run(name)
    boxes = detections if run["boxes"] == "detections" else "gt"
    cfg = cfg_of(run)
    people = read_annotations(annotations, cfg.skeleton)
    rule, skeleton = cfg.input.geometry, cfg.skeleton
    samples = read_coco(people, images, boxes=boxes, skeleton=skeleton, rule=rule)
    if boxes == "gt":  # the runs number annotated people one after the other
        count = 0
        for i, sample in enumerate(samples):
            ids = np.arange(count, count + len(sample.box_ids))
            samples[i] = dataclasses.replace(sample, box_ids=ids)
            count += len(ids)
    network = OracleNetwork(name, run, people, samples)
    predictor = PosePredictor(network, batch_size=7)

    requests = [predictor.request(np.zeros((*s.size, 3), np.uint8), s.bboxes) for s in samples]
    found = np.zeros_like(expected)
    for sample, (points, scores) in zip(samples, predictor.predict_crops(requests)):
        found[sample.box_ids] = np.concatenate([points, scores[..., None]], axis=-1)
    far = np.abs(found[..., :2] - expected[..., :2]).max(axis=-1) > 1e-2
    assert far.mean() <= 0.005, f"{far.sum()} of {far.size} keypoints are off"
    np.testing.assert_allclose(found[..., 2], expected[..., 2], atol=1e-4)

    assert found.shape[0] == run["num_boxes"]
    network.next = 0
    record = evaluate(network, images, annotations=annotations, boxes=boxes, batch_size=7)
    assert record.results == run["num_results_after_nms"]
    return record, run


@pytest.mark.parametrize("name", COCO_RUNS)
def test_coco_run_gives_the_published_codes_keypoints_and_statistics(name, tmp_path):
    annotations = _unpack("oracle_coco.json", tmp_path)
    detections = _unpack("oracle_det_AP_H_56.json", tmp_path)
    images = blank_images(json.loads(annotations.read_text()), tmp_path)
    record, run = _check(name, annotations, detections, images)
    found = [record.statistics[n] for n in NAMES]
    np.testing.assert_allclose(found, run["stats"], atol=1e-3)
    assert record.box_source == ("det56.4" if run["boxes"] == "detections" else "gt")


@pytest.mark.parametrize("size", ["256x192", pytest.param("384x288", marks=pytest.mark.slow)])
def test_whole_body_run_gives_the_published_codes_statistics(size, photos):
    """Needs the whole-body annotations, which may not be passed on."""
    folder = photos / "coco"
    record, run = _check(
        f"tcformer_wholebody_{size}_det", folder / "test_coco_wholebody.json",
        folder / "test_coco_det_AP_H_56.json", folder,
    )  # fmt: skip
    names = {"foot": "feet", "lefthand": "left_hand", "righthand": "right_hand"}
    for part, stats in run["parts"].items():
        ours = record.statistics["parts"][names.get(part, part.replace("wholebody", "whole"))]
        np.testing.assert_allclose([ours[n] for n in NAMES], stats, atol=5e-3)
    hands = [run["parts"][h][0] for h in ("lefthand", "righthand")]
    assert record.statistics["Hand AP"] == pytest.approx(sum(hands) / 2, abs=5e-3)
