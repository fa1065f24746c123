"""Tokenizers: annotated poses, encoded and decoded again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...datasets.coco import Annotations, read_annotations
from ...datasets.descriptors import COCO
from ...datasets.names import find_images
from ...datasets.people import crops_of
from ...datasets.pictures import Pictures
from ...datasets.samples import Sample, rows_by_image, sizes_by_image
from ...device import autocast, upload, weight_dtype
from ...errors import DataError
from ...geometry import get_convention
from ...skeletons import Skeleton
from ...transforms import TopDownCrop
from ...zoo.config import PretrainedCfg
from ...zoo.model import Tokenizer
from ..metrics.coco import evaluate_coco
from ..metrics.coco_rows import coco_results
from ..reading import BadImage, ReadAhead, Rows, read_sample
from .base import DIGITS, NO_IMAGE, EvaluationTask
from .coco import area_notes

__all__ = ["ReconstructionTask"]

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PoseSample(Sample):
    """One image and the `N` people annotated in it.

    `person_ids (N,)` are those of the file, `keypoints (N, K, 3)` x and y in image pixels and v,
    `centers (N, 2)` and `box_sizes (N, 2)` the crops.
    """

    image_id: int
    person_ids: NDArray[np.int64]
    keypoints: Array
    centers: Array
    box_sizes: Array

    @property
    def count(self) -> int:
        """`N`."""
        return len(self.keypoints)


class ReconstructionTask(EvaluationTask[PoseSample]):
    """The AP of annotated people after encoding and decoding: what a perfect classifier of the
    tokens would reach.

    Each pose counts as a detection in its annotated box. The confidence of a keypoint is whether
    it is labelled; those that are not are hidden from the tokenizer.

    Args:
        model: a tokenizer.
        annotations: a file in the form of COCO.
        images: the folder of the images, or the one that holds `val2017/`; read only for a
            tokenizer that is guided by images.
        device: where to run.
        dtype: bfloat16 and float16 run under autocast.
        flip_test: take the mean with the mirrored pose.
        workers: threads that read images.
        limit: only the first so many images.
        category: see `person_category`.
    """

    box_source = "gt"

    def __init__(
        self,
        model: Tokenizer,
        annotations: Path,
        images: Path,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        flip_test: bool = True,
        workers: int = 4,
        limit: int | None = None,
        category: str | None = None,
    ) -> None:
        self.cfg, self.skeleton = model.pretrained_cfg, model.pretrained_cfg.skeleton
        self.model: Tokenizer = model.to(device, weight_dtype(dtype)).eval()
        self.device, self.dtype, self.flip_test = device, dtype, flip_test
        self.people = read_annotations(annotations, self.skeleton, category)
        folder = images if model.image_guided else None
        self.samples = _read_samples(self.people, folder, self.cfg)[:limit]
        if limit is not None:
            self.people = self.people.of_images([sample.image_id for sample in self.samples])
        self.counts = {
            "images": len(self.people.all_image_ids),
            "people": int(self.people.is_counted.sum()),
        }
        self.notes = area_notes(self.people)
        self.convention = get_convention(self.cfg.input.geometry or "")
        self.crop = TopDownCrop(self.cfg.input.size, self.cfg.input.mean, self.cfg.input.std)
        self.read_ahead = ReadAhead(self._read, workers)

    @property
    def pictures(self) -> Pictures:
        return super().pictures if self.model.image_guided else {}

    def settings(self) -> dict[str, Any]:
        return {
            "flip_test": self.flip_test,
            "recipe_flip_test": True,
            "geometry": self.cfg.input.geometry,
            "bbox_padding": self.cfg.input.bbox_padding,
        }

    def _read(self, sample: PoseSample) -> NDArray[np.uint8] | BadImage:
        return read_sample(sample) if self.model.image_guided else NO_IMAGE

    def predict(self, indices: Sequence[int]) -> Iterator[Rows | BadImage]:
        chosen = [self.samples[i] for i in indices]
        for sample, image in zip(chosen, self.read_ahead(chosen)):
            yield image if isinstance(image, BadImage) else self._rows(sample, image)

    @torch.inference_mode()
    def _rows(self, sample: PoseSample, image: NDArray[np.uint8]) -> Rows:
        frame = (sample.centers, sample.box_sizes, self.cfg.input.size)
        wide, crops = weight_dtype(self.dtype), None
        if self.model.image_guided:
            matrices = self.convention.crop_matrices(*frame)
            crops = self.crop(upload(image, self.device), matrices).to(wide)
        keypoints = torch.from_numpy(sample.keypoints)
        labelled = keypoints[..., 2] > 0  # (N, K)
        points = self.convention.image_to_input(keypoints[..., :2], *frame).to(self.device, wide)
        with autocast(self.device, self.dtype):
            found = self._reconstruct(points, labelled.to(self.device), crops)
        points = self.convention.input_to_image(found.cpu(), *frame)
        return coco_results(
            image_id=sample.image_id,
            category=self.people.category,
            box_ids=sample.person_ids,
            keypoints=points.double().numpy(),
            keypoint_scores=labelled.double().numpy(),
            bbox_scores=np.ones(sample.count),
            areas=sample.box_sizes.astype(np.float64).prod(axis=1),
            skeleton=self.skeleton,
            digits=DIGITS,
        )

    def _reconstruct(self, points: Tensor, labelled: Tensor, crops: Tensor | None) -> Tensor:
        """Encode and decode (N, K, 2) in input pixels."""
        guide = None if crops is None else self.model.forward_features(crops)
        straight: Tensor = self.model(points, labelled, guide).keypoints
        if not self.flip_test:
            return straight
        guide = None if crops is None else self.model.forward_features(crops.flip(-1))
        order, width = list(self.skeleton.flip_indices), self.cfg.input.size[1]
        mirrored = _mirror(points, self.skeleton, width)
        flipped = self.model(mirrored, labelled[:, order], guide).keypoints
        return (straight + _mirror(flipped, self.skeleton, width)) / 2

    def score(self, results: Rows) -> dict[str, Any]:
        return evaluate_coco(self.people, results, self.skeleton).to_dict()


def _read_samples(people: Annotations, images: Path | None, cfg: PretrainedCfg) -> list[PoseSample]:
    """Group the usable people by image; without a folder no image is looked for."""
    usable = people.select(people.is_usable)
    if not len(usable.ids):
        raise DataError(f"no person in {people.source} has a labelled keypoint and a box")
    centers, box_sizes = crops_of(usable, cfg)
    rows, names = rows_by_image(usable.image_ids), people.file_names()
    files, sizes = [names[i] for i in rows], sizes_by_image(people)
    paths = (
        find_images(images, files, COCO.val.images, people.source)
        if images
        else list(map(Path, files))
    )
    return [
        PoseSample(
            path=path,
            size=sizes.get(image_id),
            image_id=image_id,
            person_ids=usable.ids[rows[image_id]],
            keypoints=usable.keypoints[rows[image_id]],
            centers=centers[rows[image_id]],
            box_sizes=box_sizes[rows[image_id]],
        )
        for image_id, path in zip(rows, paths)
    ]


def _mirror(points: Tensor, skeleton: Skeleton, width: int) -> Tensor:
    """Mirror keypoints (N, K, 2) in an input of a width and swap left and right."""
    x, y = points[:, list(skeleton.flip_indices)].unbind(-1)
    return torch.stack([width - 1 - x, y], dim=-1)
