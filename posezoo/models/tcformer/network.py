"""TCFormer: Not All Tokens Are Equal (CVPR 2022, arXiv 2204.08680; TPAMI 2024, 2407.11321).

Original: zengwang430521/TCFormer (Apache-2.0), weights by the authors. A pyramid whose tokens
are merged by clustering instead of on a grid: after stage 1 a token stands for a region of
free shape, a set of cells of the initial grid (input / 4).
Written from the paper and measured behaviour, with these differences from the original:

* Clustering draws no noise in evaluation. Equal densities are ordered by token index, and
  distances below the resolution of the arithmetic count as zero, so that results depend neither
  on the batch nor on the number of threads. `density_noise=1e-6` brings the original's noise back.
* Features move between tokens and maps by tables of rows, built once per stage, instead of
  sparse matrix products; distances are never stored as a whole matrix.
* The aggregation weight of a token is carried per token, not per cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from ...weights.keys import Conversion, rename_keys
from ...zoo.config import InputCfg, MetricsCfg, PretrainedCfg, SourceCfg
from ...zoo.model import Classifier, ZooModel
from ...zoo.registry import register_model
from ..layers import check_images, drop_path, init_transformer_weights
from .tokens import Regions, cluster_tokens, grid_regions, locate_tokens, merge_tokens

__all__ = [
    "Block",
    "StageMap",
    "TCFormerBackbone",
    "TCFormerClassifier",
    "Tokens",
]

WIDTHS = (64, 128, 320, 512)
MLP_RATIOS = (8, 8, 4, 4)
SR_RATIOS = (8, 4, 2, 1)
HEAD_DIM = 64
SMALLEST_INPUT = 32
TRAINING_NOISE = 1e-6


def nchw(x: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w) as a view in channels-last memory."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C), a view of channels-last memory."""
    return x.permute(0, 2, 3, 1)


class Tokens(NamedTuple):
    """The tokens of one stage.

    `mass` is what the original sums up from its aggregation weights: 1 up to the 1e-6 terms.
    `cluster` tells into which of these tokens each token of the stage before was merged, or in
    the first stage each cell.
    """

    x: Tensor  # (B, N, C)
    regions: Regions
    mass: Tensor  # (B, N)
    cluster: Tensor  # (B, tokens of the stage before) int64


class Source(NamedTuple):
    """Un-merged tokens that the first block after a merge attends to, on the merged map."""

    x: Tensor  # (B, N, C)
    score: Tensor  # (B, N, 1), added to the attention logits
    regions: Regions


class StageMap(NamedTuple):
    """What a stage gives to the outside."""

    map: Tensor  # (B, C, h, w)
    cell_token: Tensor  # (B, H0, W0) int64, the token that owns each cell of the initial grid


