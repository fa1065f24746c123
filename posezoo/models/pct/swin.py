"""The backbone of PCT: Swin Transformer V2 (arXiv 2111.09883).

Modules and keys are those of timm's `SwinTransformerV2`; the forward differs from timm's in that
attention is fused, and that the position bias, which no input changes, is kept between forwards
at inference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...weights.keys import Conversion, rename_keys
from ..layers import as_linear, attend, nchw, run_block, without_autocast
from .keys import BACKBONE_PREFIXES, DERIVED, backbone_rules

__all__ = ["INPUT_SIZE", "STRIDE", "SwinBackbone"]

INPUT_SIZE = (256, 256)  # windows, shifts and padding agree with the original at this size only
STRIDE = 32  # input pixels per cell of the last map
MAX_LOGIT_SCALE = math.log(100.0)


def attention_dtype(like: Tensor) -> torch.dtype:
    """Return the type of attention in a model whose weights are like this one."""
    device = like.device.type
    if like.is_meta or not torch.is_autocast_enabled(device):
        return like.dtype
    return torch.get_autocast_dtype(device)


def split_windows(x: Tensor, size: int) -> Tensor:
    """(B, h, w, C) -> (B, windows, size * size, C), both row-major."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, dim)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge_windows(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """(B, windows, size * size, C) -> (B, h, w, C), the inverse of `split_windows`."""
    batch, dim = x.shape[0], x.shape[-1]
    x = x.reshape(batch, height // size, width // size, size, size, dim)
    return x.transpose(2, 3).reshape(batch, height, width, dim)


def attention_bias(block: Any) -> Tensor:
    """Return what a block of timm's adds to its attention logits.

    The continuous position bias (arXiv 2111.09883, section 3.3), (1, heads, T, T); with shifted
    windows also the mask between regions, (1, windows * heads, T, T).
    """
    attn = block.attn
    table = attn.cpb_mlp(attn.relative_coords_table).flatten(0, 2)  # (positions, heads)
    table = 16.0 * torch.sigmoid(table.t())  # (heads, positions)
    bias = table[:, attn.relative_position_index]  # (heads, T, T)
    if block.attn_mask is None:
        return bias[None]
    return (block.attn_mask[:, None] + bias).flatten(0, 1)[None]


def qkv_bias(attn: Any) -> Tensor:
    """Return the bias (3 C,) of the layer to queries, keys and values."""
    return torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))


def logit_scale(attn: Any) -> Tensor:
    """Return what queries and keys are multiplied by, the root of the factor of cosines.

    (heads, 1), from a layer of timm's.
    """
    logs: Tensor = attn.logit_scale.clamp(max=MAX_LOGIT_SCALE)
    return (0.5 * logs).exp().squeeze(-1)


def window_attention(block: Any, x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Scaled cosine attention of a block of timm's in (shifted) windows of x (B, h, w, C)."""
    attn, window, shift = block.attn, block.window_size[0], block.shift_size[0]
    batch, height, width, dim = x.shape
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    x = split_windows(x, window)  # (B, windows, T, C)
    is_folded = attn.qkv.bias is not None
    qkv = attn.qkv(x) if is_folded else F.linear(x, attn.qkv.weight, qkv_bias(attn))
    qkv = qkv.unflatten(-1, (3, attn.num_heads, -1))  # (B, windows, T, 3, heads, C / heads)
    v = qkv[..., 2, :, :]
    with without_autocast(x):
        qk = qkv[..., :2, :, :].to(torch.promote_types(v.dtype, torch.float32))
        length = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).clamp(min=1e-12)
        qk = (qk * (scale / length)).to(v.dtype)
    q, k, v = (t.transpose(2, 3) for t in (*qk.unbind(3), v))  # (B, windows, heads, T, C / heads)
    shape, start = v.shape, 0
    if shift and (batch > 1 or torch.compiler.is_compiling()):
        start = 1  # windows with masks of their own join the heads
    elif shift:
        bias = bias.unflatten(1, (v.shape[1], -1))[0]  # (windows, heads, T, T)
    q, k, v = (t.flatten(start, start + 1) for t in (q, k, v))  # otherwise they join the batch
    y = attend(q, k, v, scale=1.0, bias=bias)
    y = y.reshape(shape).transpose(2, 3)  # (B, windows, T, heads, C / heads)
    y = merge_windows(attn.proj(y.flatten(-2)), window, height, width)
    return y.roll((shift, shift), (1, 2)) if shift else y


