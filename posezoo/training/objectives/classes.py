"""Training of classifiers with soft targets."""

from __future__ import annotations

from pathlib import Path

from timm.loss import SoftTargetCrossEntropy
from torch import Tensor

from ...datasets.descriptors import IMAGENET
from ...datasets.imagenet import (
    class_names,
    read_class_folders,
    read_imagenet_folders,
    wordnet_ids,
)
from ...errors import DataError, InputError
from ...zoo.model import ZooModel
from ...zoo.recipe import ClassAugmentation, Recipe
from ..class_data import ClassBatch, ClassDataset
from .base import Objective

__all__ = ["ClassObjective"]


class ClassObjective(Objective):
    """Cross-entropy with soft targets; evaluated by top-1 accuracy.

    Raises:
        InputError: not a classifier, or a recipe with the augmentation of poses.
    """

    metric = IMAGENET.metric
    statistic = IMAGENET.statistic

    def __init__(self, recipe: Recipe, model: ZooModel) -> None:
        super().__init__(recipe, model)
        if self.cfg.task != "classification" or not isinstance(
            recipe.augmentation, ClassAugmentation
        ):
            raise InputError(
                f"{self.cfg.architecture} is a {self.cfg.task} model, its recipe has "
                f"{type(recipe.augmentation).__name__}; classes are learnt by classifiers, with "
                "ClassAugmentation"
            )
        self.augmentation = recipe.augmentation
        self.loss = SoftTargetCrossEntropy()

    def forward(self, batch: ClassBatch) -> Tensor:  # type: ignore[override]
        with self.autocast(batch.images.device):
            logits = self.model(batch.images)
        return self.loss(logits if logits.dtype.itemsize > 4 else logits.float(), batch.targets)

    def dataset(self, data: Path) -> ClassDataset:
        classes: int = self.model.num_classes  # type: ignore[assignment]
        folder = data / IMAGENET.train.images
        own = classes != len(wordnet_ids())
        samples = read_class_folders(folder, classes) if own else read_imagenet_folders(folder)
        if own and class_names(folder) != class_names(data / IMAGENET.val.images):
            raise DataError(f"{folder} and {data / IMAGENET.val.images} hold different classes")
        return ClassDataset(samples, self.cfg, classes, self.augmentation, self.recipe.seed)