class TokenConv(nn.Conv2d):
    """3x3 convolution of stride 2 on the tokens' map and back, plus a linear skip on the tokens."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, stride=2, padding=1)
        self.skip = nn.Conv1d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor, regions: Regions, halved: Regions) -> Tensor:
        """(B, N, C) -> (B, N, C_out); both regions are of the same tokens, on their two maps."""
        y = super().forward(nchw(regions.token2map(x)))  # (B, C_out, h / 2, w / 2)
        return F.linear(x, self.skip.weight[..., 0]) + halved.map2token(nhwc(y))


class DepthwiseTokenConv(nn.Conv2d):
    """3x3 depthwise convolution on the tokens' map and back: (B, N, C) -> (B, N, C).

    `skip` (stages 2 to 4) adds the tokens themselves, with one factor per channel.
    """

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.skip = nn.Conv1d(channels, channels, 1, groups=channels, bias=False) if skip else None

    def forward(self, x: Tensor, regions: Regions, part: slice) -> Tensor:
        """Convolve the channels `part`, which are all that x holds."""
        y = nchw(regions.token2map(x))
        weight, bias = self.weight[part], self.bias[part]
        y = nhwc(F.conv2d(y, weight, bias, padding=1, groups=y.shape[1]))
        y = regions.map2token(y)
        return y if self.skip is None else y.addcmul_(x, self.skip.weight[part].flatten())


class TokenMlp(nn.Module):
    """Linear, depthwise token convolution, exact GELU, linear: (B, N, D) -> (B, N, D).

    Hidden channels meet only in the last sum, so on the CPU they go through in parts small
    enough to stay in its cache.
    """

    def __init__(self, dim: int, hidden: int, *, skip: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseTokenConv(hidden, skip=skip)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, regions: Regions) -> Tensor:
        hidden = self.fc1.out_features
        width = 256 if x.device.type == "cpu" and x.shape[1] > 512 else hidden
        out = self.fc2.bias
        for start in range(0, hidden, width):
            part = slice(start, start + width)
            y = F.linear(x, self.fc1.weight[part], self.fc1.bias[part])  # (B, N, width)
            y = F.gelu(self.dwconv(y, regions, part))
            out = torch.addmm(out, y.flatten(0, 1), self.fc2.weight[:, part].mT)  # (B * N, D)
        return out.view_as(x)


class ReducedAttention(nn.Module):
    """Multi-head attention with keys and values on a map reduced by `ratio`.

    The reduction is a convolution and a norm, or average pooling where `pool` is set (neck);
    ratio 1 attends to the tokens themselves. Trailing rows and columns that do not fill a
    window are dropped.
    """

    def __init__(self, dim: int, ratio: int, *, pool: bool = False) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.ratio = ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        reduces = ratio > 1 and not pool
        self.sr = nn.Conv2d(dim, dim, ratio, ratio) if reduces else None
        self.norm = nn.LayerNorm(dim, eps=1e-5) if reduces else None

    def forward(self, x: Tensor, source: Tensor, regions: Regions, score: Tensor | None) -> Tensor:
        """(B, N, D) attends to source (B, S, D), which lies as `regions` says -> (B, N, D)."""
        if self.ratio > 1:
            source = self._reduce(nchw(regions.token2map(source)))
            if score is not None:
                score = F.avg_pool2d(nchw(regions.token2map(score)), self.ratio).flatten(2).mT
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, 64)
        k, v = self.kv(source).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if score is None else score.mT[:, None].to(q.dtype)  # (B, 1, 1, keys)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)

    def _reduce(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> keys (B, h w / ratio^2, D)."""
        if self.sr is None or self.norm is None:
            return nhwc(F.avg_pool2d(x, self.ratio)).flatten(1, 2)
        return self.norm(nhwc(self.sr(x)).flatten(1, 2))


class Block(nn.Module):
    """Pre-norm transformer block on the tokens of one stage: (B, N, D) -> (B, N, D)."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: int,
        sr_ratio: int,
        *,
        eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        skip: bool = True,
        pool: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = ReducedAttention(dim, sr_ratio, pool=pool)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = TokenMlp(dim, mlp_ratio * dim, skip=skip)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, regions: Regions, source: Source | None = None) -> Tensor:
        y = self.norm1(x)
        if source is None:
            y = self.attn(y, y, regions, None)
        else:
            y = self.attn(y, self.norm1(source.x), source.regions, source.score)
        x = x + drop_path(y, self.drop_path_rate, self.training)
        y = self.mlp(self.norm2(x), regions)
        return x + drop_path(y, self.drop_path_rate, self.training)


class TokenMerge(nn.Module):
    """Clustering-based token merge (CTM): N tokens -> N * sample_ratio, on a map of half the size.

    Tokens of a cluster are averaged with learned weights exp(score).
    """

    def __init__(self, c_in: int, dim: int, *, sample_ratio: float, density_noise: float) -> None:
        super().__init__()
        self.conv = TokenConv(c_in, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.score = nn.Linear(dim, 1)
        self.sample_ratio = sample_ratio
        self.density_noise = density_noise

    def forward(self, tokens: Tokens) -> tuple[Tokens, Source]:
        """Return the merged tokens, and the un-merged ones with their scores."""
        old, num_tokens = tokens.regions, tokens.x.shape[1]
        map_size = ((old.map_size[0] + 1) // 2, (old.map_size[1] + 1) // 2)
        dtype = tokens.mass.dtype
        halved = locate_tokens(old.cell_token, num_tokens, old.grid_size, map_size, dtype)
        x = self.norm(self.conv(tokens.x, old, halved))  # (B, N, D)
        score = self.score(x)  # (B, N, 1)

        num_merged = max(math.ceil(num_tokens * self.sample_ratio), 1)
        noise = TRAINING_NOISE if self.training else self.density_noise
        cluster = cluster_tokens(x, num_merged, noise)  # (B, N)
        merged, mass = merge_tokens(x, score, tokens.mass, cluster, num_merged)
        cell_token = cluster.gather(1, old.cell_token)
        regions = locate_tokens(cell_token, num_merged, old.grid_size, map_size, dtype)
        return Tokens(merged, regions, mass, cluster), Source(x, score, halved)


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
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.grad_checkpointing = False

    def forward(self, tokens: Tokens) -> Tokens:
        source = None
        if self.merge is not None:
            tokens, source = self.merge(tokens)
        x = tokens.x
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, tokens.regions, source, use_reentrant=False)
            else:
                x = block(x, tokens.regions, source)
            source = None  # only the first block sees the un-merged tokens
        return tokens._replace(x=self.norm(x))


class TCFormerBackbone(nn.Module):
    """Four stages with widths 64, 128, 320, 512; tokens are merged before stages 2 to 4.

    Args:
        patch_embed_eps: epsilon of the first LayerNorm. Quirk: the original trained with 1e-5,
            mmpose's port with 1e-6; no tensor shows it, the effect is 5e-5.
        sample_ratio: tokens after a merge / tokens before it, in (0, 1].
        density_noise: width of the noise on densities in evaluation; the original used 1e-6.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        *,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        patch_embed_eps: float = 1e-5,
        sample_ratio: float = 0.25,
        density_noise: float = 0.0,
    ) -> None:
        if not 0.0 < sample_ratio <= 1.0:
            raise InputError(f"sample_ratio must lie in (0, 1], got {sample_ratio!r}")
        if not 0.0 <= density_noise < 1.0:
            raise InputError(f"density_noise must lie in [0, 1), got {density_noise!r}")
        super().__init__()
        self.patch_embed = PatchEmbed(in_chans, WIDTHS[0], patch_embed_eps)
        rates = iter(drop_path_rate * j / (sum(depths) - 1) for j in range(sum(depths)))
        stages = []
        for i, (dim, depth) in enumerate(zip(WIDTHS, depths)):
            merge = None
            if i > 0:
                merge = TokenMerge(
                    WIDTHS[i - 1], dim, sample_ratio=sample_ratio, density_noise=density_noise
                )
            blocks = [
                Block(dim, MLP_RATIOS[i], SR_RATIOS[i], drop_path_rate=next(rates), skip=i > 0)
                for _ in range(depth)
            ]
            stages.append(Stage(merge, blocks, dim))
        self.stages = nn.ModuleList(stages)
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
        nn.init.zeros_(module.bias)


