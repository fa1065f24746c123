"""Optimizers and schedules of the recipes; timm's, but for layer-wise rates."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from ..zoo.recipe import Recipe

__all__ = ["make_optimizer", "make_schedule", "layer_groups"]

_SWIN_BLOCK = re.compile(r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.")
_SWIN_MERGING = re.compile(r"backbone\.layers\.(\d+)\.downsample\.")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_FIRST = ("backbone.patch_embed.", "patch_embed.", "pos_embed")


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Build timm's optimizer of a recipe."""
    from timm.optim import create_optimizer_v2

    given: Any = model
    if recipe.layer_decay is not None:
        given = layer_groups(model, recipe.weight_decay, recipe.layer_decay)
    return create_optimizer_v2(
        given,
        opt=recipe.optimizer,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        filter_bias_and_bn=not recipe.decay_all,
    )


def layer_groups(model: nn.Module, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """Group the parameters of a transformer by rate and weight decay.

    Blocks and mergings are counted from the patch embedding on; the rate of number i of n is
    `decay` to the power n - 1 - i, and all that is not in a block has the full rate. Tensors with
    one dimension, biases, positions and attention scales are not decayed.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    numbers = _layer_numbers([name for name, _ in model.named_parameters()])
    last = max(numbers.values()) + 1
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained:
        plain = parameter.ndim == 1 or name.endswith((".bias", "pos_embed"))
        plain |= "cpb_mlp" in name or "logit_scale" in name
        key = (decay ** (last - numbers.get(name, last)), 0.0 if plain else weight_decay)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": wd}
        for (scale, wd), parameters in groups.items()
    ]


def _layer_numbers(names: list[str]) -> dict[str, int]:
    """Number the parameters that are in a block, a merging or before them, from the input on."""
    swin = [tuple(map(int, found.groups())) for n in names if (found := _SWIN_BLOCK.match(n))]
    depths = [max((b for s, b in swin if s == stage), default=-1) + 1 for stage in range(4)]
    before = [0, *(sum(d + 1 for d in depths[: i + 1]) for i in range(3))]
    numbers = {}
    for name in names:
        if found := _SWIN_BLOCK.match(name):
            numbers[name] = 1 + before[int(found[1])] + int(found[2])
        elif found := _SWIN_MERGING.match(name):
            numbers[name] = before[int(found[1])]
        elif found := _BLOCK.match(name):
            numbers[name] = 1 + int(found[1])
        elif name.startswith(_FIRST):
            numbers[name] = 0
    return numbers


def make_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int, steps_per_epoch: int
) -> Any:
    """Build timm's scheduler of a recipe, driven by `step_update`; it needs no state."""
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler

    warmup = {
        "warmup_t": min(recipe.warmup_steps + recipe.warmup_epochs * steps_per_epoch, steps // 2),
        "warmup_lr_init": recipe.lr * recipe.warmup_start,
        "t_in_epochs": False,
    }
    if recipe.milestones:
        # timm counts a milestone m at update m - 1
        at = [epoch * steps_per_epoch + 1 for epoch in recipe.milestones]
        return MultiStepLRScheduler(
            optimizer, decay_t=at, decay_rate=0.1, warmup_prefix=False, **warmup
        )
    return CosineLRScheduler(
        optimizer, t_initial=steps, lr_min=recipe.lr * recipe.final_lr, **warmup
    )
