"""Pieces that two or more families use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..device import has_bfloat16_tiles
from ..errors import InputError
from ..onednn import conv, is_fused
from ..packing import can_pack

__all__ = [
    "Attention",
    "FoldedNorm",
    "Mlp",
    "add_apart",
    "affine_of_norm",
    "as_linear",
    "attend",
    "check_images",
    "depthwise_gelu",
    "drop_path",
    "drop_path_rates",
    "fold_norms",
    "init_transformer_weights",
    "module_list",
    "nchw",
    "nhwc",
    "run_block",
    "without_autocast",
]

M = TypeVar("M")


def nchw(x: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w) as a view in channels-last memory."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C), a view of channels-last memory."""
    return x.permute(0, 2, 3, 1)


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Compute in the types of the tensors themselves, on the device of `like`."""
    if like.is_meta:  # has no autocast
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def add_apart(a: Tensor, b: Tensor) -> Tensor:
    """Return `a + b`, in a graph by an operator that no fuser joins to the layer before it.

    Joined, it rounds once less in bfloat16, and is written over a map that may still be needed.
    """
    return torch.addcmul(a, b, b.new_ones(())) if is_fused() else a + b


def as_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a linear layer for inference with these weights (C_out, C_in) and (C_out,)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def depthwise_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a depthwise convolution that keeps the size, then exact GELU: (B, C, h, w).

    Where no gradient is recorded, oneDNN does both in one pass.
    """
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    padding, groups = (weight.shape[-2] // 2, weight.shape[-1] // 2), len(weight)
    is_plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or is_fused()
    if is_plain or not can_pack(x.device, x.dtype) or not x.numel():
        return F.gelu(F.conv2d(x, weight, bias, padding=padding, groups=groups))
    return conv(x, weight, bias, padding, (1, 1), (1, 1), groups, "gelu")


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """Return a ModuleList as a sequence whose type says what is in it."""
    return cast("Sequence[M]", nn.ModuleList(cast("Iterable[nn.Module]", modules)))


def check_images(
    x: Tensor,
    channels: int,
    size: tuple[int, int] | None,
    multiple: int,
    *,
    like: Tensor,
) -> None:
    """Check that `x` is a batch of images of the right size.

    Args:
        x: should be (B, channels, H, W), floating point.
        size: the only (H, W) accepted, or None for any multiple of `multiple`.
        like: a weight; images must be on its device and, outside autocast, of its type.

    Raises:
        InputError: not a tensor, or of a wrong shape, type or device.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"images must be a torch tensor, got {type(x).__name__}")
    want = f"(B, {channels}, {size[0]}, {size[1]})" if size else f"(B, {channels}, H, W)"
    if x.ndim != 4 or x.shape[1] != channels:
        raise InputError(f"images must have shape {want}, got {tuple(x.shape)}")
    if size is not None and tuple(x.shape[2:]) != size:
        raise InputError(
            f"images must have shape {want}, got {tuple(x.shape)}; "
            "resize them, or choose the variant made for this size"
        )
    if size is None and (
        min(x.shape[2:]) < multiple or x.shape[2] % multiple or x.shape[3] % multiple
    ):
        raise InputError(
            f"image height and width must be multiples of {multiple}, got {tuple(x.shape[2:])}"
        )
    if not x.is_floating_point():
        raise InputError(f"images must be normalised floating point, got {x.dtype}")
    if x.device != like.device:
        raise InputError(f"images are on {x.device}, the model on {like.device}; move one of them")
    # autocast converts everything but float64
    if x.dtype != like.dtype and (
        torch.float64 in (x.dtype, like.dtype) or not torch.is_autocast_enabled(x.device.type)
    ):
        raise InputError(
            f"images are {x.dtype}, the model {like.dtype}; convert one of them, or use "
            "torch.autocast for float16 and bfloat16"
        )


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Drop a residual branch per sample (stochastic depth, arXiv 1603.09382), training only.

    Kept samples are divided by the keep probability. Noise comes from torch's generator.
    """
    if rate == 0.0 or not training:
        return x
    keep = torch.rand(x.shape[0], *([1] * (x.ndim - 1)), device=x.device) >= rate
    return x * keep.to(x.dtype) / (1.0 - rate)


def drop_path_rates(depths: Sequence[int], last: float) -> list[list[float]]:
    """Return the rate of every block by stage, rising linearly from 0 to `last`."""
    count = sum(depths)
    rates = iter(last * j / max(count - 1, 1) for j in range(count))
    return [[next(rates) for _ in range(depth)] for depth in depths]


def run_block(block: Callable[..., Tensor], *args: object, recompute: bool) -> Tensor:
    """Run a block; with `recompute`, compute its activations again in the backward pass."""
    if recompute:
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)


class FoldedNorm(nn.Identity):
    """Stands where a BatchNorm was that is part of the convolution beside it now."""


def fold_norms(module: nn.Module) -> None:
    """Fold every BatchNorm inside into the convolution registered before it in the same module.

    In evaluation the norm is an affine map per channel. A convolution with hooks stays as it is.
    """
    for parent in list(module.modules()):
        conv: nn.Conv2d | nn.ConvTranspose2d | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d)):
                conv = None if child._forward_pre_hooks or child._forward_hooks else child
            elif isinstance(child, (nn.BatchNorm2d, nn.SyncBatchNorm)) and conv is not None:
                _fold_norm(conv, child)
                setattr(parent, name, FoldedNorm())
                conv = None


def _fold_norm(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module) -> None:
    """Make `conv` compute `norm(conv(x))`."""
    scale, shift = affine_of_norm(norm)
    across = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    bias = shift if conv.bias is None else torch.addcmul(shift, conv.bias, scale)
    conv.weight = nn.Parameter(conv.weight * scale.view(across), requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


def affine_of_norm(norm: Any) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) of a BatchNorm in evaluation, y = x * scale + shift."""
    scale: Tensor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float, bias: Tensor | None = None) -> Tensor:
    """Return softmax(scale q k^T + bias) v.

    In bfloat16 on a CPU the fused operator takes 1.2 to 1.9 times as long as its three steps,
    because it converts numbers one by one. With AMX, which it uses, it takes half as long, and
    another third less where keys fill whole vectors: to more than 100, masked ones are added.

    Args:
        q: queries (B, heads, T, D).
        k, v: keys and values (B, heads, S, D).
        bias: broadcast to (B, heads, T, S).
    """
    is_half = v.dtype == torch.bfloat16 and v.is_cpu and not v.requires_grad
    in_graph = torch.compiler.is_compiling() or is_fused()
    if is_half and not in_graph and not has_bfloat16_tiles():
        logits = (q * scale).to(v.dtype) @ k.to(v.dtype).mT
        if bias is not None:
            logits += bias
        return logits.softmax(-1) @ v
    keys = k.shape[-2]
    missing = -keys % 16
    if missing and bias is None and is_half and not torch.compiler.is_compiling() and keys > 100:
        k, v = (F.pad(x, (0, 0, 0, missing)) for x in (k, v))
        bias = v.new_zeros(keys + missing)
        bias[keys:] = -torch.inf
        bias = bias.expand(1, 1, q.shape[-2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, T, D) -> (B, T, D), one projection for q, k, v."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D / heads) each
        x = attend(q, k, v, scale=q.shape[-1] ** -0.5)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))  # (B, T, D)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last axis."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def init_transformer_weights(module: nn.Module) -> None:
    """Linear layers truncated normal (std 0.02) with zero bias; norms stay at 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
