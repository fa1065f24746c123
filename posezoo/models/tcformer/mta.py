"""TCFormer with multi-stage token aggregation (MTA): whole-body pose (arXiv 2204.08680).

Original: zengwang430521/TCFormer (Apache-2.0); a second training by mmpose 0.x (Apache-2.0).
A feature pyramid on tokens: every level is refined by a transformer block and receives the
coarser level through the clusters; the finest level is a map again and gives 133 heatmaps.
Written from the paper and measured behaviour. The original also makes maps of the coarser
levels that nobody reads, and moves tokens down by sparse products instead of a gather.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...weights.keys import Conversion, rename_keys
from ...zoo.config import DecodeCfg, InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.model import PoseModel
from ...zoo.registry import register_model
from ..heads import HeatmapHead
from ..layers import init_transformer_weights
from .network import (
    DEPTHS,
    OPENMMLAB,
    REPOSITORY,
    SR_RATIOS,
    WIDTHS,
    Block,
    TCFormer,
    TCFormerBackbone,
    Tokens,
    backbone_keys,
    nchw,
)

__all__ = ["MTANeck", "TCFormerPose"]

NECK_DIM = 256


class MTANeck(nn.Module):
    """Aggregate the tokens of all stages from coarse to fine.

    Keys and values of its blocks are average-pooled maps, 1/32 of the input size at each level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(dim, NECK_DIM, 1) for dim in WIDTHS)
        self.blocks = nn.ModuleList(
            Block(NECK_DIM, 4, ratio, eps=1e-5, pool=True) for ratio in SR_RATIOS[:3]
        )
        self.apply(_init_weights)

    def forward(self, stages: list[Tokens]) -> list[Tokens]:
        """Return the aggregated tokens of each level, finest first, 256 wide."""
        levels = [
            stage._replace(x=F.linear(stage.x, lateral.weight.flatten(1), lateral.bias))
            for stage, lateral in zip(stages, self.laterals)
        ]
        for i in (2, 1, 0):
            x = move_down(levels[i + 1], levels[i])
            regions = levels[i].regions
            levels[i] = levels[i]._replace(x=self.blocks[i](x, regions))
        return levels


def move_down(coarse: Tokens, fine: Tokens) -> Tensor:
    """Add to each token (B, N, C) of the finer level the token it was merged into.

    Quirk: what comes down is scaled by mass / (mass + 1e-6); outputs notice at the 1e-5 level.
    """
    rows = coarse.cluster[..., None].expand_as(fine.x)
    scale = (fine.mass / (fine.mass + 1e-6)).to(fine.x.dtype)
    return torch.addcmul(fine.x, coarse.x.gather(1, rows), scale[..., None])


