"""What a recipe trains: the data, the loss, and the number by which the best weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..codecs import HeatmapCodec, build_codec
from ..datasets.people import check_own_files, training_people
from ..errors import InputError
from ..zoo.config import PretrainedCfg
from .augment import Augmentation
from .data import Batch, PersonDataset, TrainingBatch, TrainingSet
from .losses import heatmap_mse
from .recipes import Recipe
from .targets import gaussian_targets

__all__ = ["HeatmapObjective", "Objective", "PoseObjective", "objective_of"]


class Objective(nn.Module):
    """A network in training, as the loop sees it.

    `model` is the network that is evaluated and kept; whatever else is needed to train it, such
    as a fixed second network, is a further submodule, and comes back on resuming because
    `state_dict()` is what the loop saves. `forward` returns the loss of a batch; it is this
    module that runs under DistributedDataParallel. Parameters that are not to be trained have
    `requires_grad` off when the constructor ends; submodules that stay in evaluation mode are
    put there by overriding `train`. `monitor` is what `forward` leaves to be logged beside the
    loss: scalars by name, means over the batch.

    Args:
        recipe: its `frozen` parameters are frozen here.
        model: from `create_model`.
    """

    metric: str

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self.monitor: dict[str, Tensor] = {}
        self.cfg: PretrainedCfg = model.pretrained_cfg  # type: ignore[assignment]
        for name, parameter in model.named_parameters():
            if name.startswith(recipe.frozen):
                parameter.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        raise NotImplementedError

    def dataset(self, data: Path) -> TrainingSet:
        """Read the training set from its folder."""
        raise NotImplementedError

    def evaluate(self, data: Path, out: Path, device: str) -> float | None:
        """Score the model on the validation set; None where another process has the number.

        Args:
            data: the folder of the data set.
            out: a folder for the results.
            device: where to run.
        """
        raise NotImplementedError

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Run what is inside in the type of the recipe."""
        if self.recipe.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.recipe.dtype))


class PoseObjective(Objective):
    """Training on crops of people, evaluated with annotated boxes: AP, or PCKh for MPII."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
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
        from ..evaluation.entry import evaluate_model

        record = evaluate_model(self.model, data, boxes="gt", device=device, out=out, workers=1)
        return None if record is None else float(record.statistics[self._statistic])


class HeatmapObjective(PoseObjective):
    """Heatmaps towards Gaussians around the cells in which the codec looks for the keypoints.

    Raises:
        InputError: the model gives no heatmaps.
    """

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
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


def objective_of(recipe: Recipe, model: nn.Module) -> Objective:
    """Build the objective that a recipe names."""
    kinds: dict[str, Callable[[], type[Objective]]] = {
        "heatmap": lambda: HeatmapObjective,
        "tokens": _tokens,
        "token_classes": _token_classes,
        "classes": _classes,
    }
    return kinds[recipe.objective]()(recipe, model)


def _tokens() -> type[Objective]:
    from .pct import TokenizerObjective

    return TokenizerObjective


def _token_classes() -> type[Objective]:
    from .pct import TokenClassifierObjective

    return TokenClassifierObjective


def _classes() -> type[Objective]:
    from .classes import ClassObjective

    return ClassObjective
