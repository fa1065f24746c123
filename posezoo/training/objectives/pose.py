"""Training on crops of people: heatmaps, and what PCT's objectives share with them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...codecs import HeatmapCodec, build_codec
from ...datasets.people import check_own_files, training_people
from ...errors import InputError
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
        names = {"mpii": ("PCKh", "mean"), "coco_wholebody": ("AP", "Whole AP")}
        self.metric, self._statistic = names.get(self.cfg.dataset, ("AP", "AP"))

    def dataset(self, data: Path) -> PersonDataset:
        if self.cfg.own_skeleton is not None:
            check_own_files(data, self.skeleton)
        return PersonDataset(
            training_people(data, self.cfg, self.skeleton), self.cfg, self.skeleton,
            self.augmentation, self.recipe.seed,
        )  # fmt: skip

    def evaluate(self, data: Path, out: Path, device: str) -> float | None:
        from ...evaluation.entry import evaluate_model

        record = evaluate_model(self.model, data, boxes="gt", device=device, out=out, workers=1)
        return None if record is None else float(record.statistics[self._statistic])


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