def _init_weights(module: nn.Module) -> None:
    init_transformer_weights(module)
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class TCFormerPose(TCFormer, PoseModel):
    """Top-down heatmap pose: (B, 3, H, W) -> heatmaps (B, K, H / 4, W / 4), raw values."""

    def __init__(
        self, backbone: TCFormerBackbone, num_keypoints: int, input_size: tuple[int, int]
    ) -> None:
        super().__init__(backbone, input_size)
        self.neck = MTANeck()
        self.head = HeatmapHead(NECK_DIM, num_keypoints)
        self.num_keypoints = num_keypoints

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' and mmpose's keys; ours stay as they are."""
        return rename_keys(state, _KEYS)

    has_token_regions = True

    def token_regions(self, images: Tensor) -> list[Tensor]:
        return [s.cell_token for s in self.forward_intermediates(images, tokens=True)]

    def reset_head(self, num_keypoints: int) -> None:
        """Put a fresh last layer for another number of keypoints in place."""
        self.head.reset(NECK_DIM, num_keypoints)
        self.num_keypoints = num_keypoints

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> map of the finest level (B, 256, H / 4, W / 4).

        Raises:
            InputError: wrong shape or type.
        """
        finest = self.neck(self.forward_tokens(x))[0]
        return nchw(finest.regions.token2map(finest.x))

    def forward_head(self, features: Tensor) -> Tensor:
        """(B, 256, h, w) -> heatmaps (B, K, h, w)."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


_KEYS = [
    *backbone_keys("backbone."),
    *((f"^neck.lateral_convs.{i}.conv", f"neck.laterals.{i}") for i in range(4)),
    ("^neck.merge_blocks", "neck.blocks"),
    ("^keypoint_head", "head"),
]


def _build_pose(
    size: str,
    input_size: tuple[int, int],
    /,
    *,
    num_keypoints: int = 133,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    patch_embed_eps: float = 1e-5,
    sample_ratio: float = 0.25,
    density_noise: float = 0.0,
) -> TCFormerPose:
    backbone = TCFormerBackbone(
        DEPTHS[size],
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        patch_embed_eps=patch_embed_eps,
        sample_ratio=sample_ratio,
        density_noise=density_noise,
    )
    return TCFormerPose(backbone, num_keypoints, input_size)


def _wholebody_cfg(
    input_size: tuple[int, int],
    urls: tuple[str, ...],
    metrics: tuple[float, ...],
    *,
    filename: str | None = None,
    sha256: str | None = None,
    description: str = "whole-body heatmap pose, weights by the authors",
    metrics_url: str = REPOSITORY,
    model_args: Mapping[str, Any] | None = None,
    params: int,
    gmacs: float,
) -> PretrainedCfg:
    """Configure one row of the table; `metrics` are AP, AR of body, foot, face, hand, whole."""
    columns = [f"{p} {m}" for p in ("Body", "Foot", "Face", "Hand", "Whole") for m in ("AP", "AR")]
    return PretrainedCfg(
        task="pose",
        dataset="coco_wholebody",
        description=description,
        model_args=model_args or {},
        source=SourceCfg(
            original_urls=urls,
            original_filename=filename,
            original_sha256=sha256,
            license="apache-2.0",
            dataset_license="COCO-WholeBody annotations: CC BY-NC 4.0, research and "
            "non-commercial use only",
            paper="arXiv:2204.08680",
        ),
        input=InputCfg(size=input_size, bbox_padding=1.25, geometry="mmpose0"),
        decode=DecodeCfg(
            codec="heatmap",
            heatmap_size=(input_size[0] // 4, input_size[1] // 4),
            refine="quarter",
            shift_heatmap=True,
        ),
        metrics=MetricsCfg(
            values=dict(zip(columns, metrics)),
            protocol="COCO-WholeBody v1.0 val, bbox=det56.4, flip test, float32",
            url=metrics_url,
        ),
        params=params,
        macs=round(gmacs * 1e9),
    )


@register_model(
    _build_pose,
    coco_wholebody=_wholebody_cfg(
        (256, 192),
        ("gdrive:1tRMhOxiab8BcuImi7B64BRgXPZ2A3BAx",),
        (0.697, 0.774, 0.705, 0.821, 0.656, 0.753, 0.539, 0.652, 0.576, 0.681),
        filename="tcformer_mta_256x192-68d5f8aa_20220606.pth",
        sha256="68d5f8aa",
        params=27_782_152,
        gmacs=8.71,
    ),
    coco_wholebody_mmpose=_wholebody_cfg(
        (256, 192),
        (f"{OPENMMLAB}top_down/tcformer/tcformer_coco-wholebody_256x192-a0720efa_20220627.pth",),
        (0.691, 0.769, 0.690, 0.809, 0.650, 0.747, 0.534, 0.647, 0.574, 0.678),
        filename="tcformer_coco-wholebody_256x192-a0720efa_20220627.pth",
        sha256="a0720efa",
        description="whole-body heatmap pose, trained by mmpose 0.x (patch norm eps 1e-6)",
        metrics_url="https://github.com/open-mmlab/mmpose/tree/0.x",
        model_args={"patch_embed_eps": 1e-6},
        params=27_782_152,
        gmacs=8.71,
    ),
)
def tcformer_mta_256x192(**model_args: Any) -> TCFormerPose:
    """TCFormer with MTA neck, 256x192, COCO-WholeBody 133 keypoints."""
    return _build_pose("base", (256, 192), **model_args)


@register_model(
    _build_pose,
    coco_wholebody=_wholebody_cfg(
        (384, 288),
        ("gdrive:1aUIj_-U1EfklVGzELUrierwFNoUp-zrH",),
        (0.718, 0.794, 0.744, 0.850, 0.790, 0.856, 0.614, 0.715, 0.642, 0.733),
        params=65_006_344,
        gmacs=38.65,
    ),
)
def tcformer_large_mta_384x288(**model_args: Any) -> TCFormerPose:
    """TCFormer-large with MTA neck, 384x288, COCO-WholeBody 133 keypoints."""
    return _build_pose("large", (384, 288), **model_args)
