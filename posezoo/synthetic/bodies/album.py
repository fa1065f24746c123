"""Rendered photographs of people as data sets in the layouts of COCO, COCO-WholeBody and MPII."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ...skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton
from ..scene import Scene
from ..writing import check_count, write_coco_scenes, write_mpii_scenes
from .photographer import Photographer, Shots

__all__ = ["as_annotated", "write_people"]

_AT_ONCE = 32
_LEAST = 8.0  # pixels of the longer side of a hand or face that somebody would annotate
_SEEN = 3  # keypoints of the body in sight of somebody who would be annotated
_NECK = 0.6  # of the way from between the shoulders to between the ears: MPII's upper neck
_HALVES = {"pelvis": "hip", "thorax": "shoulder", "between_ears": "ear"}


def write_people(
    folder: Path, images: int, seed: int = 0, *, split: str | None = None, height: int = 256,
    skeleton: Skeleton = COCO_17,
) -> Path:  # fmt: skip
    """Write one split, at most one annotated person per image; return the annotation file.

    Args:
        folder: of the data set.
        images: how many.
        seed: of all of them.
        split: "train2017" or "val2017", for MPII "train" or "valid"; None is that of validation.
        height: of the images in pixels; they are three quarters as wide.
        skeleton: COCO's, that of COCO-WholeBody, see `as_annotated`, or MPII's.

    Raises:
        InputError: no images, or no such split.
    """
    check_count(images)
    scenes = _scenes(images, seed, height, skeleton)
    if skeleton == MPII_16:
        return write_mpii_scenes(folder, scenes, split or "valid")
    return write_coco_scenes(folder, scenes, split or "val2017", skeleton)


def _scenes(images: int, seed: int, height: int, skeleton: Skeleton) -> Iterator[Scene]:
    photographer = Photographer(seed, (height, height * 3 // 4), 1.35)
    for first in range(0, images, _AT_ONCE):
        shots = photographer.shoot(first, min(_AT_ONCE, images - first))
        body = shots.keypoints[:, : COCO_17.num_keypoints, 2]
        is_seen = (body == 2).sum(1) >= _SEEN  # else hidden by something
        keypoints = _of_skeleton(photographer, shots, skeleton)
        for i, image in enumerate(shots.images):
            kept = slice(i, i + int(is_seen[i]))
            yield Scene(
                image=image.permute(1, 2, 0).numpy(), keypoints=keypoints[kept].double().numpy(),
                bboxes=shots.boxes[kept].double().numpy(), areas=shots.areas[kept].double().numpy(),
                head_bboxes=shots.heads[kept].double().numpy(),
            )  # fmt: skip


def _of_skeleton(photographer: Photographer, shots: Shots, skeleton: Skeleton) -> Tensor:
    """Return the keypoints (B, K, 3) of a skeleton as they would be annotated."""
    named = dict(zip(photographer.human.keypoint_names, shots.keypoints.unbind(1)))
    if skeleton == MPII_16:
        for name, side in _HALVES.items():
            named[name] = _between(named[f"left_{side}"], named[f"right_{side}"], 0.5)
        named["upper_neck"] = _between(named["thorax"], named["between_ears"], _NECK)
        named["head_top"] = shots.crowns
    return as_annotated(torch.stack([named[n] for n in skeleton.keypoint_names], 1), skeleton)


def _between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Return points (B, 3) a share of the way from one to the other, known where both are."""
    v = torch.minimum(one[:, 2], other[:, 2])
    points = one[:, :2] + share * (other[:, :2] - one[:, :2])
    return torch.cat([points * (v > 0)[:, None], v[:, None]], 1)


def as_annotated(keypoints: Tensor, skeleton: Skeleton) -> Tensor:
    """Take away what people who annotate photographs leave out: faces seen from behind or whose
    nose is hidden, hands of which less than half is in sight, and both where they are smaller than
    8 pixels. Other hidden keypoints stay, with v = 1.

    Args:
        keypoints: (B, K, 3) x, y in pixels and v.
        skeleton: whose; only those with faces and hands lose any.
    """
    kept = keypoints.clone()
    if skeleton != COCO_WHOLEBODY_133:
        return kept
    for part in ("face", "left_hand", "right_hand"):
        own = slice(*skeleton.parts[part])
        points, v = keypoints[:, own, :2], keypoints[:, own, 2]
        known = (v > 0)[..., None]
        low = torch.where(known, points, torch.inf).amin(1)
        high = torch.where(known, points, -torch.inf).amax(1)
        good = (high - low).amax(-1) >= _LEAST
        if part == "face":  # outer corners of the eyes and chin turn the other way from behind
            across, down = points[:, 45] - points[:, 36], points[:, 8] - points[:, 36]
            good &= across[:, 0] * down[:, 1] > across[:, 1] * down[:, 0]
            good &= (v[:, [36, 45, 8]] > 0).all(1) & (keypoints[:, 0, 2] == 2)
        else:
            good &= (v == 2).float().mean(1) >= 0.5
        kept[~good, own] = 0
    return kept
