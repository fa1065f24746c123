"""The backbone of TCFormer: four stages, with a merge of tokens before the last three."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..layers import drop_path_rates, init_transformer_weights, module_list, nhwc, run_block
from .blocks import Block, TokenMerge, Tokens
from .tokens import grid_regions

__all__ = ["SR_RATIOS", "WIDTHS", "TCFormerBackbone", "backbone_keys"]

WIDTHS = (64, 128, 320, 512)
MLP_RATIOS = (8, 8, 4, 4)
SR_RATIOS = (8, 4, 2, 1)


class PatchEmbed(nn.Module):
    """7x7 convolution with stride 4 and LayerNorm: (B, C, H, W) -> (B, H / 4, W / 4, D)."""

    def __init__(self, in_chans: int, dim: int, eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 7, stride=4, padding=3)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nhwc(self.proj(x)))


class Stage(nn.Module):
    """Token merge (stages 2 to 4), blocks, norm."""

    def __init__(self, merge: TokenMerge | None, blocks: list[Block], dim: int) -> None:
        super().__init__()
        self.merge = merge
        self.blocks = module_list(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens) -> Tokens:
        source = None
        if self.merge is not None:
            tokens, source = self.merge(tokens)
        x = tokens.x
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            x = run_block(block, x, tokens.regions, source, recompute=recompute)
            source = None  # only the first block sees the un-merged tokens
        return tokens._replace(x=self.norm(x))


class TCFormerBackbone(nn.Module):
    """Four stages with widths 64, 128, 320, 512; tokens are merged before stages 2 to 4.

    Args:
        depths: blocks of each stage.
        patch_embed_eps: epsilon of the first LayerNorm. Quirk: the original trained with 1e-5,
            mmpose's port with 1e-6; no tensor shows it, the effect is 5e-5.
        sample_ratio: tokens after a merge / tokens before it, above 0 and at most 1.
        density_noise: width of the noise on densities in evaluation; the original used 1e-6.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, int, int, int],
        in_chans: int,
        drop_path_rate: float,
        patch_embed_eps: float,
        sample_ratio: float,
        density_noise: float,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(in_chans, WIDTHS[0], patch_embed_eps)
        stages = []
        for i, (dim, rates) in enumerate(zip(WIDTHS, drop_path_rates(depths, drop_path_rate))):
            merge = None
            if i > 0:
                merge = TokenMerge(
                    WIDTHS[i - 1], dim, sample_ratio=sample_ratio, density_noise=density_noise
                )
            blocks = [
                Block(
                    dim, MLP_RATIOS[i], SR_RATIOS[i], eps=1e-6, drop_path_rate=rate, skip=i > 0,
                    pool=False,
                )
                for rate in rates
            ]  # fmt: skip
            stages.append(Stage(merge, blocks, dim))
        self.stages = module_list(stages)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> list[Tokens]:
        """(B, C, H, W) -> the normalised tokens of each stage."""
        x = self.patch_embed(x)  # (B, H0, W0, 64)
        regions = grid_regions(x.shape[0], (x.shape[1], x.shape[2]), x.device)
        x = x.flatten(1, 2)  # (B, H0 W0, 64), row-major
        mass = torch.ones_like(x[..., 0], dtype=torch.promote_types(x.dtype, torch.float32))
        tokens = Tokens(x, regions, mass, regions.cell_token)
        out = []
        for stage in self.stages:
            tokens = stage(tokens)
            out.append(tokens)
        return out


def init_weights(module: nn.Module) -> None:
    """Linear layers as usual; convolutions N(0, 2 / fan_out) with zero bias."""
    init_transformer_weights(module)
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def backbone_keys(before: str) -> Iterator[tuple[str, str]]:
    """Yield the renaming rules of the backbone, whose original keys begin with `before`."""
    yield f"^{before}patch_embed1", "backbone.patch_embed"
    yield "^backbone.patch_embed.projection", "backbone.patch_embed.proj"  # mmpose's name
    yield "mlp.dwconv.dwconv", "mlp.dwconv"
    for i in range(4):
        stage = f"backbone.stages.{i}"
        yield f"^{before}block{i + 1}", f"{stage}.blocks"
        yield f"^{before}norm{i + 1}", f"{stage}.norm"
        yield f"^{before}ctm{i}", f"{stage}.merge"
