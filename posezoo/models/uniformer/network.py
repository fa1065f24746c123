"""UniFormer: Unifying Convolution and Self-attention for Visual Recognition (arXiv 2201.09450).

Pose models: the UniFormer project of mmpose 1.x (Apache-2.0), weights by the authors
(Sense-X/UniFormer, Apache-2.0). Classifiers: Sense-X/UniFormer; Hub card says MIT.
Written from the papers and measured behaviour, with these differences from the originals:
maps stay channels-last, so that tokens, norms and 1x1 convolutions are views or plain matrix
products; attention is fused; in evaluation BatchNorm and the residual of the positional
convolution are folded into the neighbouring weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.model import Classifier, PoseModel, ZooModel
from ...zoo.registry import register_model
from ..heads import HeatmapHead
from ..layers import Attention, Mlp, check_images, drop_path, init_transformer_weights

__all__ = ["UniFormerBackbone", "UniFormerClassifier", "UniFormerPose"]

WIDTHS = (64, 128, 320, 512)


def nchw(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W) as a view in channels-last memory."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C), a view of channels-last memory."""
    return x.permute(0, 2, 3, 1)


def norm_conv1x1(x: Tensor, norm: nn.BatchNorm2d, conv: nn.Conv2d) -> Tensor:
    """Apply `conv(norm(x))`, a 1x1 convolution, to x (B, H, W, C) as one matrix product.

    In evaluation the norm is an affine map per channel and folds into the matrix.
    """
    weight, bias = conv.weight.flatten(1), conv.bias  # (C_out, C_in)
    if norm.training:
        return F.linear(nhwc(norm(nchw(x))), weight, bias)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return F.linear(x, weight * scale, torch.addmv(bias, weight, shift))


class PositionalConv(nn.Conv2d):
    """Dynamic position embedding: x + depthwise 3x3 convolution of x, on (B, H, W, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        centre = torch.zeros(1, 1, 3, 3)
        centre[..., 1, 1] = 1.0
        self.register_buffer("centre", centre, persistent=False)

    def init_non_persistent_buffers(self) -> None:
        """Refill the buffer after the module was built without memory."""
        self.centre.zero_()
        self.centre[..., 1, 1] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight + self.centre  # the residual is a 1 in the middle
        return nhwc(F.conv2d(nchw(x), weight, self.bias, padding=1, groups=self.groups))


class ConvMlp(nn.Module):
    """MLP whose two layers are stored as 1x1 convolutions."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)


