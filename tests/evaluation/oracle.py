"""The stand-in network of the oracle runs: its output depends on the boxes, not on the pixels.

Evaluation specification, section 13: each box finds the annotated person it overlaps most and
gets noisy heatmaps (or joints) of that person's keypoints, so that the whole pipeline can be
compared without weights. It is called by the runner like any model, in batches of crops in box
order, plain images first and mirrored ones behind.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from posezoo import PretrainedCfg, get_skeleton
from posezoo.datasets.samples import ImageSample
from posezoo.geometry import boxes_to_center_size, crop_matrices
from posezoo.zoo.config import DecodeCfg, InputCfg

GOLDENS = Path(__file__).parents[1] / "goldens" / "evaluation"


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
    decode = DecodeCfg(
        codec="regression" if coordinates else "heatmap",
        heatmap_size=None if coordinates else tuple(reversed(run["heatmap_wh"])),
        refine="none" if coordinates else {"default": "quarter"}.get(run["post_process"], "dark"),
        blur_kernel=None if coordinates else run.get("modulate_kernel"),
        flip_test=True,
        shift_heatmap=run["flip"] == "shift by one",
    )
    if decode.refine == "quarter":
        decode = replace(decode, blur_kernel=None)
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


class OracleNetwork(nn.Module):
    """Answers the crops of all boxes in order."""

    def __init__(
        self, name: str, run: dict[str, Any], people: list[dict[str, Any]],
        samples: list[ImageSample],
    ) -> None:  # fmt: skip
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = cfg_of(run)
        self.num_keypoints = run["num_keypoints"]
        self.name, self.run = name, run
        self.flip = list(get_skeleton(self.pretrained_cfg.dataset).flip_indices)
        self.targets = [t for s in samples for t in self._targets(s, people)]
        self.next = 0

    def _targets(self, sample: ImageSample, people: list[dict[str, Any]]) -> list[Any]:
        """Per box: file position, points in input pixels or None, labelled, overlap."""
        cfg = self.pretrained_cfg.input
        centers, sizes = boxes_to_center_size(
            sample.bboxes, cfg.size, cfg.bbox_padding, cfg.geometry
        )
        matrices = crop_matrices(centers, sizes, cfg.size, cfg.geometry)
        mine = [p for p in people if p["image_id"] == sample.image_id]
        found = []
        for i, (box_id, matrix) in enumerate(zip(sample.box_ids.tolist(), matrices)):
            overlaps = [_iou(sample.bboxes[i], p["xyxy"]) for p in mine]
            best = int(np.argmax(overlaps)) if overlaps else -1
            q = overlaps[best] if overlaps else 0.0
            if q < 0.1:
                found.append((box_id, None, None, 0.0))
                continue
            points = mine[best]["points"] @ matrix[:, :2].T + matrix[:, 2]
            jitter = normal(f"oracle/{self.name}/{box_id}/jitter", (self.num_keypoints, 2))
            points = points + 0.012 * cfg.size[1] * jitter
            found.append((box_id, points, mine[best]["labelled"], q))
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


def people_of(annotations: dict[str, Any], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Non-crowd people with labelled keypoints: xyxy box, (K, 2) points, (K,) labelled."""
    people = []
    for a in annotations["annotations"]:
        flat = np.concatenate([np.asarray(a[k], np.float64) for k in keys]).reshape(-1, 3)
        if not a.get("iscrowd") and (flat[:, 2] > 0).any():
            x, y, w, h = a["bbox"]
            people.append(
                {"image_id": a["image_id"], "xyxy": np.array([x, y, x + w, y + h]),
                 "points": flat[:, :2], "labelled": flat[:, 2] > 0}
            )  # fmt: skip
    return people


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inside = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return inside / (areas - inside)
