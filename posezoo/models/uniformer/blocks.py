"""The two kinds of blocks of UniFormer, on maps (B, h, w, D)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...packing import PackedLinear
from ..layers import (
    Attention,
    FoldedNorm,
    Mlp,
    add_apart,
    affine_of_norm,
    as_linear,
    drop_path,
    nchw,
    nhwc,
)

__all__ = ["GlobalBlock", "LocalBlock"]


def norm_conv1x1(x: Tensor, norm: nn.Module, conv: nn.Module) -> Tensor:
    """Apply `conv(norm(x))`, a 1x1 convolution, to x (B, h, w, C) as one matrix product.

    In evaluation the norm is an affine map per channel and folds into the matrix.
    """
    if isinstance(norm, FoldedNorm):
        return conv1x1(x, conv)
    if norm.training:
        return conv1x1(nhwc(norm(nchw(x))), conv)
    return F.linear(x, *folded(norm, conv))


def folded(norm: nn.Module, conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Return matrix (C_out, C_in) and bias (C_out,) of `conv(norm(x))`, a 1x1 convolution."""
    weight, bias = cast(Tensor, conv.weight).flatten(1), cast(Tensor, conv.bias)
    scale, shift = affine_of_norm(norm)
    return weight * scale, torch.addmv(bias, weight, shift)


def conv1x1(x: Tensor, conv: nn.Module) -> Tensor:
    """Apply a 1x1 convolution, which may be a linear layer by now, to x (B, h, w, C)."""
    if isinstance(conv, nn.Conv2d):
        return F.linear(x, conv.weight.flatten(1), conv.bias)
    return conv(x)


def add_branch(x: Tensor, y: Tensor, conv: nn.Module, rate: float, training: bool) -> Tensor:
    """Return `x + conv(y)`, a 1x1 convolution of y (B, h, w, C), dropped at `rate` in training."""
    if isinstance(conv, PackedLinear):
        return conv(y, x)
    return x + drop_path(conv1x1(y, conv), rate, training)


def scale_output(layer: nn.Linear, factor: Tensor) -> None:
    """Make a layer compute `factor * layer(x)`, with a factor per channel."""
    layer.weight = nn.Parameter(layer.weight * factor[:, None], requires_grad=False)
    layer.bias = nn.Parameter(layer.bias * factor, requires_grad=False)


class PositionalConv(nn.Conv2d):
    """Dynamic position embedding: x + depthwise 3x3 convolution of x, on (B, h, w, D)."""

    centre: Tensor | None  # what makes the residual of x a part of the weights

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        self.register_buffer("centre", torch.empty(1, 1, 3, 3), persistent=False)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        if self.centre is not None:
            self.centre.zero_()
            self.centre[..., 1, 1] = 1.0

    def fold(self) -> None:
        """Make the residual a part of the stored weights."""
        if self.centre is not None and not self._forward_pre_hooks:
            self.weight = nn.Parameter(self.weight + self.centre, requires_grad=False)
            self.centre = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.centre is None else self.weight + self.centre
        return nhwc(F.conv2d(nchw(x), weight, self.bias, padding=1, groups=self.groups))


class ConvMlp(nn.Module):
    """MLP whose two layers are stored as 1x1 convolutions."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1: nn.Module = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2: nn.Module = nn.Conv2d(hidden, dim, 1)


class LocalBlock(nn.Module):
    """Block of stages 1 and 2: a 5x5 depthwise convolution in place of attention.

    (B, h, w, D) -> (B, h, w, D). The branch conv1, attn, conv2 has no activation.
    """

    graph_is_fused = True

    def __init__(self, dim: int, mlp_ratio: int, drop_path_rate: float) -> None:
        super().__init__()
        self.pos_embed = PositionalConv(dim)
        self.norm1: nn.Module = nn.BatchNorm2d(dim)
        self.conv1: nn.Module = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2: nn.Module = nn.Conv2d(dim, dim, 1)
        self.norm2: nn.Module = nn.BatchNorm2d(dim)
        self.mlp = ConvMlp(dim, mlp_ratio * dim)
        self.drop_path_rate = drop_path_rate

    def fold(self) -> None:
        """Fold the norms into the 1x1 convolutions after them, and make those linear layers."""
        if isinstance(self.norm1, FoldedNorm):
            return
        self.conv1 = as_linear(*folded(self.norm1, self.conv1))
        self.mlp.fc1 = as_linear(*folded(self.norm2, self.mlp.fc1))
        self.conv2, self.mlp.fc2 = (
            as_linear(cast(Tensor, conv.weight).flatten(1), cast(Tensor, conv.bias))
            for conv in (self.conv2, self.mlp.fc2)
        )
        self.norm1, self.norm2 = FoldedNorm(), FoldedNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_embed(x)
        y = nhwc(self.attn(nchw(norm_conv1x1(x, self.norm1, self.conv1))))
        x = add_branch(x, y, self.conv2, self.drop_path_rate, self.training)
        y = self.mlp.act(norm_conv1x1(x, self.norm2, self.mlp.fc1))  # (B, h, w, 4 D)
        return add_branch(x, y, self.mlp.fc2, self.drop_path_rate, self.training)


class GlobalBlock(nn.Module):
    """Block of stages 3 and 4: pre-norm self-attention over all positions.

    (B, h, w, D) -> (B, h, w, D). With `layer_scale` each branch has a learned factor per channel.
    """

    graph_is_fused = True

    def __init__(
        self,
        dim: int,
        head_dim: int,
        mlp_ratio: int,
        drop_path_rate: float,
        *,
        eps: float,
        layer_scale: bool,
    ) -> None:
        super().__init__()
        self.pos_embed = PositionalConv(dim)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, dim // head_dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)
        self.gamma_1 = nn.Parameter(torch.full((dim,), 1e-6)) if layer_scale else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), 1e-6)) if layer_scale else None
        self.drop_path_rate = drop_path_rate

    def fold(self) -> None:
        """Make the factors of the branches a part of their last layers."""
        if self.gamma_1 is not None and self.gamma_2 is not None:
            scale_output(self.attn.proj, self.gamma_1)
            scale_output(self.mlp.fc2, self.gamma_2)
            self.gamma_1 = self.gamma_2 = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_embed(x)
        shape = x.shape
        x = x.flatten(1, 2)  # (B, T, D), row-major
        y = self.attn(self.norm1(x))
        y = y if self.gamma_1 is None else self.gamma_1 * y
        x = add_apart(x, drop_path(y, self.drop_path_rate, self.training))
        y = self.mlp(self.norm2(x))
        y = y if self.gamma_2 is None else self.gamma_2 * y
        x = add_apart(x, drop_path(y, self.drop_path_rate, self.training))
        return x.reshape(shape)
