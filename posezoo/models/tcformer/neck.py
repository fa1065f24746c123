"""Multi-stage token aggregation (MTA, arXiv 2204.08680): a feature pyramid on tokens.

Every level is refined by a transformer block and receives the coarser level through the clusters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import init_transformer_weights, module_list
from .backbone import SR_RATIOS, WIDTHS
from .blocks import Block, Tokens
from .tokens import pick_tokens

__all__ = ["NECK_DIM", "MTANeck"]

NECK_DIM = 256


class MTANeck(nn.Module):
    """Aggregate the tokens of all stages from coarse to fine.

    Keys and values of its blocks are average-pooled maps, 1/32 of the input size at each level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.laterals = module_list(nn.Conv2d(dim, NECK_DIM, 1) for dim in WIDTHS)
        self.blocks = module_list(
            Block(NECK_DIM, 4, ratio, eps=1e-5, drop_path_rate=0.0, skip=True, pool=True)
            for ratio in SR_RATIOS[:3]
        )
        self.apply(init_weights)

    def forward(self, stages: list[Tokens]) -> list[Tokens]:
        """Return the aggregated tokens of each level, finest first, 256 wide."""
        levels = self.before_last(stages)
        levels[0] = levels[0]._replace(x=self.blocks[0](levels[0].x, levels[0].regions))
        return levels

    def before_last(self, stages: list[Tokens]) -> list[Tokens]:
        """Return the same, but the finest level as its block takes it."""
        levels = [
            stage._replace(x=F.linear(stage.x, lateral.weight.flatten(1), lateral.bias))
            for stage, lateral in zip(stages, self.laterals)
        ]
        for i in (2, 1, 0):
            x = move_down(levels[i + 1], levels[i])
            levels[i] = levels[i]._replace(x=self.blocks[i](x, levels[i].regions) if i else x)
        return levels


def move_down(coarse: Tokens, fine: Tokens) -> Tensor:
    """Add to each token (B, N, C) of the finer level the token that it was merged into.

    Quirk: what comes down is scaled by mass / (mass + 1e-6); outputs notice at the 1e-5 level.
    """
    scale = (fine.mass / (fine.mass + 1e-6)).to(fine.x.dtype)
    return torch.addcmul(fine.x, pick_tokens(coarse.x, coarse.cluster), scale[..., None])


def init_weights(module: nn.Module) -> None:
    """Linear layers as usual; convolutions Xavier uniform with zero bias."""
    init_transformer_weights(module)
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
