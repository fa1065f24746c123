"""The transformer of TokenPose: layers on tokens of one width, and the map to heatmaps."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..layers import Mlp, add_apart, attend

__all__ = ["WIDTH", "Block", "make_head"]

WIDTH = 192
MLP_WIDTH = 3 * WIDTH


class Attention(nn.Module):
    """Multi-head self-attention: tokens (B, T, D) -> the first `count` of them, (B, count, D)."""

    def __init__(self, num_heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, count: int | None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, heads, D / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D / heads) each
        x = attend(q[:, :, :count], k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, count, D)


class Block(nn.Module):
    """Pre-norm transformer layer: (B, T, D) -> its first `count` tokens, (B, count, D)."""

    graph_is_fused = True

    def __init__(self, num_heads: int, scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention(num_heads, scale)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = Mlp(WIDTH, MLP_WIDTH)

    def forward(self, x: Tensor, count: int | None = None) -> Tensor:
        """Return all tokens where there is no count."""
        x = add_apart(x[:, :count], self.attn(self.norm1(x), count))
        return add_apart(x, self.mlp(self.norm2(x)))


def make_head(dim: int, heatmap_size: tuple[int, int]) -> nn.Sequential:
    """Return the map from a keypoint token to its heatmap, (..., dim) -> (..., h * w).

    Two layers where the token is at most half as wide as the hidden layer, otherwise one.
    Quirk: there is no activation between the two.
    """
    cells = math.prod(heatmap_size)
    hidden = cells // 8
    if 2 * dim > hidden:
        return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, cells))
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, cells)
    )
