"""Swin Transformer V2 (arXiv 2111.09883) as PCT uses it, and its heatmap pose models.

Original: Gengzigang/PCT (MIT; its Swin code by Microsoft, MIT). Modules and keys are those of
timm's `SwinTransformerV2`; the forward differs from timm's in that attention is fused, and that
the position bias, which no input changes, is kept between forwards at inference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, PretrainedCfg, SourceCfg
from ...zoo.model import PoseModel, ZooModel
from ...zoo.registry import register_model
from ..heads import HeatmapHead
from ..layers import check_images

__all__ = ["SwinBackbone", "SwinPose"]

INPUT_SIZE = (256, 256)  # windows, shifts and padding agree with the original at this size only
_SIZES = {  # width, depths and heads of the stages
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
    "huge": (256, (2, 2, 42, 2), (8, 16, 32, 64)),
}
_PREFIXES = ("", "backbone.", "encoder.", "extra_backbone.")  # where files keep a backbone
_MAX_LOGIT_SCALE = math.log(100.0)


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Compute in the types of the tensors themselves, on the device of `like`."""
    if like.is_meta:  # knows no autocast
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)


def split_windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B, windows, size * size, C), both row-major."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, dim)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge_windows(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """(B, windows, size * size, C) -> (B, H, W, C), the inverse of `split_windows`."""
    batch, dim = x.shape[0], x.shape[-1]
    x = x.reshape(batch, height // size, width // size, size, size, dim)
    return x.transpose(2, 3).reshape(batch, height, width, dim)


def attention_bias(block: nn.Module) -> Tensor:
    """Return what a timm block adds to its attention logits.

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


