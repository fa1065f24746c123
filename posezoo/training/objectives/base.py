"""What a recipe trains: the data, the loss, and the number by which the best weights are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...datasets.pictures import check_pictures
from ...runs.stopping import never
from ...zoo.config import PretrainedCfg
from ...zoo.model import ZooModel
from ...zoo.recipe import Recipe
from ..data import Batch, TrainingSet, digest_of

if TYPE_CHECKING:
    from ...evaluation import EvaluationSettings

__all__ = ["Objective"]


class Objective(nn.Module):
    """A network in training, as the loop sees it.

    `model` is the network that is evaluated and kept. Whatever else is needed to train it, such
    as a fixed second network, is a further submodule: `state_dict()` is what the loop saves.
    `forward` returns the loss of a batch; this module is what runs under DistributedDataParallel.
    Parameters that are not trained have `requires_grad` off when the constructor ends; submodules
    that stay in evaluation mode are kept there by overriding `train`. `forward` leaves in
    `monitor` what is logged beside the loss: scalars by name, means over the batch.

    Args:
        recipe: its `frozen` parameters are frozen here.
        model: from `create_model`.

    Attributes:
        metric: name of the number that `evaluate` returns, and `statistic`, its name in a record.
        category: name or id of the category of people in files of COCO's form, see
            `person_category`.
    """

    metric: str
    statistic: str
    category: str | None = None

    def __init__(self, recipe: Recipe, model: ZooModel) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self.monitor: dict[str, Tensor] = {}
        self.cfg: PretrainedCfg = model.pretrained_cfg
        for name, parameter in model.named_parameters():
            if name.startswith(recipe.frozen):
                parameter.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""
        raise NotImplementedError

    def dataset(self, data: Path) -> TrainingSet:
        """Read the training set from its folder."""
        raise NotImplementedError

    def check(self, data: Path, device: torch.device) -> str:
        """Read all that an evaluation needs, and return a hash over it.

        Raises:
            DataError: files are missing or malformed, or an image cannot be used.
        """
        from ...evaluation import RunOptions
        from ...evaluation.tasks import make_task

        task = make_task(self.model, self.cfg, data, self._settings(), RunOptions(), device)
        check_pictures(task.pictures)
        counts = [sample.count for sample in task.samples]
        return digest_of(data, task.paths, json.dumps([counts, dict(task.counts)]).encode())

    def evaluate(
        self, data: Path, out: Path, device: str, stop: Callable[[], bool] = never
    ) -> float | None:
        """Score the model on the validation set; None where another process has the number.

        Args:
            data: the folder of the data set.
            out: a folder for the results.
            device: where to run.
            stop: whether to end early.

        Raises:
            Stopped: `stop` said so.
        """
        from ...evaluation import RunOptions, evaluate_model

        run = RunOptions(device=device, out=out, stop=stop)
        record = evaluate_model(self.model, data, self._settings(), run)
        return None if record is None else float(record.statistics[self.statistic])

    def _settings(self) -> EvaluationSettings:
        from ...evaluation import EvaluationSettings

        return EvaluationSettings(boxes="gt", category=self.category)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Run what is inside in the type of the recipe."""
        if self.recipe.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.recipe.dtype))
