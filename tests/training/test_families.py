"""Every recipe can learn: one batch by heart, and each parameter that is trained has a gradient
(a process group would wait forever for one that has not)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from families import SMALL, registered, smaller
from families.pct import TINY

import posezoo
from posezoo.training import RECIPES
from posezoo.training.data import TrainingBatch
from posezoo.training.objectives import objective_of

HEATMAPS = [name for name, recipe in RECIPES.items() if recipe.objective == "heatmap"]
# one of each family, small; TMPose is TokenPose with a mask
QUICK = {
    "uniformer_s_256x192", "tcformer_mta_256x192", "hmp_swin_base", "tokenpose_t_256x192",
    "hrnet_xs_128x96", "vitpose_b_simple_256x192",
}  # fmt: skip
ANY_SIZE = ("uniformer", "tcformer")
REDUCED = {  # plain transformers of gigabytes; beginnings of names, the longer one first
    "vitpose_plus": SMALL["vitpose_plus_s_256x192"],
    "vitpose": SMALL["vitpose_b_simple_256x192"],
}


def _reduced(name: str) -> torch.nn.Module:
    """A model of the recipe at 64 x 64 pixels or with a small backbone, where that is possible."""
    values: dict[str, Any] = {"size": (64, 64)} if name.startswith(ANY_SIZE) else {}
    values = next((v for start, v in REDUCED.items() if name.startswith(start)), values)
    reduced = smaller(
        name, **(SMALL[name] if name in QUICK else TINY if "swin" in name else values)
    )
    with registered(reduced):
        torch.manual_seed(0)
        return posezoo.create_model(reduced.name, **RECIPES[name].model_args)


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in HEATMAPS],
)
def test_one_batch_is_learnt_by_heart(name):
    model = _reduced(name)
    cfg, count = model.pretrained_cfg, model.num_keypoints
    size = torch.tensor(cfg.input.size[::-1])
    generator = torch.Generator().manual_seed(1)
    batch = TrainingBatch(
        images=torch.randn(2, 3, *cfg.input.size, generator=generator),
        keypoints=torch.rand(2, count, 2, generator=generator) * (size - 1.0),
        labelled=torch.ones(2, count, dtype=torch.bool),
    )
    # wide targets are learnt in few steps
    recipe = dataclasses.replace(
        RECIPES[name], dtype="float32", sigma=cfg.decode.heatmap_size[1] / 8
    )
    objective = objective_of(recipe, model).train()
    trained = {n: p for n, p in objective.named_parameters() if p.requires_grad}
    is_swin = "swin" in name  # whose blocks begin as identities
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3 if is_swin else 5e-4)
    steps, share = (7, 0.75) if name in QUICK else (30, 0.65)
    losses = []
    for _ in range(2 * steps if is_swin else steps):
        loss = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [n for n, p in trained.items() if p.grad is None] == []
    assert losses[-1] < share * losses[0]