class TCFormer(ZooModel):
    """What the classifier and the pose model share."""

    def __init__(self, backbone: TCFormerBackbone, input_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_size = input_size

    def forward_tokens(self, x: Tensor) -> list[Tokens]:
        """Check the images (B, C, H, W) and return the tokens of each stage.

        Raises:
            InputError: wrong shape or type.
        """
        check_images(x, self.backbone.patch_embed.proj.in_channels, self.input_size, 1)
        if min(x.shape[2:]) < SMALLEST_INPUT:
            size = tuple(x.shape[2:])
            raise InputError(f"image height and width must be {SMALLEST_INPUT} or more, got {size}")
        return self.backbone(x)

    @overload
    def forward_intermediates(self, x: Tensor, *, tokens: Literal[False] = ...) -> list[Tensor]: ...

    @overload
    def forward_intermediates(self, x: Tensor, *, tokens: Literal[True]) -> list[StageMap]: ...

    def forward_intermediates(
        self, x: Tensor, *, tokens: bool = False
    ) -> list[Tensor] | list[StageMap]:
        """Return the normalised maps after each stage, (B, C, h, w) at strides 4, 8, 16, 32.

        Args:
            x: normalised images (B, 3, H, W).
            tokens: return for each stage also the token that every cell of the initial grid
                belongs to; `posezoo.draw.draw_tokens` paints it.

        Raises:
            InputError: wrong shape or type.
        """
        stages = self.forward_tokens(x)
        maps = [nchw(s.regions.token2map(s.x)) for s in stages]
        if not tokens:
            return maps
        cells = [s.regions.cell_token.unflatten(1, s.regions.grid_size) for s in stages]
        return [StageMap(map, cell_token) for map, cell_token in zip(maps, cells)]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        for stage in self.backbone.stages:
            stage.grad_checkpointing = enable


class TCFormerClassifier(TCFormer, Classifier):
    """ImageNet classifier: (B, 3, H, W) -> logits (B, num_classes).

    H and W may be anything from 32 up: maps shrink by half, rounded up, and the initial grid is
    ceil(H / 4) x ceil(W / 4).
    """

    def __init__(self, backbone: TCFormerBackbone, num_classes: int) -> None:
        super().__init__(backbone, None)
        self.num_features = WIDTHS[-1]
        self.reset_head(num_classes)

    @staticmethod
    def convert_state_dict(state: Mapping[str, Tensor]) -> Conversion:
        """Rename the authors' keys; ours stay as they are."""
        return rename_keys(state, list(backbone_keys("")))

    def reset_head(self, num_classes: int) -> None:
        """Put a fresh classifier for another number of classes in place; 0 removes it."""
        self.num_classes = num_classes
        self.head = nn.Linear(WIDTHS[-1], num_classes) if num_classes else nn.Identity()
        init_transformer_weights(self.head)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised tokens of the last stage (B, N, 512).

        Raises:
            InputError: wrong shape or type.
        """
        return self.forward_tokens(x)[-1].x

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """(B, N, 512) -> logits (B, num_classes), or the mean (B, 512) before them."""
        x = features.mean(1)  # (B, 512)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


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


DEPTHS = {
    "light": (2, 2, 2, 2),
    "base": (3, 4, 6, 3),
    "large": (3, 8, 27, 3),
}
REPOSITORY = "https://github.com/zengwang430521/TCFormer"
OPENMMLAB = "https://download.openmmlab.com/mmpose/"


def _build_classifier(
    size: str,
    /,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_path_rate: float = 0.0,
    sample_ratio: float = 0.25,
    density_noise: float = 0.0,
) -> TCFormerClassifier:
    backbone = TCFormerBackbone(
        DEPTHS[size],
        in_chans=in_chans,
        drop_path_rate=drop_path_rate,
        sample_ratio=sample_ratio,
        density_noise=density_noise,
    )
    return TCFormerClassifier(backbone, num_classes)


def _in1k_cfg(
    filename: str,
    sha256: str,
    urls: tuple[str, ...],
    metrics: Mapping[str, float],
    *,
    params: int,
    gmacs: float,
) -> PretrainedCfg:
    return PretrainedCfg(
        task="classification",
        dataset="in1k",
        description="ImageNet-1k classifier",
        source=SourceCfg(
            original_urls=urls,
            original_filename=filename,
            original_sha256=sha256,
            license="apache-2.0",
            dataset_license="ImageNet-1k: research and non-commercial terms for the images",
            paper="arXiv:2204.08680",
        ),
        input=InputCfg(size=(224, 224), interpolation="bicubic", crop_pct=0.875),
        metrics=MetricsCfg(
            values=metrics,
            protocol="ImageNet-1k val, 224, crop 0.875 bicubic, float16",
            url=REPOSITORY,
        ),
        params=params,
        macs=round(gmacs * 1e9),
    )


@register_model(
    _build_classifier,
    in1k=_in1k_cfg(
        "tcformer_light-edacd9e5_20220606.pth",
        "edacd9e5",
        ("gdrive:1TvcJCQhHaxXJhGo13i6b5PWErhzIivuD",),
        {"top1": 0.794},
        params=14_231_659,
        gmacs=3.84,
    ),
)
def tcformer_light(**model_args: Any) -> TCFormerClassifier:
    """TCFormer-light, ImageNet-1k."""
    return _build_classifier("light", **model_args)


@register_model(
    _build_classifier,
    in1k=_in1k_cfg(
        "tcformer-4e1adbf1_20220421.pth",
        "4e1adbf1",
        (
            f"{OPENMMLAB}pretrain_models/tcformer-4e1adbf1_20220421.pth",
            "gdrive:1sIrTzIKFfW5Io2MybIWJoS0sv72Wd-av",
        ),
        {"top1": 0.82346, "top5": 0.95982, "loss": 0.798},
        params=25_594_731,
        gmacs=5.83,
    ),
)
def tcformer(**model_args: Any) -> TCFormerClassifier:
    """TCFormer, ImageNet-1k."""
    return _build_classifier("base", **model_args)


@register_model(
    _build_classifier,
    in1k=_in1k_cfg(
        "tcformer_large-a47cc309_20220606.pth",
        "a47cc309",
        ("gdrive:1wu9joQJU807IGW51mIlhK4dNnMze8E1K",),
        {"top1": 0.836},
        params=62_818_923,
        gmacs=12.15,
    ),
)
def tcformer_large(**model_args: Any) -> TCFormerClassifier:
    """TCFormer-large, ImageNet-1k."""
    return _build_classifier("large", **model_args)
