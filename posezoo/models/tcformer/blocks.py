"""The blocks of TCFormer, on the tokens of one stage, and the merge that leads to the next."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import as_linear, depthwise_gelu, drop_path, nchw, nhwc
from .tokens import Regions, cluster_tokens, locate_tokens, merge_tokens

__all__ = ["Block", "ReducedAttention", "Source", "TokenMerge", "Tokens"]

HEAD_DIM = 64
TRAINING_NOISE = 1e-6


class Tokens(NamedTuple):
    """The tokens of one stage.

    `mass` is the sum of the original's aggregation weights: 1 up to the 1e-6 terms. `cluster`
    says which of these tokens each token of the stage before was merged into; in the first stage
    each cell is a token.
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


class TokenConv(nn.Conv2d):
    """3x3 convolution of stride 2 on the tokens' map and back, plus a linear skip on the tokens."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, stride=2, padding=1)
        self.skip = nn.Conv1d(c_in, c_out, 1, bias=False)
        self.folded: nn.ModuleList | None = None

    def fold(self) -> None:
        """Keep both as layers of their own, whose weights can be packed; hooks keep this one."""
        if self._forward_pre_hooks or self._forward_hooks:
            return
        sizes = (self.in_channels, self.out_channels, 3, 2, 1)
        conv = nn.Conv2d(*sizes, device="meta")
        conv.weight, conv.bias = self.weight, self.bias
        weight = self.skip.weight[..., 0]
        self.folded = nn.ModuleList([conv, as_linear(weight, weight.new_zeros(len(weight)))])

    def on_tokens(self, x: Tensor, regions: Regions, halved: Regions) -> Tensor:
        """(B, N, C) -> (B, N, C_out); both regions are of the same tokens, on their two maps."""
        grid = nchw(regions.token2map(x))
        if self.folded is not None:
            conv, skip = self.folded
            return halved.map2token(nhwc(conv(grid))).add_(skip(x))
        y = self(grid)  # (B, C_out, h / 2, w / 2)
        return F.linear(x, self.skip.weight[..., 0]) + halved.map2token(nhwc(y))


class DepthwiseTokenConv(nn.Conv2d):
    """3x3 depthwise convolution on the tokens' map and back, then GELU: (B, N, C) -> (B, N, C).

    `skip` (stages 2 to 4) adds the tokens themselves, with one factor per channel, before GELU.
    """

    bias: Tensor

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.skip = nn.Conv1d(channels, channels, 1, groups=channels, bias=False) if skip else None

    def on_tokens(self, x: Tensor, regions: Regions) -> Tensor:
        if regions.to_map is None:
            return self._on_grid(nchw(regions.token2map(x)))
        y = regions.map2token(nhwc(self(nchw(regions.token2map(x)))))
        return F.gelu(y if self.skip is None else y.addcmul_(x, self.skip.weight.flatten()))

    def _on_grid(self, x: Tensor) -> Tensor:
        """Tokens are pixels (B, C, h, w) here, so their factor belongs to the kernel's centre."""
        weight = self.weight
        if self.skip is not None:
            weight = weight + F.pad(self.skip.weight[..., None], (1, 1, 1, 1))
        return nhwc(depthwise_gelu(x, weight, self.bias)).flatten(1, 2)


