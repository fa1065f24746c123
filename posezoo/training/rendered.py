"""Training on rendered people that are made as they are needed: `--data render:SEED`.

No picture is seen twice. An epoch is a fixed number of samples. Validation is on people of another
seed, rendered once into the folder of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..datasets.descriptors import COCO
from ..datasets.pictures import Pictures
from ..errors import InputError
from ..synthetic.album import write_people
from ..synthetic.photographer import Photographer
from ..zoo.config import PretrainedCfg
from ..zoo.recipe import Augmentation
from .data import TrainingBatch, TrainingSet
from .objectives import Objective

__all__ = ["RenderedPeople", "is_rendering", "render_for"]

_PREFIX = "render:"
_EPOCH = 16_384  # samples
_VALIDATION = (400, 1_000_003)  # images, and what is added to the seed


class RenderedPeople(TrainingSet):
    """People rendered for a network's input; those of a batch depend on the seed and the batch's
    first (epoch, index).

    Args:
        cfg: whose input the crops are for.
        augmentation: shift, scale and rotation of the crops; people are as often on the left as on
            the right, so nothing is mirrored.
    """

    def __init__(self, cfg: PretrainedCfg, augmentation: Augmentation, seed: int) -> None:
        self.cfg, self.seed = cfg, seed
        padding = cfg.input.bbox_padding or 1.25
        self.photographer = Photographer(seed, cfg.input.size, padding, augmentation)
        names = self.photographer.human.keypoint_names
        self._chosen = [names.index(name) for name in cfg.skeleton.keypoint_names]
        self.mean, self.std = (
            torch.tensor(values)[:, None, None] for values in (cfg.input.mean, cfg.input.std)
        )

    def __len__(self) -> int:
        return _EPOCH

    def several(self, keys: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
        epoch, index = keys[0]
        shots = self.photographer.shoot(epoch * _EPOCH + index, len(keys))
        images = (shots.images.float() / 255 - self.mean) / self.std
        return list(zip(images, shots.keypoints[:, self._chosen]))

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> TrainingBatch:
        keypoints = torch.stack([points for _, points in samples])
        return TrainingBatch(
            images=torch.stack([image for image, _ in samples]),
            keypoints=keypoints[..., :2],
            labelled=keypoints[..., 2] > 0,
        )

    @property
    def pictures(self) -> Pictures:
        return {}

    def digest(self, data: Path) -> str:
        return f"{_PREFIX}{self.seed}"

    def summary(self) -> str:
        return f"people rendered from seed {self.seed}, {_EPOCH} per epoch, none twice"


def is_rendering(data: Path) -> bool:
    """Tell whether `--data` asks for rendered people."""
    return str(data).startswith(_PREFIX)


def render_for(objective: Objective, data: Path, out: Path) -> tuple[Path, RenderedPeople]:
    """Return the folder with validation images, rendered if need be, and the training set.

    Raises:
        InputError: not "render:" and a whole number, or a model of other keypoints.
    """
    seed = str(data).removeprefix(_PREFIX)
    if not seed.isdecimal():
        raise InputError(f"data is {str(data)!r}; give {_PREFIX} and a whole number, like render:0")
    cfg = objective.cfg
    augmentation = objective.recipe.augmentation
    if cfg.dataset != "coco" or not isinstance(augmentation, Augmentation):
        raise InputError(f"{cfg.name} does not learn COCO's keypoints; rendered people have those")
    folder = out / "rendered"
    images, other = _VALIDATION
    if not (folder / "annotations" / COCO.val.annotations[0]).is_file():
        write_people(folder, images, int(seed) + other)
    return folder, RenderedPeople(cfg, augmentation, int(seed))
