"""Training: recipes, targets, losses, augmentation and a small loop (extra `train`)."""

from ..zoo.recipe import Augmentation, ClassAugmentation
from .losses import heatmap_mse
from .recipes import RECIPES, Recipe, get_recipe
from .targets import gaussian_targets

__all__ = [
    "RECIPES",
    "Augmentation",
    "ClassAugmentation",
    "Recipe",
    "gaussian_targets",
    "get_recipe",
    "heatmap_mse",
]