def swin_block(block: Any, x: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """Run a block of timm's on x (B, h, w, C): norms come after attention and MLP."""
    x = x + block.drop_path1(block.norm1(window_attention(block, x, bias, scale)))
    return x + block.drop_path2(block.norm2(block.mlp(x)))


class FoldedBlock(nn.Module):
    """A block for inference, (B, h, w, C) -> (B, h, w, C), whose bias is computed once."""

    graph_is_fused = False
    scale: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block
        block.attn.qkv = as_linear(block.attn.qkv.weight, qkv_bias(block.attn))
        self.register_buffer("scale", logit_scale(block.attn), persistent=False)
        self._bias: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        return swin_block(self.block, x, self.bias(attention_dtype(self.scale)), self.scale)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """Return the attention bias in this type."""
        if torch.compiler.is_compiling():  # would compile again when there is one
            with without_autocast(self.scale):
                return attention_bias(self.block).to(dtype)
        kept = self._bias
        if kept is None or (kept.device, kept.dtype) != (self.scale.device, dtype):
            with without_autocast(self.scale), torch.inference_mode(False), torch.no_grad():
                kept = self._bias = attention_bias(self.block).to(dtype)
        return kept


@dataclass(frozen=True, kw_only=True)
class _KeptBias:
    """A bias and the weights it was made from, with their versions and values.

    On CUDA, where comparing values would stall, a change through `weight.data` goes unseen.
    """

    bias: Tensor
    weights: tuple[Tensor, ...]  # kept alive, so that no other tensor gets their address
    versions: tuple[int, ...]
    values: tuple[Tensor, ...]

    def is_of(self, weights: tuple[Tensor, ...], dtype: torch.dtype) -> bool:
        return self.bias.dtype == dtype and all(
            old.data_ptr() == new.data_ptr()
            and version == new._version
            and (not new.is_cpu or torch.equal(value, new))
            for old, new, version, value in zip(self.weights, weights, self.versions, self.values)
        )


class SwinBackbone(nn.Module):
    """Four stages at strides 4, 8, 16, 32; (B, 3, 256, 256) -> (B, 8 C, 8, 8).

    State dict keys are timm's. Biases are kept per block at inference and made anew when the
    weights change: by optimizers, in place, by loading, or by moving to another device or type.
    On CUDA a change through `weight.data` is seen after the next `train()` or `eval()` only.
    Forward hooks on timm's stages and blocks run with `plain` only.

    Args:
        width: C, the channels of the first stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.

    Attributes:
        plain: run timm's own forward, as the reference to compare with.
        is_folded: whether blocks keep their bias, for inference.
    """

    layers: Any  # timm's stages

    def __init__(
        self,
        *,
        width: int,
        depths: tuple[int, int, int, int],
        num_heads: tuple[int, int, int, int],
        drop_path_rate: float,
    ) -> None:
        from timm.models.swin_transformer_v2 import SwinTransformerV2

        super().__init__()
        swin = SwinTransformerV2(
            img_size=INPUT_SIZE,
            num_classes=0,
            global_pool="",
            embed_dim=width,
            depths=depths,
            num_heads=num_heads,
            window_size=16,
            pretrained_window_sizes=(12, 12, 12, 6),
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.patch_embed, self.layers, self.norm = swin.patch_embed, swin.layers, swin.norm
        self.num_features: int = swin.num_features
        self.plain = self.is_folded = False
        self._kept: dict[Any, _KeptBias] = {}
        self._init_weights()

    def _init_weights(self) -> None:
        """Initialise like the original what timm initialises otherwise."""
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=0.02)
        nn.init.zeros_(self.patch_embed.proj.bias)
        for stage in self.layers:
            for block in stage.blocks:
                nn.init.constant_(block.norm1.weight, 1e-5)
                nn.init.constant_(block.norm2.weight, 1e-5)

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Find a backbone in a file of SimMIM, heatmap, tokenizer or pose weights, or alone.

        Of the two in a pose file it is the first. A last norm that the file lacks (SimMIM's is
        another one) becomes the identity, as nothing in the original ever trains it.
        """
        prefix = next((p for p in BACKBONE_PREFIXES if f"{p}patch_embed.proj.weight" in state), "")
        simmim = prefix == "encoder."
        inside = {
            key: value
            for key, value in state.items()
            if key.startswith(prefix) and not (simmim and key.startswith("encoder.norm."))
        }
        strip = [(f"^{prefix[:-1]}", "")] if prefix else []
        ignore = DERIVED | {"mask_token": "only SimMIM's training needs it"}
        found = rename_keys(inside, [*strip, *backbone_rules(state)], ignore)
        weights = dict(found.state)
        if "norm.weight" not in weights and "layers.3.downsample.norm.weight" in weights:
            like = weights["layers.3.downsample.norm.weight"]
            weights |= {"norm.weight": torch.ones_like(like), "norm.bias": torch.zeros_like(like)}
        return Conversion(
            state=weights,
            sources={key: key for key in weights} | dict(found.sources),
            ignored=dict(found.ignored)
            | {key: "not part of the backbone" for key in state if key not in inside},
        )

    def fold(self) -> None:
        """Let each block compute its bias once."""
        if not self.is_folded:
            self.is_folded = True
            for stage in self.layers:
                stage.blocks = nn.Sequential(*map(FoldedBlock, stage.blocks))

    def train(self, mode: bool = True) -> SwinBackbone:
        self._kept.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # copies and pickles make their own

    def bias(self, block: Any) -> Tensor:
        """Return the attention bias of a block, kept or made from the weights as they are."""
        weights = tuple(block.attn.cpb_mlp.parameters())
        learns = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        if learns or torch.compiler.is_compiling() or any(w.is_inference() for w in weights):
            return self._make_bias(block)
        kept = self._kept.get(block)
        if kept is None or not kept.is_of(weights, attention_dtype(weights[0])):
            with torch.inference_mode(False), torch.no_grad():
                kept = _KeptBias(
                    bias=self._make_bias(block),
                    weights=tuple(w.detach() for w in weights),
                    versions=tuple(w._version for w in weights),
                    values=tuple(w.clone() for w in weights),
                )
            self._kept[block] = kept
        return kept.bias

    def _make_bias(self, block: Any) -> Tensor:
        dtype = attention_dtype(self.norm.weight)
        with without_autocast(self.norm.weight):
            return attention_bias(block).to(dtype)

    def _run_stage(self, stage: Any, x: Tensor) -> Tensor:
        if self.plain:
            return stage(x)
        x = stage.downsample(x)  # (B, H / 2, W / 2, 2 C) except in the first stage
        for block in stage.blocks:
            if self.is_folded:
                x = block(x)
                continue
            recompute = stage.grad_checkpointing and self.training
            bias, scale = self.bias(block), logit_scale(block.attn)
            x = run_block(swin_block, block, x, bias, scale, recompute=recompute)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> normalised last map (B, 8 C, 8, 8)."""
        whole = self.plain or x.device.type != "cpu" or torch.compiler.is_compiling()
        parts = (x,) if whole else x.split(1)
        x = torch.cat([self._run_fine_stages(part) for part in parts])  # (B, 32, 32, 2 C)
        for stage in self.layers[2:]:
            x = self._run_stage(stage, x)
        return nchw(self.norm(x))

    def _run_fine_stages(self, x: Tensor) -> Tensor:
        """Images to the map of stage 2; a CPU's cache holds the maps of one image only."""
        x = self.patch_embed(x)  # (B, 64, 64, C)
        for stage in self.layers[:2]:
            x = self._run_stage(stage, x)
        return x

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32, before any norm.

        Each stage begins with its patch merging, so that the widths are C, 2 C, 4 C, 8 C.
        """
        x = self.patch_embed(x)  # (B, 64, 64, C)
        maps = []
        for stage in self.layers:
            x = self._run_stage(stage, x)
            maps.append(nchw(x))
        return maps