def window_attention(block: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """Scaled cosine attention of a timm block inside (shifted) windows of x (B, H, W, C)."""
    attn, window, shift = block.attn, block.window_size[0], block.shift_size[0]
    batch, height, width, dim = x.shape
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
    x = split_windows(x, window)  # (B, windows, T, C)
    qkv = F.linear(x, attn.qkv.weight, torch.cat((attn.q_bias, attn.k_bias, attn.v_bias)))
    qkv = qkv.unflatten(-1, (3, attn.num_heads, -1))  # (B, windows, T, 3, heads, C / heads)
    qk, v = qkv[..., :2, :, :], qkv[..., 2, :, :]
    # cosine times scale: queries and keys get the root of it each
    scale = (0.5 * attn.logit_scale.clamp(max=_MAX_LOGIT_SCALE)).exp().squeeze(-1)  # (heads, 1)
    qk = qk * (scale / torch.linalg.vector_norm(qk, dim=-1, keepdim=True).clamp(min=1e-12))
    q, k, v = (t.transpose(2, 3) for t in (*qk.unbind(3), v))  # (B, windows, heads, T, C / heads)
    # windows join the batch; with a mask of their own they join the heads instead
    start = 1 if shift else 0
    shape = v.shape
    q, k, v = (t.flatten(start, start + 1) for t in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    y = y.reshape(shape).transpose(2, 3)  # (B, windows, T, heads, C / heads)
    y = merge_windows(attn.proj(y.flatten(-2)), window, height, width)
    return y.roll((shift, shift), (1, 2)) if shift else y


def swin_block(block: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """Run a timm block on (B, H, W, C): norms stand after attention and MLP."""
    x = x + block.drop_path1(block.norm1(window_attention(block, x, bias)))
    return x + block.drop_path2(block.norm2(block.mlp(x)))


@dataclass(frozen=True, kw_only=True)
class _KeptBias:
    """A bias and the weights it was made from: where they lie, how often changed, and values.

    Comparing values would stall CUDA; there, a change through `weight.data` goes unseen.
    """

    bias: Tensor
    weights: tuple[Tensor, ...]  # held, so that no other tensor gets their address
    versions: tuple[int, ...]
    values: tuple[Tensor, ...]

    def is_of(self, weights: tuple[Tensor, ...]) -> bool:
        return all(
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
        size: "base", "large" or "huge".

    Attributes:
        plain: run timm's own forward, as the reference to compare with.
    """

    def __init__(self, size: str, *, drop_path_rate: float = 0.0) -> None:
        from timm.models.swin_transformer_v2 import SwinTransformerV2

        super().__init__()
        dim, depths, heads = _SIZES[size]
        swin = SwinTransformerV2(
            img_size=INPUT_SIZE,
            num_classes=0,
            global_pool="",
            embed_dim=dim,
            depths=depths,
            num_heads=heads,
            window_size=16,
            pretrained_window_sizes=(12, 12, 12, 6),
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.patch_embed, self.layers, self.norm = swin.patch_embed, swin.layers, swin.norm
        self.num_features = swin.num_features
        self.plain = False
        self._kept: dict[nn.Module, _KeptBias] = {}
        self._init_weights()

    def _init_weights(self) -> None:
        """Start where the original does; timm has done the linear layers."""
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=0.02)
        nn.init.zeros_(self.patch_embed.proj.bias)
        for stage in self.layers:
            for block in stage.blocks:
                nn.init.constant_(block.norm1.weight, 1e-5)
                nn.init.constant_(block.norm2.weight, 1e-5)

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Find a backbone in a file of SimMIM, heatmap, tokenizer or pose weights, or alone.

        A pose file holds two; it is the first. A last norm that the file lacks (SimMIM's is
        another one) becomes the identity, as nothing in the original ever trains it.
        """
        prefix = next((p for p in _PREFIXES if f"{p}patch_embed.proj.weight" in state), "")
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

    def train(self, mode: bool = True) -> SwinBackbone:
        self._kept.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # copies and pickles make their own

    def bias(self, block: nn.Module) -> Tensor:
        """Return the attention bias of a block, kept or made from the weights as they are."""
        weights = tuple(block.attn.cpb_mlp.parameters())
        learns = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        if learns or torch.compiler.is_compiling() or any(w.is_inference() for w in weights):
            return self._make_bias(block)
        kept = self._kept.get(block)
        if kept is None or not kept.is_of(weights):
            with torch.inference_mode(False), torch.no_grad():
                kept = _KeptBias(
                    bias=self._make_bias(block),
                    weights=tuple(w.detach() for w in weights),
                    versions=tuple(w._version for w in weights),
                    values=tuple(w.clone() for w in weights),
                )
            self._kept[block] = kept
        return kept.bias

    def _make_bias(self, block: nn.Module) -> Tensor:
        with without_autocast(self.norm.weight):
            return attention_bias(block)

    def _run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.plain:
            return stage(x)
        x = stage.downsample(x)  # (B, H / 2, W / 2, 2 C) except in the first stage
        for block in stage.blocks:
            bias = self.bias(block)
            if stage.grad_checkpointing and self.training:
                x = checkpoint(swin_block, block, x, bias, use_reentrant=False)
            else:
                x = swin_block(block, x, bias)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> normalised last map (B, 8 C, 8, 8)."""
        whole = self.plain or x.device.type != "cpu" or torch.compiler.is_compiling()
        parts = (x,) if whole else x.split(1)
        x = torch.cat([self._run_fine_stages(part) for part in parts])  # (B, 32, 32, 2 C)
        for stage in self.layers[2:]:
            x = self._run_stage(stage, x)
        return self.norm(x).permute(0, 3, 1, 2)

    def _run_fine_stages(self, x: Tensor) -> Tensor:
        """Images to the map of stage 2.

        On a CPU one image at a time: its maps stay in the cache, those of a batch do not.
        """
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
            maps.append(x.permute(0, 3, 1, 2))
        return maps


class SwinModel(ZooModel):
    """What all models with this backbone share: access to its maps."""

    def __init__(self, backbone: SwinBackbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> normalised last map (B, 8 C, 8, 8).

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, 3, INPUT_SIZE, 32)
        return self.backbone(x)

    def forward_intermediates(self, x: Tensor) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32.

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, 3, INPUT_SIZE, 32)
        return self.backbone.forward_intermediates(x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        for stage in self.backbone.layers:
            stage.grad_checkpointing = enable


class SwinPose(SwinModel, PoseModel):
    """Top-down heatmap pose: (B, 3, 256, 256) -> heatmaps (B, K, 64, 64), raw values."""

    def __init__(self, backbone: SwinBackbone, head: HeatmapHead) -> None:
        super().__init__(backbone)
        self.head = head
        self.num_keypoints = head.final_layer.out_channels

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        bare = [(f"^{name}", f"backbone.{name}") for name in ("patch_embed", "layers", "norm3")]
        rules = [*UNWRAP, *bare, *backbone_rules(state), ("^keypoint_head", "head")]
        return rename_keys(state, rules, DERIVED)

    def reset_head(self, num_keypoints: int) -> None:
        """Put a fresh last layer for another number of keypoints in place."""
        self.head.reset(self.head.final_layer.in_channels, num_keypoints)
        self.num_keypoints = num_keypoints

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, 8 C, 8, 8) -> heatmaps (B, K, 64, 64)."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


DERIVED = {  # reasons to leave keys out
    "relative_coords_table": "computed from the window size",
    "relative_position_index": "computed from the window size",
}
UNWRAP = [  # files whose every key was put below "backbone."
    (f"^backbone.{name}", name) for name in ("backbone", "extra_backbone", "keypoint_head")
]


def backbone_rules(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Renaming rules for Swin keys, wherever in the key they stand.

    The original merges patches at the end of a stage, timm at the start of the next one.
    """
    rules = [("rpe_mlp", "cpb_mlp"), ("norm3", "norm")]
    if any(".layers.0.downsample." in f".{key}" for key in state):
        rules += [(f"layers.{i}.downsample", f"layers.{i + 1}.downsample") for i in (2, 1, 0)]
    return rules


# ------------------------------------------------------------------------------- configurations

_SHARE = "https://mailustceducn-my.sharepoint.com/:f:/g/personal/aa397601_mail_ustc_edu_cn/"


def pct_source(folder: str, size: str) -> SourceCfg:
    """Where the PCT project keeps a file: a SharePoint folder, which needs a browser."""
    return SourceCfg(
        original_page=_SHARE + folder,
        original_filename=f"swin_{size}.pth",
        license="mit",
        dataset_license="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
        paper="arXiv:2303.11638",
    )


def _cfg(size: str, *, params: int, gmacs: float) -> PretrainedCfg:
    return PretrainedCfg(
        task="pose",
        dataset="coco",
        description=f"top-down heatmap pose on Swin-V2-{size}, the backbone of PCT",
        source=pct_source("EiHuJ2SUpOhEmbuEXS5KkDUBBaeRlz2QyVnEcDwDUuJtwA?e=dCiiP1", size),
        input=InputCfg(size=INPUT_SIZE, bbox_padding=1.25, geometry="mmpose0"),
        decode=DecodeCfg(
            codec="heatmap", heatmap_size=(64, 64), refine="quarter", shift_heatmap=True
        ),
        params=params,
        macs=round(gmacs * 1e9),
    )


def _build(size: str, /, *, num_keypoints: int = 17, drop_path_rate: float = 0.0) -> SwinPose:
    backbone = SwinBackbone(size, drop_path_rate=drop_path_rate)
    width = backbone.num_features
    head = HeatmapHead(width, num_keypoints, deconv_channels=(width // 32,) * 3, kernel_size=2)
    return SwinPose(backbone, head)


@register_model(_build, coco=_cfg("base", params=87_033_833, gmacs=21.99))
def hmp_swin_base(**model_args: Any) -> SwinPose:
    """Swin-V2-Base with a heatmap head, 256x256, COCO 17 keypoints."""
    return _build("base", **model_args)


@register_model(_build, coco=_cfg("large", params=195_517_397, gmacs=47.77))
def hmp_swin_large(**model_args: Any) -> SwinPose:
    """Swin-V2-Large with a heatmap head, 256x256, COCO 17 keypoints."""
    return _build("large", **model_args)


@register_model(_build, coco=_cfg("huge", params=650_040_001, gmacs=164.37))
def hmp_swin_huge(**model_args: Any) -> SwinPose:
    """Swin-V2-Huge with a heatmap head, 256x256, COCO 17 keypoints."""
    return _build("huge", **model_args)