class TokenMlp(nn.Module):
    """Linear, depthwise token convolution, exact GELU, linear: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, *, skip: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwiseTokenConv(hidden, skip=skip)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor, regions: Regions) -> Tensor:
        """On a CPU the grid, which has the most tokens, is taken one image at a time."""
        eager = not torch.compiler.is_compiling()
        if eager and x.device.type == "cpu" and regions.to_map is None and len(x) > 1:
            return torch.cat([self._run(image, regions) for image in x.split(1)])
        return self._run(x, regions)

    def followed_by(self, layer: nn.Linear) -> TokenMlp:
        """Return an MLP for inference that gives what `layer`, without its bias, makes of this."""
        weight, bias = layer.weight @ self.fc2.weight, layer.weight @ self.fc2.bias
        with torch.device("meta"):
            mlp = TokenMlp(self.fc1.in_features, self.fc1.out_features, skip=False)
        mlp.fc1, mlp.dwconv, mlp.fc2 = self.fc1, self.dwconv, as_linear(weight, bias)
        return mlp

    def _run(self, x: Tensor, regions: Regions) -> Tensor:
        return self.fc2(self.dwconv.on_tokens(self.fc1(x), regions))


class ReducedAttention(nn.Module):
    """Multi-head attention with keys and values on a map reduced by `ratio`.

    The reduction is a convolution and a norm, or average pooling where `pool` is set (neck);
    ratio 1 attends to the tokens themselves. Trailing rows and columns that do not fill a
    window are dropped.
    """

    def __init__(self, dim: int, ratio: int, *, pool: bool) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.ratio = ratio
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        reduces = ratio > 1 and not pool
        self.sr: nn.Module | None = nn.Conv2d(dim, dim, ratio, ratio) if reduces else None
        self.norm = nn.LayerNorm(dim, eps=1e-5) if reduces else None
        self.few: nn.Linear | None = None

    def fold(self) -> None:
        """Make the reduction a linear layer on its windows, and prepare `_attend_to_few`."""
        if isinstance(self.sr, nn.Conv2d) and self.sr.bias is not None:
            weight = self.sr.weight.permute(0, 2, 3, 1).flatten(1)  # (D, r r D)
            self.sr = as_linear(weight, self.sr.bias)
        heads = (self.num_heads, -1)
        kv = torch.cat([self.kv.weight, self.kv.bias[:, None]], 1)  # (2 D, D + 1)
        k, v = kv.unflatten(0, (2, *heads))  # (heads, 64, D + 1)
        q, bias = self.q.weight.unflatten(0, heads), self.q.bias.view(*heads, 1)
        k = k * HEAD_DIM**-0.5
        keys, values = q.mT @ k, self.proj.weight.unflatten(1, heads).transpose(0, 1) @ v
        few = torch.cat([keys.flatten(0, 1), values.flatten(0, 1), (bias.mT @ k)[:, 0]])
        self.few = as_linear(few[:, :-1].contiguous(), few[:, -1].contiguous())

    def forward(self, x: Tensor, source: Tensor, regions: Regions, score: Tensor | None) -> Tensor:
        """(B, N, D) attends to source (B, S, D), the tokens of `regions` -> (B, N, D).

        Args:
            score: (B, S, 1), added to the attention logits.
        """
        if self.ratio > 1:
            source = self._reduce(regions.token2map(source))
            if score is not None:
                score = F.avg_pool2d(nchw(regions.token2map(score)), self.ratio).flatten(2).mT
        if self.few is not None and self._are_few(x.shape[1], source.shape[1]):
            return self._attend_to_few(x, self.few(source), score)
        q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, 64)
        k, v = self.kv(source).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if score is None else score.mT[:, None].to(q.dtype)  # (B, 1, 1, keys)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)

    def _are_few(self, queries: int, keys: int) -> bool:
        """Whether `_attend_to_few` takes fewer products; half precision rounds its logits."""
        dim = self.q.in_features
        few = self.num_heads * keys * (dim + queries)
        usual = dim * (queries + keys) + queries * keys
        return few < usual and self.q.weight.dtype in (torch.float32, torch.float64)

    def _attend_to_few(self, x: Tensor, source: Tensor, score: Tensor | None) -> Tensor:
        """Attend to so few keys that they, not the many queries and sums, are projected.

        q . k, which is (Q x + b) . k, is x . (Q^T k) + b . k, and the projection of a mean of
        values is the mean of their projections.

        Args:
            source: (B, S, 2 heads D + heads), from `few`: for each head Q^T k, projected values,
                b . k.
        """
        heads, dim = self.num_heads, x.shape[-1]
        keys, values, bias = source.mT.split((heads * dim, heads * dim, heads), 1)
        bias = bias if score is None else bias + score.mT  # (B, heads, S)
        keys = keys.unflatten(1, (heads, -1)).transpose(1, 2).flatten(2)  # (B, D, heads S)
        logits = torch.baddbmm(bias.flatten(1)[:, None], x, keys)  # (B, N, heads S)
        weights = logits.unflatten(-1, (heads, -1)).softmax(-1).flatten(2)
        values = values.unflatten(1, (heads, -1)).transpose(2, 3).flatten(1, 2)  # (B, heads S, D)
        return torch.baddbmm(self.proj.bias, weights, values)

    def _reduce(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> keys (B, h w / ratio^2, D)."""
        if self.sr is None or self.norm is None:
            return nhwc(F.avg_pool2d(nchw(x), self.ratio)).flatten(1, 2)
        rows, columns = x.shape[1] // self.ratio, x.shape[2] // self.ratio
        # a convolution would drop the rest, too, but oneDNN's with AMX gives wrong numbers then
        x = x[:, : rows * self.ratio, : columns * self.ratio]
        if isinstance(self.sr, nn.Conv2d):
            return self.norm(nhwc(self.sr(nchw(x))).flatten(1, 2))
        x = x.unflatten(2, (columns, -1)).unflatten(1, (rows, -1)).transpose(2, 3)
        return self.norm(self.sr(x.flatten(3).flatten(1, 2)))  # windows (B, keys, r r D)


class Block(nn.Module):
    """Pre-norm transformer block on the tokens of one stage: (B, N, D) -> (B, N, D)."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: int,
        sr_ratio: int,
        *,
        eps: float,
        drop_path_rate: float,
        skip: bool,
        pool: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = ReducedAttention(dim, sr_ratio, pool=pool)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = TokenMlp(dim, mlp_ratio * dim, skip=skip)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, regions: Regions, source: Source | None = None) -> Tensor:
        x = self.attend(x, regions, source)
        y = self.mlp(self.norm2(x), regions)
        return drop_path(y, self.drop_path_rate, self.training).add_(x)

    def attend(self, x: Tensor, regions: Regions, source: Source | None = None) -> Tensor:
        """Return what the MLP takes and is added to, (B, N, D)."""
        y = self.norm1(x)
        if source is None:
            y = self.attn(y, y, regions, None)
        else:
            y = self.attn(y, self.norm1(source.x), source.regions, source.score)
        return drop_path(y, self.drop_path_rate, self.training).add_(x)


class TokenMerge(nn.Module):
    """Clustering-based token merge (CTM): N tokens -> N * sample_ratio, on a map of half the size.

    Tokens of a cluster are averaged with learned weights exp(score).

    Args:
        sample_ratio: tokens after the merge / tokens before it.
        density_noise: width of the noise on the densities in evaluation.
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
        x = self.norm(self.conv.on_tokens(tokens.x, old, halved))  # (B, N, D)
        score = self.score(x)  # (B, N, 1)

        num_merged = max(math.ceil(num_tokens * self.sample_ratio), 1)
        noise = TRAINING_NOISE if self.training else self.density_noise
        cluster = cluster_tokens(x, num_merged, noise)  # (B, N)
        merged, mass = merge_tokens(x, score, tokens.mass, cluster, num_merged)
        cell_token = cluster.gather(1, old.cell_token)
        regions = locate_tokens(cell_token, num_merged, old.grid_size, map_size, dtype)
        return Tokens(merged, regions, mass, cluster), Source(x, score, halved)
