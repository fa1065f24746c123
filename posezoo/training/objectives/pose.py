"""Training on crops of people: heatmaps, and what PCT's objectives share with them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...codecs import HeatmapCodec, build_codec
from ...datasets.descriptors import pose_set_of
from ...datasets.people import training_people
from ...errors import InputError
from ...files import sha256_of
from ...zoo.model import ZooModel
from ...zoo.recipe import Augmentation, Recipe
from ..data import PersonDataset, TrainingBatch
from ..losses import heatmap_mse
from ..targets import gaussian_targets
from .base import Objective

__all__ = ["HeatmapObjective", "PoseObjective"]


class PoseObjective(Objective):
    """Training on crops of people, evaluated with annotated boxes: AP, or PCKh for MPII."""

    def __init__(self, recipe: Recipe, model: ZooModel) -> None:
        super().__init__(recipe, model)
        if not isinstance(recipe.augmentation, Augmentation):
            raise InputError(f"{self.cfg.name} is trained on poses; its recipe needs Augmentation")
        self.augmentation = recipe.augmentation
        self.skeleton = self.cfg.skeleton
        data_set = pose_set_of(self.cfg)
        self.metric, self.statistic = data_set.metric, data_set.statistic
        self.validation = data_set.val

    def dataset(self, data: Path) -> PersonDataset:
        people = training_people(data, self.cfg, self.category)
        return PersonDataset(people, self.cfg, self.skeleton, self.augmentation, self.recipe.seed)

    def check(self, data: Path, device: torch.device) -> str:
        return super().check(data, device) + sha256_of(self.validation.find_annotations(data))


class HeatmapObjective(PoseObjective):
    """Heatmaps towards Gaussians around the cells in which the codec looks for the keypoints.

    Raises:
        InputError: the model gives no heatmaps.
    """

    def __init__(self, recipe: Recipe, model: ZooModel) -> None:
        super().__init__(recipe, model)
        codec = build_codec(self.cfg)
        if not isinstance(codec, HeatmapCodec):
            raise InputError(
                f"{self.cfg.name} gives no heatmaps; its recipe needs another objective"
            )
        self.codec = codec

    def forward(self, batch: TrainingBatch) -> Tensor:  # type: ignore[override]
        targets, weights = gaussian_targets(
            self.codec.to_cells(batch.keypoints), batch.labelled, self.codec.heatmap_size,
            sigma=self.recipe.sigma, rounded=self.recipe.rounded,
        )  # fmt: skip
        with self.autocast(batch.images.device):
            heatmaps = self.model(batch.images)
        return self.recipe.loss_factor * heatmap_mse(heatmaps, targets, weights)
