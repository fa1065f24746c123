"""Objectives by the name that a recipe gives them."""

from __future__ import annotations

from ...zoo.model import ZooModel
from ...zoo.recipe import Recipe
from .base import Objective
from .classes import ClassObjective
from .pct import TokenClassifierObjective, TokenizerObjective
from .pose import HeatmapObjective, PoseObjective

__all__ = [
    "ClassObjective",
    "HeatmapObjective",
    "Objective",
    "PoseObjective",
    "TokenClassifierObjective",
    "TokenizerObjective",
    "objective_of",
]

_OBJECTIVES: dict[str, type[Objective]] = {
    "heatmap": HeatmapObjective,
    "tokens": TokenizerObjective,
    "token_classes": TokenClassifierObjective,
    "classes": ClassObjective,
}


def objective_of(recipe: Recipe, model: ZooModel) -> Objective:
    """Build the objective that a recipe names."""
    return _OBJECTIVES[recipe.objective](recipe, model)
