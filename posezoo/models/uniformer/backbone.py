"""The backbone of UniFormer: four stages, convolutional blocks first, then attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers import (
    drop_path_rates,
    fold_norms,
    init_transformer_weights,
    module_list,
    nchw,
    nhwc,
    run_block,
)
from .blocks import GlobalBlock, LocalBlock

__all__ = ["WIDTHS", "UniFormerBackbone"]

WIDTHS = (64, 128, 320, 512)
MLP_RATIO = 4


class PatchEmbed(nn.Module):
    """Non-overlapping patches: (B, h, w, C) -> (B, h / p, w / p, D), LayerNorm at the end."""

    def __init__(self, in_chans: int, dim: int, patch: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.proj = nn.Conv2d(in_chans, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nhwc(self.proj(nchw(x))))


class ConvStem(nn.Module):
    """Overlapping 3x3 stride-2 convolutions with BatchNorm in place of patches ("+" models)."""

    def __init__(self, in_chans: int, dim: int, patch: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if patch == 4:
            layers = [nn.Conv2d(in_chans, dim // 2, 3, 2, 1), nn.BatchNorm2d(dim // 2), nn.GELU()]
            in_chans = dim // 2
        layers += [nn.Conv2d(in_chans, dim, 3, 2, 1), nn.BatchNorm2d(dim)]
        self.proj = nn.Sequential(*layers)

    def fold(self) -> None:
        """Fold the norms into the convolutions."""
        fold_norms(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        return nhwc(self.proj(nchw(x)))


class Stage(nn.Module):
    """Patch embedding, then blocks; `norm` (pose only) makes the stage's output map."""

    def __init__(
        self,
        patch_embed: nn.Module,
        blocks: Sequence[LocalBlock | GlobalBlock],
        norm_dim: int | None,
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = module_list(blocks)
        self.norm = nn.LayerNorm(norm_dim, eps=1e-6) if norm_dim else None
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = run_block(block, x, recompute=self.grad_checkpointing and self.training)
        return x

    def normed(self, x: Tensor) -> Tensor:
        """Apply the stage's norm, if it has one, to its output (B, h, w, D)."""
        return x if self.norm is None else self.norm(x)


class UniFormerBackbone(nn.Module):
    """Four stages at strides 4, 8, 16, 32 with widths 64, 128, 320, 512.

    Args:
        depths: blocks of each stage.
        head_dim: channels per attention head. No tensor shape shows it: a wrong value loads
            without complaint and ruins accuracy.
        block_eps: epsilon of the LayerNorms inside attention blocks. Quirk: mmpose's port
            evaluates with 1e-5 weights that were trained with 1e-6; the effect is 1e-6.
        layer_scale: a learned factor per channel on each branch of the attention blocks.
        conv_stem: overlapping convolutions instead of patches.
        stage_norms: LayerNorm after each stage (pose backbones have it).
    """

    def __init__(
        self,
        *,
        depths: tuple[int, int, int, int],
        in_chans: int,
        head_dim: int,
        drop_path_rate: float,
        block_eps: float,
        layer_scale: bool,
        conv_stem: bool,
        stage_norms: bool,
    ) -> None:
        super().__init__()
        embed = ConvStem if conv_stem else PatchEmbed
        stages = []
        for i, (dim, rates) in enumerate(zip(WIDTHS, drop_path_rates(depths, drop_path_rate))):
            blocks = [
                LocalBlock(dim, MLP_RATIO, rate)
                if i < 2
                else GlobalBlock(
                    dim, head_dim, MLP_RATIO, rate, eps=block_eps, layer_scale=layer_scale
                )
                for rate in rates
            ]
            channels = WIDTHS[i - 1] if i else in_chans
            patch_embed = embed(channels, dim, 4 if i == 0 else 2)
            stages.append(Stage(patch_embed, blocks, dim if stage_norms else None))
        self.stages = module_list(stages)
        self.apply(init_transformer_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H / 32, W / 32, 512), before any norm."""
        x = nhwc(x.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            x = stage(x)
        return x

    def forward_intermediates(self, x: Tensor, *, norm: bool = False) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32.

        Args:
            norm: apply the stage norms of pose backbones.
        """
        x = nhwc(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(nchw(stage.normed(x) if norm else x))
        return maps