class LocalBlock(nn.Module):
    """Block of stages 1 and 2: a 5x5 depthwise convolution in place of attention.

    (B, H, W, D) -> (B, H, W, D). The branch conv1, attn, conv2 has no activation.
    """

    def __init__(self, dim: int, mlp_ratio: int, drop_path_rate: float) -> None:
        super().__init__()
        self.pos_embed = PositionalConv(dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.conv2 = nn.Conv2d(dim, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ConvMlp(dim, mlp_ratio * dim)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_embed(x)
        y = nhwc(self.attn(nchw(norm_conv1x1(x, self.norm1, self.conv1))))
        y = F.linear(y, self.conv2.weight.flatten(1), self.conv2.bias)
        x = x + drop_path(y, self.drop_path_rate, self.training)
        y = F.gelu(norm_conv1x1(x, self.norm2, self.mlp.fc1))  # (B, H, W, 4 D)
        y = F.linear(y, self.mlp.fc2.weight.flatten(1), self.mlp.fc2.bias)
        return x + drop_path(y, self.drop_path_rate, self.training)


class GlobalBlock(nn.Module):
    """Block of stages 3 and 4: pre-norm self-attention over all positions.

    (B, H, W, D) -> (B, H, W, D). With `layer_scale` each branch has a learned factor per channel.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int,
        mlp_ratio: int,
        drop_path_rate: float,
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

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_embed(x)
        shape = x.shape
        x = x.flatten(1, 2)  # (B, T, D), row-major
        y = self.attn(self.norm1(x))
        y = y if self.gamma_1 is None else self.gamma_1 * y
        x = x + drop_path(y, self.drop_path_rate, self.training)
        y = self.mlp(self.norm2(x))
        y = y if self.gamma_2 is None else self.gamma_2 * y
        x = x + drop_path(y, self.drop_path_rate, self.training)
        return x.reshape(shape)


class PatchEmbed(nn.Module):
    """Non-overlapping patches: (B, H, W, C) -> (B, H / p, W / p, D), LayerNorm at the end."""

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

    def forward(self, x: Tensor) -> Tensor:
        return nhwc(self.proj(nchw(x)))


class Stage(nn.Module):
    """Patch embedding, then blocks; `norm` (pose only) makes the stage's output map."""

    def __init__(
        self, patch_embed: nn.Module, blocks: list[nn.Module], norm_dim: int | None
    ) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(norm_dim, eps=1e-6) if norm_dim else None
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class UniFormerBackbone(nn.Module):
    """Four stages at strides 4, 8, 16, 32 with widths 64, 128, 320, 512.

    Args:
        head_dim: channels per attention head. No tensor shape shows it: a wrong value loads
            without complaint and ruins accuracy.
        block_eps: epsilon of the LayerNorms inside attention blocks. Quirk: mmpose's port
            evaluates with 1e-5 weights that were trained with 1e-6; the effect is 1e-6.
        stage_norms: LayerNorm after each stage (pose backbones have it).
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        *,
        in_chans: int = 3,
        head_dim: int = 64,
        mlp_ratio: int = 4,
        drop_path_rate: float = 0.0,
        block_eps: float = 1e-6,
        layer_scale: bool = False,
        conv_stem: bool = False,
        stage_norms: bool = False,
    ) -> None:
        super().__init__()
        rates = iter(drop_path_rate * j / (sum(depths) - 1) for j in range(sum(depths)))
        embed = ConvStem if conv_stem else PatchEmbed
        stages = []
        for i, (dim, depth) in enumerate(zip(WIDTHS, depths)):
            blocks: list[nn.Module] = [
                LocalBlock(dim, mlp_ratio, next(rates))
                if i < 2
                else GlobalBlock(dim, head_dim, mlp_ratio, next(rates), block_eps, layer_scale)
                for _ in range(depth)
            ]
            channels = WIDTHS[i - 1] if i else in_chans
            patch_embed = embed(channels, dim, 4 if i == 0 else 2)
            stages.append(Stage(patch_embed, blocks, dim if stage_norms else None))
        self.stages = nn.ModuleList(stages)
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
            maps.append(nchw(stage.norm(x) if norm and stage.norm is not None else x))
        return maps


class _UniFormer(ZooModel):
    """What the pose model and the classifier share: a backbone and access to its maps."""

    def __init__(self, backbone: UniFormerBackbone, input_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_size = input_size

    def _check(self, x: Tensor) -> None:
        patch_embed = self.backbone.stages[0].patch_embed
        first = patch_embed.proj if isinstance(patch_embed, PatchEmbed) else patch_embed.proj[0]
        check_images(x, first.in_channels, self.input_size, 32)

    def forward_intermediates(self, x: Tensor, *, norm: bool = False) -> list[Tensor]:
        """Return the maps after each stage, (B, D, h, w) at strides 4, 8, 16, 32.

        Args:
            x: normalised images (B, 3, H, W).
            norm: apply the stage norms that pose backbones have.

        Raises:
            InputError: wrong shape or type.
        """
        self._check(x)
        return self.backbone.forward_intermediates(x, norm=norm)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        for stage in self.backbone.stages:
            stage.grad_checkpointing = enable


class UniFormerPose(_UniFormer, PoseModel):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self, backbone: UniFormerBackbone, head: HeatmapHead, input_size: tuple[int, int]
    ) -> None:
        super().__init__(backbone, input_size)
        self.head = head
        self.num_keypoints = head.final_layer.out_channels

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename mmpose 1.x and authors' (mmpose 0.16) keys; ours stay as they are."""
        return rename_keys(state, _POSE_KEYS, ignore={"data_preprocessor": "input normalisation"})

    def reset_head(self, num_keypoints: int) -> None:
        """Put a fresh last layer for another number of keypoints in place."""
        self.head.reset(self.head.final_layer.in_channels, num_keypoints)
        self.num_keypoints = num_keypoints

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised last map (B, 512, H / 32, W / 32).

        Raises:
            InputError: wrong shape or type.
        """
        self._check(x)
        return nchw(self.backbone.stages[3].norm(self.backbone(x)))

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, 512, h, w) -> heatmaps (B, K, 8 h, 8 w)."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class UniFormerClassifier(_UniFormer, Classifier):
    """ImageNet classifier: (B, 3, H, W) -> logits (B, num_classes)."""

    def __init__(self, backbone: UniFormerBackbone, num_classes: int) -> None:
        super().__init__(backbone, None)
        self.num_features = WIDTHS[-1]
        self.norm = nn.BatchNorm2d(WIDTHS[-1])
        self.reset_head(num_classes)

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        return rename_keys(state, _CLASSIFIER_KEYS)

    def reset_head(self, num_classes: int) -> None:
        """Put a fresh classifier for another number of classes in place; 0 removes it."""
        self.num_classes = num_classes
        self.head = nn.Linear(WIDTHS[-1], num_classes) if num_classes else nn.Identity()
        init_transformer_weights(self.head)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised last map (B, 512, H / 32, W / 32).

        Raises:
            InputError: wrong shape or type; H and W must be multiples of 32.
        """
        self._check(x)
        return self.norm(nchw(self.backbone(x)))

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """(B, 512, h, w) -> logits (B, num_classes), or the mean (B, 512) before them."""
        x = features.mean((2, 3))  # (B, 512)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _stage_keys(before: str) -> list[tuple[str, str]]:
    rules = []
    for i in range(4):
        stage = f"backbone.stages.{i}"
        rules += [(f"^{before}patch_embed{i + 1}", f"{stage}.patch_embed")]
        rules += [(f"^{before}blocks{i + 1}", f"{stage}.blocks")]
    return rules


_POSE_KEYS = [
    *_stage_keys("backbone."),
    *((f"^backbone.norm{i + 1}", f"backbone.stages.{i}.norm") for i in range(4)),
    ("^keypoint_head", "head"),
]
_CLASSIFIER_KEYS = _stage_keys("")

_PAPER = (
    "UniFormer: Unifying Convolution and Self-attention for Visual Recognition, "
    "Li et al., TPAMI 2023, arXiv:2201.09450"
)
_MMPOSE = "https://download.openmmlab.com/mmpose/v1/projects/uniformer/"
_DEPTHS = {
    "small": (3, 4, 8, 3),
    "small_plus": (3, 5, 9, 3),
    "base": (5, 8, 20, 7),
}


def _build_pose(
    size: str,
    input_size: tuple[int, int],
    /,
    *,
    num_keypoints: int = 17,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    block_eps: float = 1e-5,
) -> UniFormerPose:
    backbone = UniFormerBackbone(
        _DEPTHS[size],
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        block_eps=block_eps,
        stage_norms=True,
    )
    head = HeatmapHead(WIDTHS[-1], num_keypoints, deconv_channels=(256, 256, 256))
    return UniFormerPose(backbone, head, input_size)


def _build_classifier(
    size: str,
    head_dim: int,
    layer_scale: bool,
    /,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
) -> UniFormerClassifier:
    backbone = UniFormerBackbone(
        _DEPTHS[size],
        in_chans=in_chans,
        head_dim=head_dim,
        drop_path_rate=drop_path_rate,
        layer_scale=layer_scale,
        conv_stem=size == "small_plus",
    )
    return UniFormerClassifier(backbone, num_classes)


# fmt: off
# GMACs; mmpose's file, start of its sha256, (AP, AP50, AP75, AR, AR50);
# the authors' Google Drive id, (AP, AP50, AP75, AR)
_POSE = {
    "s_256x192": (
        4.69, "top_down_256x192_global_small-d4a7fdac_20230724.pth", "d4a7fdac",
        (0.740, 0.902, 0.821, 0.795, 0.941),
        "162R0JuTpf3gpLe1IK6oxRoQK7JSj4ylx", (0.740, 0.903, 0.822, 0.795)),
    "s_384x288": (
        11.10, "top_down_384x288_global_small-7a613f78_20230724.pth", "7a613f78",
        (0.759, 0.906, 0.830, 0.810, 0.943),
        "163vuFkpcgVOthC05jCwjGzo78Nr0eikW", (0.759, 0.906, 0.834, 0.814)),
    "s_448x320": (
        14.77, "top_down_448x320_global_small-18b760de_20230724.pth", "18b760de",
        (0.762, 0.906, 0.832, 0.814, 0.944),
        "165nQRsT58SXJegcttksHwDn46Fme5dGX", (0.762, 0.906, 0.832, 0.814)),
    "b_256x192": (
        9.22, "top_down_256x192_global_base-1713bcd4_20230724.pth", "1713bcd4",
        (0.750, 0.905, 0.830, 0.804, 0.942),
        "15tzJaRyEzyWp2mQhpjDbBzuGoyCaJJ-2", (0.750, 0.906, 0.830, 0.804)),
    "b_384x288": (
        22.11, "top_down_384x288_global_base-c650da38_20230724.pth", "c650da38",
        (0.767, 0.908, 0.841, 0.819, 0.946),
        "15qtUaOR_C7-vooheJE75mhA9oJQt3gSx", (0.767, 0.908, 0.840, 0.814)),
    "b_448x320": (
        29.61, "top_down_448x320_global_base-a05c185f_20230724.pth", "a05c185f",
        (0.774, 0.910, 0.844, 0.825, 0.949),
        "156iNxetiCk8JJz41aFDmFh9cQbCaMk3D", (0.774, 0.911, 0.844, 0.825)),
}
# file, Drive id, top-1, parameters, GMACs, Hub copy and its sha256 where there is one
_IN1K = {
    "small": (
        "uniformer_small_in1k.pth", "1-uepH3Q3BhTmWU6HK-sGAGQC_MpfIiPD", 0.829, 21_545_256, 3.64,
        "hf:Andy1621/uniformer/uniformer_small_in1k.pth",
        "fd192c31f8bd77670de8f171111bd51f56fd87e6aea45043ab2edc181e1fa775"),
    "small_plus": (
        "uniformer_small_plus_in1k.pth", "10IN5ULcjz0Ld_lDokkTGOSmRFXLzUkEs", 0.834,
        24_032_552, 4.21,
        "hf:Sense-X/uniformer_image/uniformer_small_plus_in1k.pth",
        "53bc55180eb750f00b12933c75fefb5f9ee652bea606cd26104b738f0c4c472e"),
    "small_plus_dim64": (
        "uniformer_small_plus_dim64_in1k.pth", "178ipRvMBKeAP_Fzy6fEr2HQkIQWdgEY6", 0.834,
        24_032_552, 4.21, None, None),
    "base": (
        "uniformer_base_in1k.pth", "1-wT39QazTGELxgrQIu6J12D3qcla3hui", 0.838, 49_776_552, 8.27,
        "hf:Sense-X/uniformer_image/uniformer_base_in1k.pth",
        "82c01015818cb897b00a29352043053df53ce4c02c2d012226b3a8a12ccb60eb"),
    "base_ls": (
        "uniformer_base_ls_in1k.pth", "10FnwzMVgGL8bPO3EMZ7oG4vDvqnPoBK5", 0.839, 49_796_520, 8.27,
        None, None),
}
# fmt: on


def _pose_cfgs(variant: str) -> dict[str, PretrainedCfg]:
    """Tag `coco` is mmpose's copy and table, `coco_official` the authors' own."""
    gmacs, filename, sha256, mmpose, drive_id, authors = _POSE[variant]
    height, width = map(int, variant[2:].split("x"))
    source = SourceCfg(
        original_urls=(_MMPOSE + filename,),
        original_filename=filename,
        original_sha256=sha256,
        license="apache-2.0",
        dataset_license="COCO: annotations CC BY 4.0, images under mixed Flickr licences",
        paper=_PAPER,
    )
    coco = PretrainedCfg(
        task="pose",
        dataset="coco",
        description="top-down heatmap pose, mmpose's copy of the authors' weights",
        source=source,
        input=InputCfg(size=(height, width), bbox_padding=1.25, geometry="mmpose1"),
        decode=DecodeCfg(
            codec="heatmap",
            heatmap_size=(height // 4, width // 4),
            refine="quarter",
            shift_heatmap=True,
        ),
        metrics=MetricsCfg(
            values=dict(zip(("AP", "AP50", "AP75", "AR", "AR50"), mmpose)),
            protocol="COCO val2017, bbox=det56.4, flip test, float32",
            url="https://github.com/open-mmlab/mmpose/tree/main/projects/uniformer",
        ),
        params=25_233_489 if variant.startswith("s") else 53_464_785,
        macs=round(gmacs * 1e9),
    )
    official = replace(
        coco,
        description="top-down heatmap pose, the authors' own files and code (block eps 1e-6)",
        model_args={"block_eps": 1e-6},
        source=replace(
            source,
            original_urls=(f"gdrive:{drive_id}",),
            original_filename=None,
            original_sha256=None,
        ),
        input=replace(coco.input, geometry="mmpose0"),
        metrics=MetricsCfg(
            values=dict(zip(("AP", "AP50", "AP75", "AR"), authors)),
            protocol="COCO val2017, bbox=det56.4, flip test, float16",
            url="https://github.com/Sense-X/UniFormer/tree/main/pose_estimation",
        ),
    )
    return {"coco": coco, "coco_official": official}


def _in1k_cfg(variant: str) -> PretrainedCfg:
    filename, drive_id, top1, params, gmacs, hub_copy, sha256 = _IN1K[variant]
    return PretrainedCfg(
        task="classification",
        dataset="in1k",
        description="ImageNet-1k classifier",
        source=SourceCfg(
            original_urls=((hub_copy,) if hub_copy else ()) + (f"gdrive:{drive_id}",),
            original_filename=filename,
            original_sha256=sha256,
            license="mit",
            dataset_license="ImageNet-1k: research and non-commercial terms for the images",
            paper=_PAPER,
        ),
        input=InputCfg(size=(224, 224), interpolation="bicubic", crop_pct=0.875),
        metrics=MetricsCfg(
            values={"top1": top1},
            protocol="ImageNet-1k val, 224, crop 0.875 bicubic",
            url="https://github.com/Sense-X/UniFormer/tree/main/image_classification",
        ),
        params=params,
        macs=round(gmacs * 1e9),
    )


@register_model(_build_pose, **_pose_cfgs("s_256x192"))
def uniformer_s_256x192(**model_args: Any) -> UniFormerPose:
    """UniFormer-Small, 256x192, COCO 17 keypoints."""
    return _build_pose("small", (256, 192), **model_args)


@register_model(_build_pose, **_pose_cfgs("s_384x288"))
def uniformer_s_384x288(**model_args: Any) -> UniFormerPose:
    """UniFormer-Small, 384x288, COCO 17 keypoints."""
    return _build_pose("small", (384, 288), **model_args)


@register_model(_build_pose, **_pose_cfgs("s_448x320"))
def uniformer_s_448x320(**model_args: Any) -> UniFormerPose:
    """UniFormer-Small, 448x320, COCO 17 keypoints."""
    return _build_pose("small", (448, 320), **model_args)


@register_model(_build_pose, **_pose_cfgs("b_256x192"))
def uniformer_b_256x192(**model_args: Any) -> UniFormerPose:
    """UniFormer-Base, 256x192, COCO 17 keypoints."""
    return _build_pose("base", (256, 192), **model_args)


@register_model(_build_pose, **_pose_cfgs("b_384x288"))
def uniformer_b_384x288(**model_args: Any) -> UniFormerPose:
    """UniFormer-Base, 384x288, COCO 17 keypoints."""
    return _build_pose("base", (384, 288), **model_args)


@register_model(_build_pose, **_pose_cfgs("b_448x320"))
def uniformer_b_448x320(**model_args: Any) -> UniFormerPose:
    """UniFormer-Base, 448x320, COCO 17 keypoints."""
    return _build_pose("base", (448, 320), **model_args)


@register_model(_build_classifier, in1k=_in1k_cfg("small"))
def uniformer_small(**model_args: Any) -> UniFormerClassifier:
    """UniFormer-S, ImageNet-1k."""
    return _build_classifier("small", 64, False, **model_args)


@register_model(_build_classifier, in1k=_in1k_cfg("small_plus"))
def uniformer_small_plus(**model_args: Any) -> UniFormerClassifier:
    """UniFormer-S+ (convolutional stem, head dimension 32), ImageNet-1k."""
    return _build_classifier("small_plus", 32, False, **model_args)


@register_model(_build_classifier, in1k=_in1k_cfg("small_plus_dim64"))
def uniformer_small_plus_dim64(**model_args: Any) -> UniFormerClassifier:
    """UniFormer-S+ with head dimension 64, ImageNet-1k."""
    return _build_classifier("small_plus", 64, False, **model_args)


@register_model(_build_classifier, in1k=_in1k_cfg("base"))
def uniformer_base(**model_args: Any) -> UniFormerClassifier:
    """UniFormer-B, ImageNet-1k."""
    return _build_classifier("base", 64, False, **model_args)


@register_model(_build_classifier, in1k=_in1k_cfg("base_ls"))
def uniformer_base_ls(**model_args: Any) -> UniFormerClassifier:
    """UniFormer-B with layer scale, ImageNet-1k."""
    return _build_classifier("base", 64, True, **model_args)
