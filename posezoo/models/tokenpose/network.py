"""TokenPose: Learning Keypoint Tokens for Human Pose Estimation (ICCV 2021, arXiv 2104.03516),
and TMPose: Token Masked Pose Transformers Are Efficient Learners (CMC 83(2), 2025,
doi 10.32604/cmc.2025.059006).

Originals: leeyegy/TokenPose and lshua98/tmpose. Neither has a licence and neither published
weights; this file is written from the papers and measured behaviour. A TMPose network is a
TokenPose network in which only some of the visual tokens take part: same parameters, same
checkpoints, so both are one class here and the mask can be turned at run time. Differences:

* Kept tokens keep their own positions (`mask_pos="token"`). The published code gives the j-th
  kept token the j-th position, wherever it came from; `mask_pos="slot"` does the same.
* A random mask is drawn per sample in training, and is one fixed list in evaluation, where the
  published code draws again at every call.
* Masked tokens are left out before they are embedded, which gives the same numbers for less.
* The last layer computes the keypoint tokens only, as nothing else leaves it. Multiply-adds in
  the configurations are those of the whole layer, 0.4 to 6 % more than are done.
* The fixed table of positions is computed, not stored; a checkpoint's copy is ignored.
* The trunk is timm's HRNet up to stage 3, its BatchNorm folded in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.model import PoseModel
from ...zoo.registry import register_model
from ..hrnet import HRNET_XS, STEM_PARTS, HRNetStem, HRNetTrunk
from ..layers import Mlp, check_count, check_images, init_transformer_weights
from .masks import MaskPos, MaskType, TokenMask, check_keep_idx, check_ratio_matters, sine_positions

__all__ = ["TokenPose"]

WIDTH = 192
MLP_WIDTH = 3 * WIDTH


class Attention(nn.Module):
    """Multi-head self-attention: tokens (B, T, D) -> the first `count` of them, (B, count, D)."""

    def __init__(self, num_heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, count: int) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, T, 3, heads, D / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, D / heads) each
        x = F.scaled_dot_product_attention(q[:, :, :count], k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, count, D)


class Block(nn.Module):
    """Pre-norm transformer layer: (B, T, D) -> its first `count` tokens, (B, count, D)."""

    def __init__(self, num_heads: int, scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention(num_heads, scale)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = Mlp(WIDTH, MLP_WIDTH)

    def forward(self, x: Tensor, count: int) -> Tensor:
        x = x[:, :count] + self.attn(self.norm1(x), count)
        return x + self.mlp(self.norm2(x))


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


class TokenPose(PoseModel):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values.

    Keypoint tokens, which are learned, and visual tokens, which are patches of the trunk's map,
    go through the transformer together; each keypoint token is then mapped to its heatmap.

    Args:
        trunk: image to feature map; None cuts patches out of the image itself.
        patch: (h, w) of a visual token in cells of the trunk's map.
        depths: layers of each stack; the tokens that leave each stack are concatenated.
        scale: factor on q . k.
    """

    positions: Tensor
    kept: Tensor

    def __init__(
        self,
        trunk: HRNetStem | None,
        *,
        input_size: tuple[int, int],
        patch: tuple[int, int],
        depths: tuple[int, ...],
        num_heads: int,
        scale: float,
        num_keypoints: int,
        in_chans: int,
        mask: TokenMask,
    ) -> None:
        super().__init__()
        stride, channels = (4, trunk.width) if trunk else (1, in_chans)
        self.input_size, self.patch, self.in_chans = input_size, patch, in_chans
        self.grid = (input_size[0] // stride // patch[0], input_size[1] // stride // patch[1])
        self.heatmap_size = (input_size[0] // 4, input_size[1] // 4)
        self.grad_checkpointing = False
        self.trunk = trunk
        self.patch_embed = nn.Linear(math.prod(patch) * channels, WIDTH)
        self.stacks = nn.ModuleList(
            nn.ModuleList(Block(num_heads, scale) for _ in range(depth)) for depth in depths
        )
        self.head = make_head(WIDTH * len(depths), self.heatmap_size)
        for part in (self.patch_embed, self.stacks, self.head):
            part.apply(init_transformer_weights)
        self.reset_head(num_keypoints)
        self.register_buffer("positions", sine_positions(self.grid, WIDTH), persistent=False)
        self._set_mask(mask)

    @property
    def num_tokens(self) -> int:
        """Number of visual tokens before masking."""
        return self.grid[0] * self.grid[1]

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename keys of TokenPose, TMPose and PPT training files; ours stay as they are."""
        return rename_keys(
            state, _KEYS, ignore={"pos_embedding": "fixed table of positions, computed here"}
        )

    def init_non_persistent_buffers(self) -> None:
        """Refill the buffers after the module was built without memory."""
        self.positions.copy_(sine_positions(self.grid, WIDTH))
        self._set_mask(self.mask)

    def reset_head(self, num_keypoints: int) -> None:
        """Put fresh keypoint tokens in place; the map to heatmaps is shared by all and stays.

        Raises:
            InputError: not a whole number above 0.
        """
        check_count("num_keypoints", num_keypoints)
        self.num_keypoints = num_keypoints
        self.keypoint_tokens = nn.Parameter(torch.empty(1, num_keypoints, WIDTH))
        nn.init.trunc_normal_(self.keypoint_tokens, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each layer in the backward pass."""
        self.grad_checkpointing = enable

    def init_trunk_from_imagenet(self) -> None:
        """Fill the trunk with timm's ImageNet weights of the same width, fetched by timm.

        Raises:
            InputError: the trunk is not HRNet up to stage 3; those are trained from scratch.
        """
        import timm

        if not isinstance(self.trunk, HRNetTrunk):
            raise InputError("only models with an HRNet trunk start from ImageNet weights")
        name = f"hrnet_w{self.trunk.width}.ms_in1k"
        donor = timm.create_model(name, pretrained=True, in_chans=self.in_chans)
        weights = donor.state_dict()
        self.trunk.load_state_dict({key: weights[key] for key in self.trunk.state_dict()})

    # --------------------------------------------------------------------------- mask

    @property
    def mask_args(self) -> dict[str, Any]:
        """The mask as it is now, as arguments of `create_model`."""
        return {
            "mask_type": self.mask.type,
            "mask_ratio": self.mask.ratio,
            "mask_pos": self.mask.pos,
            "mask_eval": self.mask.in_eval,
        }

    def settings(self) -> dict[str, Any]:
        return self.mask_args

    def set_mask(
        self,
        mask_type: MaskType | None,
        mask_ratio: float | None = None,
        mask_pos: MaskPos | None = None,
        mask_eval: bool | None = None,
    ) -> None:
        """Change the mask; what is not given stays. See `TokenMask` for the words.

        Any weights can be run with any mask. Weights trained without one expect
        `mask_pos="token"`, and lose accuracy as the ratio falls.

        Raises:
            InputError: an unknown word, a ratio outside (0, 1], or one without a mask.
        """
        given = {"ratio": mask_ratio, "pos": mask_pos, "in_eval": mask_eval}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        changes["type"] = "none" if mask_type is None else mask_type
        mask = replace(self.mask, **changes)
        if mask_ratio is not None:
            check_ratio_matters(mask)
        self._set_mask(mask)

    def set_mask_ratio(self, mask_ratio: float) -> None:
        """Change the share of visual tokens that is kept.

        Raises:
            InputError: a ratio outside (0, 1], or there is no mask to change.
        """
        mask = replace(self.mask, ratio=mask_ratio)
        check_ratio_matters(mask)
        self._set_mask(mask)

    def _set_mask(self, mask: TokenMask) -> None:
        kept = mask.kept(self.num_tokens)
        device = self.positions.device
        self.register_buffer("kept", torch.tensor(kept, device=device), persistent=False)
        self.mask = mask

    def _keep(self, batch: int, keep_idx: Tensor | None) -> Tensor | None:
        """Return the tokens to keep, (n,) or (B, n), or None for all."""
        count = len(self.kept)
        if keep_idx is not None:
            check_keep_idx(keep_idx, batch, self.num_tokens)
            keep = keep_idx.to(self.positions.device)
        elif count == self.num_tokens or not (self.training or self.mask.in_eval):
            return None
        elif self.training and self.mask.type == "random":
            noise = torch.rand(batch, self.num_tokens, device=self.positions.device)
            keep = noise.argsort(dim=1)[:, :count]  # (B, n)
        else:
            return self.kept
        return keep if self.mask.pos == "slot" else keep.sort(dim=-1).values

    def _visual_tokens(self, maps: Tensor, keep: Tensor | None) -> Tensor:
        """Cut the map (B, C, h, w) into patches and embed those to keep: (B, n, D).

        A patch is flattened by row, column, channel, the channel fastest.
        """
        patches = maps.unflatten(3, (-1, self.patch[1])).unflatten(2, (-1, self.patch[0]))
        patches = patches.permute(0, 2, 4, 3, 5, 1)  # (B, rows, columns, p1, p2, C)
        if keep is None:
            return self.patch_embed(patches.flatten(3).flatten(1, 2))
        row, column = keep // self.grid[1], keep % self.grid[1]
        if keep.ndim == 1:
            patches = patches[:, row, column]  # (B, n, p1, p2, C)
        else:
            sample = torch.arange(len(maps), device=maps.device)[:, None]
            patches = patches[sample, row, column]  # (B, n, p1, p2, C)
        return self.patch_embed(patches.flatten(2))

    # --------------------------------------------------------------------------- forward

    def forward_features(self, x: Tensor, keep_idx: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> keypoint tokens (B, K, D * stacks).

        Args:
            x: normalised images.
            keep_idx: visual tokens to keep instead of the mask's choice, int64 (n,) or (B, n)
                in raster order of the grid. Their order matters only with `mask_pos="slot"`.
                Checking its values waits for the device that holds them.

        Raises:
            InputError: wrong shape or type of either; indices out of range or repeated.
        """
        check_images(x, self.in_chans, self.input_size, 1, like=self.keypoint_tokens)
        keep = self._keep(x.shape[0], keep_idx)
        visual = self._visual_tokens(x if self.trunk is None else self.trunk(x), keep)
        if keep is None or self.mask.pos == "slot":
            positions = self.positions[: visual.shape[1]]  # (n, D)
        else:
            positions = self.positions[keep]  # (n, D) or (B, n, D)
        keypoint = self.keypoint_tokens.expand(x.shape[0], -1, -1)
        tokens = torch.cat([keypoint, visual + positions], dim=1)  # (B, K + n, D)
        # keypoint tokens have no position
        positions = F.pad(positions, (0, 0, self.num_keypoints, 0))
        last = self.stacks[-1][-1]
        outputs = []
        for stack in self.stacks:
            for i, block in enumerate(stack):  # type: ignore[var-annotated]
                if i:  # Quirk: positions are added again, but not where a stack begins
                    tokens = tokens + positions
                count = self.num_keypoints if block is last else tokens.shape[1]
                if self.grad_checkpointing and self.training:
                    tokens = checkpoint(block, tokens, count, use_reentrant=False)
                else:
                    tokens = block(tokens, count)
            outputs.append(tokens[:, : self.num_keypoints])
        return torch.cat(outputs, dim=-1)

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, K, D * stacks) -> heatmaps (B, K, H / 4, W / 4)."""
        return self.head(features).unflatten(-1, self.heatmap_size)

    def forward(self, x: Tensor, keep_idx: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4); see `forward_features`."""
        return self.forward_head(self.forward_features(x, keep_idx))


# authors' names to ours: where the parts sit, then the inside of a layer
_KEYS = [
    ("^pre_feature", "trunk"),
    *((f"^features.{name}", f"trunk.{name}") for name in STEM_PARTS),
    ("^transformer", ""),
    ("^features", ""),
    ("^transformer.layers", "stacks.0"),
    *((f"^transformer{i + 1}.layers", f"stacks.{i}") for i in range(3)),
    ("^keypoint_token", "keypoint_tokens"),
    ("^patch_to_embedding", "patch_embed"),
    ("^mlp_head", "head"),
    ("0.fn.norm", "norm1"),
    ("0.fn.fn.to_qkv", "attn.qkv"),
    ("0.fn.fn.to_out.0", "attn.proj"),
    ("0.norm", "norm1"),  # PPT has one wrapper less around attention
    ("0.fn.to_qkv", "attn.qkv"),
    ("0.fn.to_out.0", "attn.proj"),
    ("1.fn.norm", "norm2"),
    ("1.fn.fn.net.0", "mlp.fc1"),
    ("1.fn.fn.net.3", "mlp.fc2"),
]


@dataclass(frozen=True, kw_only=True)
class _Size:
    """What sets a network apart; sizes are (H, W).

    `gmacs` are true multiply-adds; `reported` is what the authors' counter says, which takes the
    number of tokens for the width of linear layers.
    """

    trunk: str | None
    patch: tuple[int, int]
    depths: tuple[int, ...]
    num_heads: int
    input_size: tuple[int, int] = (256, 192)
    params: int
    gmacs: float
    reported: float | None = None


_T = _Size(
    trunk=None, patch=(16, 12), depths=(12,), num_heads=16,
    params=5_816_448, gmacs=1.60, reported=1.29,
)  # fmt: skip
_S_V1 = _Size(
    trunk="stem", patch=(4, 3), depths=(12,), num_heads=8,
    params=6_620_736, gmacs=2.73, reported=2.23,
)  # fmt: skip
_S_V2 = replace(_S_V1, patch=(2, 2), params=6_227_520, gmacs=7.49, reported=11.62)
_B = _Size(
    trunk="hrnet_w32", patch=(4, 3), depths=(12,), num_heads=8,
    params=13_465_216, gmacs=6.28, reported=5.66,
)  # fmt: skip
_L_D6 = _Size(
    trunk="hrnet_w48", patch=(4, 3), depths=(2, 2, 2), num_heads=8,
    params=20_815_776, gmacs=9.87, reported=9.06,
)  # fmt: skip
_L_D18 = replace(_L_D6, depths=(6, 6, 6), params=25_260_192, gmacs=11.42, reported=10.34)
_L_D24 = replace(
    _L_D6, depths=(8, 8, 8), num_heads=12, params=27_482_400, gmacs=12.19, reported=10.98
)
_L_D24_LARGE = replace(
    _L_D24, patch=(6, 4), input_size=(384, 288), params=29_808_672, gmacs=24.01, reported=22.14
)
_L_D6_MPII = replace(
    _L_D6, patch=(4, 4), input_size=(256, 256), params=21_443_296, gmacs=12.89, reported=11.86
)
_XS = _Size(
    trunk="hrnet_xs", patch=(4, 3), depths=(4,), num_heads=8, input_size=(128, 96),
    params=2_413_536, gmacs=0.2865,
)  # fmt: skip
_TRUNKS = {
    None: "patches of the image",
    "stem": "stem of HRNet",
    "hrnet_w32": "HRNet-W32 to stage 3",
    "hrnet_w48": "HRNet-W48 to stage 3",
    "hrnet_xs": "a narrow HRNet to stage 3",
}


def _build(
    size: _Size,
    /,
    *,
    num_keypoints: int = 17,
    in_chans: int = 3,
    mask_type: MaskType | None = "uniform",
    mask_ratio: float = 1.0,
    mask_pos: MaskPos = "token",
    mask_eval: bool = True,
) -> TokenPose:
    kind: Any = "none" if mask_type is None else mask_type
    mask = TokenMask(type=kind, ratio=mask_ratio, pos=mask_pos, in_eval=mask_eval)
    check_count("in_chans", in_chans)
    trunk: HRNetStem | None = None
    if size.trunk == "stem":
        trunk = HRNetStem("hrnet_w32", in_chans)
    elif size.trunk:
        trunk = HRNetTrunk(HRNET_XS if size.trunk == "hrnet_xs" else size.trunk, in_chans)
    # Quirk: the S models divide by the root of the whole width, whatever the heads
    scale_width = WIDTH if size.trunk == "stem" else WIDTH // size.num_heads
    return TokenPose(
        trunk,
        input_size=size.input_size,
        patch=size.patch,
        depths=size.depths,
        num_heads=size.num_heads,
        scale=scale_width**-0.5,
        num_keypoints=num_keypoints,
        in_chans=in_chans,
        mask=mask,
    )


_NO_WEIGHTS = "the authors published no weights"
_PPT_FITS = f"{_NO_WEIGHTS} (files of the PPT project, HowieMa/PPT, fit; they carry no licence)"


def _cfg(
    size: _Size,
    *,
    note: str = "",
    unavailable: str = _NO_WEIGHTS,
    quoted: tuple[float, float] | None = None,
    paper: str = "arXiv:2104.03516",
    **model_args: Any,
) -> PretrainedCfg:
    """Configuration of weights that nobody published; `quoted` is (AP, AR) in GTPT's table."""
    is_mpii = model_args.get("num_keypoints") == 16
    terms = "COCO: annotations CC BY 4.0, images under mixed Flickr licences"
    description = f"keypoint tokens on {_TRUNKS[size.trunk]}, {sum(size.depths)} layers{note}"
    return PretrainedCfg(
        task="pose",
        dataset="mpii" if is_mpii else "coco",
        description=f"{description}; reported as {size.reported} GFLOPs",
        model_args=model_args,
        source=SourceCfg(
            unavailable=unavailable,
            dataset_license="MPII: for research, not commercial use" if is_mpii else terms,
            paper=paper,
        ),
        input=InputCfg(size=size.input_size, bbox_padding=1.25, geometry="tokenpose"),
        decode=DecodeCfg(
            codec="heatmap",
            heatmap_size=(size.input_size[0] // 4, size.input_size[1] // 4),
            refine="dark",
            blur_kernel=11,
        ),
        metrics=MetricsCfg(
            values=dict(zip(("AP", "AR"), quoted)),
            protocol="COCO val2017, detector boxes, as quoted in the table of GTPT",
            url="https://github.com/haonanwang0522/GTPT",
        )
        if quoted
        else None,
        params=size.params,
        macs=round(size.gmacs * 1e9),
    )


def _tmpose_cfg(size: _Size, gmacs: float, reported: float, **model_args: Any) -> PretrainedCfg:
    """The published mask on top, with the costs at its ratio."""
    return _cfg(
        replace(size, gmacs=gmacs, reported=reported),
        note=", 60 % of the visual tokens",
        paper="doi:10.32604/cmc.2025.059006",
        mask_type="random",
        mask_ratio=0.6,
        **model_args,
    )


@register_model(_build, coco=_cfg(_T))
def tokenpose_t_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-T, 256x192, COCO 17 keypoints."""
    return _build(_T, **model_args)


@register_model(_build, coco=_cfg(_S_V1, unavailable=_PPT_FITS, quoted=(0.725, 0.780)))
def tokenpose_s_v1_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-S-v1, 256x192, COCO 17 keypoints."""
    return _build(_S_V1, **model_args)


@register_model(_build, coco=_cfg(_S_V2))
def tokenpose_s_v2_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-S-v2, 256x192, COCO 17 keypoints."""
    return _build(_S_V2, **model_args)


@register_model(_build, coco=_cfg(_B, unavailable=_PPT_FITS, quoted=(0.747, 0.800)))
def tokenpose_b_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-B, 256x192, COCO 17 keypoints."""
    return _build(_B, **model_args)


@register_model(_build, coco=_cfg(_L_D6))
def tokenpose_l_d6_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-L/D6, 256x192, COCO 17 keypoints; MPII's configuration at COCO's size."""
    return _build(_L_D6, **model_args)


@register_model(_build, coco=_cfg(_L_D24))
def tokenpose_l_d24_256x192(**model_args: Any) -> TokenPose:
    """TokenPose-L/D24, 256x192, COCO 17 keypoints."""
    return _build(_L_D24, **model_args)


@register_model(_build, coco=_cfg(_L_D24_LARGE))
def tokenpose_l_d24_384x288(**model_args: Any) -> TokenPose:
    """TokenPose-L/D24, 384x288, COCO 17 keypoints."""
    return _build(_L_D24_LARGE, **model_args)


@register_model(_build, mpii=_cfg(_L_D6_MPII, num_keypoints=16))
def tokenpose_l_d6_256x256(**model_args: Any) -> TokenPose:
    """TokenPose-L/D6, 256x256, MPII 16 joints."""
    return _build(_L_D6_MPII, **model_args)


@register_model(_build, coco=_tmpose_cfg(_B, 5.60, 4.87))
def tmpose_b_256x192(**model_args: Any) -> TokenPose:
    """TMPose-B, 256x192, COCO 17 keypoints."""
    return _build(_B, **model_args)


@register_model(_build, coco=_tmpose_cfg(_L_D18, 10.41, 9.17))
def tmpose_l_d6_256x192(**model_args: Any) -> TokenPose:
    """TMPose-L/D6, 256x192, COCO 17 keypoints. Quirk: the file called D6 has 18 layers."""
    return _build(_L_D18, **model_args)


@register_model(_build, coco=_tmpose_cfg(_L_D24, 10.85, 9.42))
def tmpose_l_d24_256x192(**model_args: Any) -> TokenPose:
    """TMPose-L/D24, 256x192, COCO 17 keypoints."""
    return _build(_L_D24, **model_args)


@register_model(_build, mpii=_tmpose_cfg(_L_D6_MPII, 12.54, 11.47, num_keypoints=16))
def tmpose_l_d6_256x256(**model_args: Any) -> TokenPose:
    """TMPose-L/D6, 256x256, MPII 16 joints."""
    return _build(_L_D6_MPII, **model_args)


# posezoo's own weights, for demos and tests; the trunk is that of hrnet_xs_128x96.rendered
_RENDERED = replace(
    _cfg(_XS),
    description=f"keypoint tokens on {_TRUNKS[_XS.trunk]}, 4 layers; rendered people, no photos",
    source=SourceCfg(
        packaged="tokenpose_xs_128x96.rendered.safetensors",
        sha256="180d6f5367127a110566f36a931214d942a3209a6d7391d361b139e3a96b31dc",
        license="apache-2.0",
        dataset_license="rendered by posezoo.synthetic, no terms",
        paper="arXiv:2104.03516",
    ),
    decode=DecodeCfg(codec="heatmap", heatmap_size=(32, 24), refine="dark", blur_kernel=7),
)


@register_model(_build, rendered=_RENDERED)
def tokenpose_xs_128x96(**model_args: Any) -> TokenPose:
    """TokenPose-XS, 128x96, COCO 17 keypoints, rendered people."""
    return _build(_XS, **model_args)
