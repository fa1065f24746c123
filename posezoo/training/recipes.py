"""The recipes of all families: one per published training, and those of the packaged weights.

They are written down in `posezoo/models/<family>/recipes.py`. None of the originals synchronised
BatchNorm between GPUs. Where the rate falls as a cosine, the originals changed it once an epoch.
"""

from __future__ import annotations

import difflib

from ..errors import UnknownModelError
from ..models.hrnet_pose import recipes as hrnet_pose
from ..models.pct import recipes as pct
from ..models.tcformer import recipes as tcformer
from ..models.tokenpose import recipes as tokenpose
from ..models.uniformer import recipes as uniformer
from ..models.vitpose import recipes as vitpose
from ..zoo.recipe import Recipe, override, settings_of

__all__ = ["RECIPES", "Recipe", "get_recipe", "override", "settings_of"]

_FAMILIES = (uniformer, tcformer, pct, tokenpose, hrnet_pose, vitpose)
RECIPES: dict[str, Recipe] = {r.model: r for family in _FAMILIES for r in family.RECIPES}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of an architecture.

    Raises:
        UnknownModelError: there is none; close names are given.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=4, cutoff=0.4)
        advice = f"did you mean {', '.join(close)}?" if close else "`posezoo list` names them"
        raise UnknownModelError(f"no recipe {name!r}; {advice}")
    return RECIPES[name]
