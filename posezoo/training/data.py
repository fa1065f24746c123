"""Annotated people to augmented crops. Chance depends on (seed, epoch, index) and nothing else,
so that neither the number of workers or processes nor a restart changes what is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from .._config import PretrainedCfg
from ..errors import DataError, InputError
from ..evaluation._coco_files import read_annotations
from ..geometry import boxes_to_center_size, crop_matrices
from ..skeletons import Skeleton
from ..transforms import load_image, warp_crops
from .augment import Augmentation, mirror_keypoints, rotate_matrix
from .pixels import drop_grid, jitter_colors

__all__ = ["EpochSampler", "PersonDataset", "TrainingBatch"]


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """`images (B, 3, H, W)`, `keypoints (B, K, 2)` in input pixels, `labelled (B, K)`."""

    images: Tensor
    keypoints: Tensor
    labelled: Tensor

    @classmethod
    def collate(cls, samples: list[tuple[Tensor, Tensor]]) -> TrainingBatch:
        """Stack images and keypoints (K, 3)."""
        keypoints = torch.stack([points for _, points in samples])
        return cls(
            images=torch.stack([image for image, _ in samples]),
            keypoints=keypoints[..., :2],
            labelled=keypoints[..., 2] > 0,
        )

    def to(self, device: torch.device) -> TrainingBatch:
        """Move everything."""
        return TrainingBatch(
            images=self.images.to(device, non_blocking=True),
            keypoints=self.keypoints.to(device, non_blocking=True),
            labelled=self.labelled.to(device, non_blocking=True),
        )


class PersonDataset(Dataset[tuple[Tensor, Tensor]]):
    """The people of a COCO-format file that have labelled keypoints.

    `dataset[epoch, index]` is a normalised crop (3, H, W) and its keypoints (K, 3): x and y in
    input pixels, and whether labelled.

    Raises:
        DataError: the file is malformed, no person in it has a labelled keypoint, or an image
            is missing.
        InputError: the configuration is not one of a pose model.
    """

    def __init__(
        self,
        annotations: Path,
        images: Path,
        cfg: PretrainedCfg,
        skeleton: Skeleton,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        people = read_annotations(annotations, skeleton)
        boxes = people.bboxes_xywh
        keep = (people.keypoints[..., 2] > 0).any(axis=1) & ~people.is_crowd
        keep &= (boxes[:, 2:] > 1).all(axis=1)
        if not keep.any():
            raise DataError(
                f"no person in {annotations} has a labelled keypoint and a box; "
                "there is nothing to learn from"
            )
        names = dict(zip(people.all_image_ids.tolist(), people.images.texts("file_name")))
        self.paths = [images / names[i] for i in people.image_ids[keep].tolist()]
        for path in set(self.paths):
            if not path.is_file():
                raise DataError(f"{annotations} names {path}, which is missing")
        self.keypoints = people.keypoints[keep]
        self.boxes = np.concatenate([boxes[keep, :2], boxes[keep, :2] + boxes[keep, 2:]], axis=1)
        self.cfg, self.skeleton = cfg, skeleton
        self.augmentation, self.seed = augmentation, seed
        if cfg.input.geometry is None:
            raise InputError(f"{cfg.name} is a {cfg.task} model; only pose models are trained here")
        self.geometry = cfg.input.geometry
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (cfg.input.mean, cfg.input.std)
        )

    def __len__(self) -> int:
        return len(self.paths)

    def summary(self) -> str:
        """Say how many people there are and how much of them is labelled."""
        labelled = (self.keypoints[..., 2] > 0).sum(axis=1).mean()
        return (
            f"{len(self)} people in {len(set(self.paths))} images, "
            f"{labelled:.1f} of {self.skeleton.num_keypoints} keypoints labelled on average"
        )

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = place
        rng = np.random.default_rng((self.seed, epoch, index))
        size, geometry = self.cfg.input.size, self.geometry
        padding = self.cfg.input.bbox_padding or 1.0
        centers, boxes = boxes_to_center_size(self.boxes[index], size, padding, geometry)
        keypoints = self.keypoints[index]
        center, box, angle, flipped = self.augmentation.sample(
            rng, centers[0], boxes[0], keypoints, self.skeleton, size[1] / size[0]
        )
        matrix = crop_matrices(center[None], box[None], size, geometry)[0]
        if angle:
            matrix = rotate_matrix(matrix, np.asarray(center, np.float64), angle)
        picture = torch.from_numpy(load_image(self.paths[index]))
        crop = warp_crops(picture, matrix[None], size)[0]
        if rng.random() < self.augmentation.color:
            crop = jitter_colors(crop, rng)
        if rng.random() < self.augmentation.grid:
            crop = drop_grid(crop, rng)
        image = (crop.float() / 255 - self.mean) / self.std
        mapped = keypoints.copy()
        mapped[:, :2] = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        if flipped:
            image = image.flip(-1)
            mapped = mirror_keypoints(mapped, size[1], self.skeleton)
        return image, torch.from_numpy(mapped).float()


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches (epoch, index) of one process, from any step on; an incomplete batch is left out.

    Args:
        batch_size: of all processes together; each takes every `count`-th sample of a batch.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, *, index: int = 0, count: int = 1
    ) -> None:
        if length < batch_size:
            raise DataError(
                f"{length} people do not fill one batch of {batch_size}; set batch_size lower"
            )
        if batch_size % count:
            raise DataError(f"batch_size {batch_size} does not divide among {count} processes")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.index, self.count = index, count
        self.steps_per_epoch = length // batch_size
        self.first_step = 0
        self.last_step = self.steps_per_epoch

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[int] = []
        for step in range(self.first_step, self.last_step):
            epoch, at = divmod(step, self.steps_per_epoch)
            if at == 0 or not order:
                rng = np.random.default_rng((self.seed, epoch))
                order = rng.permutation(self.length).tolist()
            batch = order[at * self.batch_size : (at + 1) * self.batch_size]
            yield [(epoch, i) for i in batch[self.index :: self.count]]
