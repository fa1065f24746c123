"""Training sets. What is random depends on (seed, epoch, index) alone, so that neither the number
of workers or processes nor a restart changes what is seen.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..datasets.people import People
from ..datasets.pictures import Pictures
from ..errors import DataError, InputError
from ..geometry import crop_matrices
from ..skeletons import Skeleton
from ..transforms import load_image, warp_crops
from ..zoo.config import PretrainedCfg
from ..zoo.recipe import Augmentation
from .augment import mirror_keypoints, rotate_matrix, sample_crop
from .pixels import drop_grid, jitter_colors

__all__ = [
    "Batch",
    "EpochSampler",
    "Fault",
    "Guarded",
    "PeopleSet",
    "PersonDataset",
    "TrainingBatch",
    "TrainingSet",
    "digest_of",
]

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of `B` samples each; `images (B, 3, H, W)` and what a subclass adds."""

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self: B, device: torch.device) -> B:
        """Move everything."""
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in self._tensors()})

    def pin_memory(self: B) -> B:
        """Copy everything to page-locked memory, from where moving to CUDA does not wait."""
        return replace(self, **{k: v.pin_memory() for k, v in self._tensors()})

    def part(self: B, first: int, last: int) -> B:
        """Return the samples from `first` to before `last`."""
        return replace(self, **{k: v[first:last] for k, v in self._tensors()})

    def _tensors(self) -> list[tuple[str, Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


@dataclass(frozen=True, kw_only=True)
class TrainingBatch(Batch):
    """Crops with `keypoints (B, K, 2)` in input pixels and `labelled (B, K)`."""

    keypoints: Tensor
    labelled: Tensor


class TrainingSet(Dataset[Any]):
    """Samples by (epoch, index), stacked by `collate`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, key: tuple[int, int]) -> Any:
        raise NotImplementedError

    def several(self, keys: Sequence[tuple[int, int]]) -> list[Any]:
        """Return the samples of a batch."""
        return [self[key] for key in keys]

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Stack samples to a batch."""
        raise NotImplementedError

    @property
    def pictures(self) -> Pictures:
        """The images that are read, each with its annotated size."""
        raise NotImplementedError

    def digest(self, data: Path) -> str:
        """Return a hash over what there is to learn: names of images from `data` on, and labels."""
        raise NotImplementedError

    def summary(self) -> str:
        """Say in one line what there is to learn from."""
        raise NotImplementedError


class PeopleSet(TrainingSet):
    """Samples are normalised crops (3, H, W), each with keypoints (K, 3): x and y in input pixels,
    and whether labelled."""

    def __init__(self, cfg: PretrainedCfg, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        self._mean, self._std = (
            torch.tensor(values)[:, None, None] for values in (cfg.input.mean, cfg.input.std)
        )

    def normalised(self, images: Tensor) -> Tensor:
        """Map colours (…, 3, H, W) from 0 to 1 onto what the network takes."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        return (images - mean) / std

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> TrainingBatch:
        """Stack crops and keypoints."""
        keypoints = torch.stack([points for _, points in samples])
        return TrainingBatch(
            images=torch.stack([image for image, _ in samples]),
            keypoints=keypoints[..., :2],
            labelled=keypoints[..., 2] > 0,
        )


class PersonDataset(PeopleSet):
    """People of a data set, cut out and augmented.

    Raises:
        InputError: the configuration is not one of a pose model.
    """

    def __init__(
        self,
        people: People,
        cfg: PretrainedCfg,
        skeleton: Skeleton,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        if cfg.input.geometry is None:
            raise InputError(f"{cfg.name} is a {cfg.task} model; it has no crops of people")
        super().__init__(cfg, seed)
        self.people, self.skeleton, self.augmentation = people, skeleton, augmentation
        self.geometry = cfg.input.geometry

    def __len__(self) -> int:
        return len(self.people.paths)

    @property
    def pictures(self) -> Pictures:
        return dict(zip(self.people.paths, self.people.sizes))

    def digest(self, data: Path) -> str:
        people = self.people
        labels = (people.keypoints, people.centers, people.box_sizes)
        return digest_of(data, people.paths, b"".join(array.tobytes() for array in labels))

    def summary(self) -> str:
        """Say how many people there are, how much of them is labelled, and what never is."""
        labelled = self.people.keypoints[..., 2] > 0  # (P, K)
        text = (
            f"{len(self)} people in {len(set(self.people.paths))} images, "
            f"{labelled.sum(axis=1).mean():.1f} of {self.skeleton.num_keypoints} keypoints "
            "labelled on average"
        )
        never = [self.skeleton.keypoint_names[i] for i in np.flatnonzero(~labelled.any(axis=0))]
        return f"{text}; nobody has {', '.join(never)} labelled" if never else text

    def sample(
        self, index: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], Tensor, bool]:
        """Draw a crop: its matrix (2, 3), the keypoints (K, 3) in it, and whether it is mirrored.

        The matrix is that of the crop before mirroring, the keypoints are those after it.
        """
        size = self.cfg.input.size
        keypoints = self.people.keypoints[index]
        center, box, angle, flipped = sample_crop(
            self.augmentation,
            rng,
            self.people.centers[index],
            self.people.box_sizes[index],
            keypoints,
            self.skeleton,
            size[1] / size[0],
        )
        matrix = crop_matrices(center[None], box[None], size, self.geometry)[0]
        if angle:
            matrix = rotate_matrix(matrix, np.asarray(center, np.float64), angle)
        mapped = keypoints.copy()
        mapped[:, :2] = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        if flipped:
            mapped = mirror_keypoints(mapped, size[1], self.skeleton)
        return matrix, torch.from_numpy(mapped).float(), flipped

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        matrix, keypoints, flipped = self.sample(index, rng)
        path, size = self.people.paths[index], self.people.sizes[index]
        picture = torch.from_numpy(load_image(path, recorded_size=size))
        crop = warp_crops(picture, matrix[None], self.cfg.input.size)[0]
        if rng.random() < self.augmentation.color:
            crop = jitter_colors(crop, rng)
        if rng.random() < self.augmentation.grid:
            crop = drop_grid(crop, rng)
        image = self.normalised(crop.float() / 255)
        return image.flip(-1) if flipped else image, keypoints


class Fault(str):
    """Why a sample or a batch cannot be made. It is handed on as a value: an exception in a worker
    process would arrive as its traceback."""


class Guarded(Dataset[Any]):
    """A training set whose unusable samples are faults."""

    def __init__(self, samples: TrainingSet) -> None:
        self.samples = samples

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Any]:
        try:
            return self.samples.several(keys)
        except InputError as error:
            return [Fault(error)]

    def collate(self, samples: Sequence[Any]) -> Batch | Fault:
        """Stack samples, or return the first fault."""
        try:
            faults = [sample for sample in samples if isinstance(sample, Fault)]
            return faults[0] if faults else self.samples.collate(samples)
        except InputError as error:
            return Fault(error)


def digest_of(data: Path, paths: Sequence[Path], labels: bytes) -> str:
    """Return a hash over names of images, from the folder `data` on, and their labels."""
    digest = hashlib.sha256(labels)
    digest.update("\n".join(os.path.relpath(path, data) for path in paths).encode())
    return digest.hexdigest()


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches (epoch, index) of one process, from any step on; an incomplete batch is left out.

    Args:
        batch_size: of all processes together; each takes every `count`-th sample of a batch.
        repeats: above 1, each sample comes so many times in a row, and an epoch ends after
            `length` of them: repeated augmentation (arXiv 1902.05509) as in DeiT. The copies
            have epoch numbers of their own, so that they are augmented differently.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        index: int = 0,
        count: int = 1,
        repeats: int = 1,
    ) -> None:
        if length < batch_size:
            raise DataError(
                f"{length} samples do not fill one batch of {batch_size}; set batch_size lower"
            )
        if batch_size % count:
            raise DataError(f"batch_size {batch_size} does not divide among {count} processes")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.index, self.count, self.repeats = index, count, repeats
        self.steps_per_epoch = length // batch_size
        self.first_step = 0
        self.last_step = self.steps_per_epoch

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: list[tuple[int, int]] = []
        for step in range(self.first_step, self.last_step):
            epoch, at = divmod(step, self.steps_per_epoch)
            if at == 0 or not order:
                rng = np.random.default_rng((self.seed, epoch))
                chosen = rng.permutation(self.length)[: -(-self.length // self.repeats)].tolist()
                copies = range(epoch * self.repeats, (epoch + 1) * self.repeats)
                order = [(copy, i) for i in chosen for copy in copies]
            batch = order[at * self.batch_size : (at + 1) * self.batch_size]
            yield batch[self.index :: self.count]
