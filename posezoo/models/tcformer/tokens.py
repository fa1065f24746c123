"""What TCFormer does with tokens: cluster them, merge them, carry them to maps and back.

A token is a region of free shape, a set of cells of the initial grid. Clustering works on blocks of
rows of the distance matrix, which is never stored whole; features move by tables of rows, built
once per stage, instead of sparse matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...packing import can_pack, packed_linear

__all__ = [
    "Regions",
    "RowTable",
    "cluster_tokens",
    "grid_regions",
    "locate_tokens",
    "merge_tokens",
    "pick_tokens",
    "row_table",
]

Closeness = Callable[[Tensor], Tensor]

_NEIGHBOURS = 5
_BLOCK_ROWS = 256  # rows of the distance matrix that exist at a time
_MATRIX_ROWS = 256  # per cell: a product of more is slower than reading the cell's features


@torch.no_grad()
def cluster_tokens(x: Tensor, num_clusters: int, density_noise: float = 0.0) -> Tensor:
    """Cluster the tokens of each image by density peaks (DPC-KNN, arXiv 2204.08680).

    A token's density falls with the distance to its five nearest tokens, itself included. Its
    score is density times the distance to the nearest denser token; the tokens with the largest
    scores are the centres, and every token joins the nearest centre.

    Of equals the first token counts. Runs in float32 or wider under autocast too; leave TF32 off
    on CUDA. Not differentiable.

    Args:
        x: tokens (B, N, C).
        num_clusters: M, at most N.
        density_noise: width of uniform noise on the densities, from torch's generator.

    Returns:
        (B, N) int64, each token's cluster; clusters are ordered by falling score.
    """
    eager = not torch.compiler.is_compiling()
    one_by_one = eager and x.device.type == "cpu" and len(x) > 0
    if one_by_one and len(x) > 1:
        return torch.cat([cluster_tokens(i, num_clusters, density_noise) for i in x.split(1)])
    device = "cpu" if x.is_meta else x.device.type  # autocast does not know the meta device
    with torch.autocast(device, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        x = x - x.mean(1, keepdim=True)  # same distances from smaller numbers
        square = x.square().sum(-1)  # (B, N)
        half = 0.5 * square
        resolution = 16 * torch.finfo(x.dtype).eps * square  # smaller distances are rounding

        closeness_to = _closeness_to(x, half)
        closeness, neighbours = _nearest(x, closeness_to)  # (B, N, 5) each
        nearest = square[..., None] - 2 * closeness  # squared distances
        nearest = nearest * (nearest > resolution[..., None])
        density = torch.exp(-nearest.mean(-1) / x.shape[-1])
        if density_noise:
            density = density + density_noise * torch.rand_like(density)

        order = density.argsort(dim=1, descending=True, stable=True)
        if one_by_one:
            denser = _nearest_denser(x, closeness_to, order, closeness, neighbours)
        else:
            sorted_ = _nearest_before(pick_tokens(x, order), half.gather(1, order))
            denser = torch.empty_like(square).scatter_(1, order, sorted_)
        denser = square - 2 * denser
        score = (denser * (denser > resolution)).sqrt() * density
        centres = score.argsort(dim=1, descending=True, stable=True)[:, :num_clusters]  # (B, M)

        limit = half - 0.5 * resolution
        cluster = _nearest_centre(x, pick_tokens(x, centres), half.gather(1, centres), limit)
        own = torch.arange(num_clusters, device=x.device).expand_as(centres)
        return cluster.scatter_(1, centres, own)


def pick_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: (B, N, C) and (B, M) -> (B, M, C)."""
    rows = index + torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*index.shape, x.shape[-1])


def _closeness_to(b: Tensor, half: Tensor) -> Closeness:
    """Return what maps tokens a (B, M, C) to a . b - |b|^2 / 2 for all pairs, (B, M, N).

    One matrix product orders all distances: |a - b|^2 is |a|^2 minus twice the result.

    Args:
        half: (B, N), |b|^2 / 2.
    """
    eager = not torch.compiler.is_compiling()
    if eager and len(b) == 1 and can_pack(b.device, b.dtype):
        return packed_linear(b[0], -half[0])
    return lambda a: (a @ b.mT).sub_(half[:, None])


def _nearest(x: Tensor, closeness_to: Closeness) -> tuple[Tensor, Tensor]:
    """Return the five nearest tokens of each, itself included: closeness and index, (B, N, 5)."""
    blocks = [_largest(closeness_to(rows)) for rows in x.split(_BLOCK_ROWS, 1)]
    values, indices = zip(*blocks)
    return torch.cat(values, 1), torch.cat(indices, 1)


def _largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the five largest values along the last axis, falling, and where they are.

    They are in the five groups of eight with the largest maxima, which one cheap pass finds.
    """
    k, size = min(_NEIGHBOURS, x.shape[-1]), math.gcd(x.shape[-1], 8)
    groups = x.unflatten(-1, (size, -1))  # (B, R, 8, N / 8), a group is a column
    best = groups.amax(-2).topk(min(k, groups.shape[-1])).indices  # (B, R, 5)
    steps = torch.arange(size, device=x.device)[:, None] * groups.shape[-1]
    where = (best[..., None, :] + steps).flatten(-2)  # (B, R, 8 * 5)
    values, places = x.gather(-1, where).topk(k)
    return values, where.gather(-1, places)


def _nearest_denser(
    x: Tensor, closeness_to: Closeness, order: Tensor, closeness: Tensor, neighbours: Tensor
) -> Tensor:
    """Return the closeness of each token to the nearest denser one, (1, N); -inf for none.

    If one of its five nearest is denser, it is one of them; only the others, the peaks, have to
    look at all tokens. How many there are depends on the image.

    Args:
        order: (1, N), tokens by falling density.
        closeness, neighbours: (1, N, 5) of the five nearest.
    """
    numbers = torch.arange(x.shape[1], dtype=x.dtype, device=x.device).expand_as(order)
    rank = torch.empty_like(numbers).scatter_(1, order, numbers)
    denser = rank.gather(1, neighbours.flatten(1)).view_as(neighbours) < rank[..., None]
    found = closeness.masked_fill(~denser, -math.inf).amax(-1)
    peaks = denser[0].any(-1).logical_not().nonzero()[:, 0]
    for rows in peaks.split(_BLOCK_ROWS):
        block = closeness_to(x[:, rows])[0]  # (rows, N)
        # inf for denser tokens, -inf for others: a quarter of the time of a mask
        limit = (rank[0, rows, None] - rank).sub_(0.5).mul_(math.inf)
        found[0, rows] = torch.minimum(block, limit, out=limit).amax(-1)
    return found


def _nearest_before(x: Tensor, half: Tensor) -> Tensor:
    """Return the closeness of each token to the nearest one before it, (B, N); -inf for none."""
    later = torch.ones(_BLOCK_ROWS, _BLOCK_ROWS, dtype=torch.bool, device=x.device).triu()
    blocks, end = [], 0
    for rows in x.split(_BLOCK_ROWS, 1):
        start, end = end, end + rows.shape[1]
        closeness = _closeness_to(x[:, :end], half[:, :end])(rows)  # (B, rows, end)
        closeness[..., start:].masked_fill_(later[: end - start, : end - start], -math.inf)
        blocks.append(closeness.amax(-1))
    return torch.cat(blocks, 1)


def _nearest_centre(x: Tensor, centres: Tensor, half: Tensor, limit: Tensor) -> Tensor:
    """Return each token's centre, (B, N); above `limit` (B, N), all are equally close."""
    blocks, closeness_to = [], _closeness_to(centres, half)
    for rows, most in zip(x.split(_BLOCK_ROWS, 1), limit.split(_BLOCK_ROWS, 1), strict=True):
        closeness = closeness_to(rows).clamp_(max=most[..., None])
        blocks.append(_first_largest(closeness))  # (B, rows)
    return torch.cat(blocks, 1)


def _first_largest(x: Tensor) -> Tensor:
    """Return where the first of the largest values along the last axis is, (B, R, M) -> (B, R).

    On a CPU `argmax` is slow: it looks at the maxima of eight groups, then at one of the groups.
    """
    if torch.compiler.is_compiling() or not x.is_cpu:
        return x.argmax(-1)
    groups = x.unflatten(-1, (math.gcd(x.shape[-1], 8), -1))  # (B, R, 8, M / 8)
    group = groups.amax(-1).argmax(-1, keepdim=True)  # (B, R, 1)
    index = group[..., None].expand(-1, -1, -1, groups.shape[-1])
    values = groups.gather(2, index)[:, :, 0]  # (B, R, M / 8)
    return group[..., 0] * groups.shape[-1] + values.argmax(-1)


class RowTable(NamedTuple):
    """Groups of rows of a (B, S, C) tensor, in flat numbering over the batch.

    Group g holds `rows[starts[g]:starts[g + 1]]`, each row with its factor in `weights`, by
    default 1 / (group size + 1e-6).
    """

    rows: Tensor  # (B * L,) int64
    starts: Tensor  # (B * G,) int64
    weights: Tensor  # (B * L,), float32 or wider: sums run in this type
    num_groups: int  # G

    def weighted(self, factors: Tensor) -> RowTable:
        """Return the table with other factors, (B, S) by row; no row is twice in a group."""
        return self._replace(weights=factors.flatten()[self.rows])

    def sum(self, x: Tensor) -> Tensor:
        """Return the weighted sum of each group: (B, S, C) -> (B, G, C)."""
        flat = x.flatten(0, 1).to(self.weights.dtype)
        out = F.embedding_bag(
            self.rows, flat, self.starts, mode="sum", per_sample_weights=self.weights
        )
        return out.unflatten(0, (x.shape[0], self.num_groups)).to(x.dtype)


class MatrixTable(NamedTuple):
    """The groups of a `RowTable` as one matrix per image, for ONNX and for half precision on GPUs.

    Sums over groups are unknown in ONNX, and ONNX Runtime's ScatterND loses terms that two threads
    add to one row. On GPUs products in half precision are several times as fast as such sums.
    """

    weights: Tensor  # (B, G, S), 0 for rows outside the group; products run in this type

    def weighted(self, factors: Tensor) -> MatrixTable:
        """Return the table with other factors, (B, S) by row; no row is twice in a group."""
        return MatrixTable(self.weights.sign() * factors[:, None])

    def sum(self, x: Tensor) -> Tensor:
        """Return the weighted sum of each group: (B, S, C) -> (B, G, C)."""
        return (self.weights @ x.to(self.weights.dtype)).to(x.dtype)


Table = RowTable | MatrixTable


def group_table(
    group: Tensor, num_groups: int, source: Tensor, num_sources: int, dtype: torch.dtype
) -> Table:
    """Build the table of group means.

    Args:
        group: (B or 1, L) group of each entry, in [0, num_groups), none of them empty.
        source: (B or 1, L) row of each entry, in [0, num_sources).
    """
    if torch.onnx.is_in_onnx_export():
        return matrix_table(group, num_groups, source, num_sources, dtype)
    if group.device.type == "cpu" and not torch.compiler.is_compiling():
        return pair_table(group, num_groups, source, num_sources, dtype)
    return row_table(group, num_groups, source, num_sources, dtype)


def matrix_table(
    group: Tensor, num_groups: int, source: Tensor, num_sources: int, dtype: torch.dtype
) -> MatrixTable:
    """Build the table of group means as matrices; see `group_table`.

    Whole numbers are added, so that on a GPU their order does not matter.
    """
    pairs = group * num_sources + source  # (B, L)
    counts = torch.zeros_like(pairs[:, :1], dtype=dtype).repeat(1, num_groups * num_sources)
    counts = counts.scatter_add(1, pairs, torch.ones_like(pairs, dtype=dtype))
    counts = counts.unflatten(1, (num_groups, num_sources))
    return MatrixTable(counts / (counts.sum(-1, keepdim=True) + 1e-6))


def map_table(
    group: Tensor, num_groups: int, source: Tensor, num_sources: int, dtype: torch.dtype
) -> Table:
    """Build the table of means between tokens and a map: matrices where they are faster.

    That is on a GPU in half precision, unless the matrices are much larger than what is summed.
    """
    kind, cells = group.device.type, max(group.shape[-1], source.shape[-1])
    if kind == "cuda" and torch.is_autocast_enabled(kind):
        if num_groups * num_sources <= _MATRIX_ROWS * cells:
            weights = matrix_table(group, num_groups, source, num_sources, dtype).weights
            return MatrixTable(weights.to(torch.get_autocast_dtype(kind)))
    return group_table(group, num_groups, source, num_sources, dtype)


def pair_table(
    group: Tensor, num_groups: int, source: Tensor, num_sources: int, dtype: torch.dtype
) -> RowTable:
    """Build the table of group means with each pair once; how many there are depends on both.

    Of the 3072 cells of 256x192, 1300 pairs of token and pixel are left in stage 2, 600 and 200
    in the stages after it.
    """
    batch, device = torch.broadcast_shapes(group.shape, source.shape)[0], group.device
    image = torch.arange(batch, device=device)[:, None]
    pairs = (image * num_groups + group) * num_sources + source
    pair, counts = pairs.unique(return_counts=True)
    group = pair.div(num_sources, rounding_mode="floor")  # numbered over the batch
    counts = counts.to(dtype)
    sizes = torch.zeros(batch * num_groups, dtype=dtype, device=device)
    sizes = sizes.index_add_(0, group, counts)
    return RowTable(
        rows=pair % num_sources + group.div(num_groups, rounding_mode="floor") * num_sources,
        starts=torch.searchsorted(group, torch.arange(len(sizes), device=device)),
        weights=counts / (sizes + 1e-6)[group],
        num_groups=num_groups,
    )


def row_table(
    group: Tensor, num_groups: int, source: Tensor, num_sources: int, dtype: torch.dtype
) -> RowTable:
    """Build the table of group means; see `group_table`."""
    batch, length = torch.broadcast_shapes(group.shape, source.shape)
    image = torch.arange(batch, device=group.device)[:, None]
    ordered, order = group.sort(dim=1, stable=True)  # (B or 1, L)
    rows = (source + image * num_sources).gather(1, order.expand(batch, -1))
    numbers = torch.arange(num_groups, device=group.device).expand(group.shape[0], -1)
    starts = torch.searchsorted(ordered, numbers.contiguous())  # (B or 1, G)
    ends = F.pad(starts[:, 1:], (0, 1), value=length)
    weights = ((ends - starts).to(dtype) + 1e-6).reciprocal().gather(1, ordered)
    return RowTable(
        rows=rows.flatten(),
        starts=(starts + image * length).flatten(),
        weights=weights.expand(batch, -1).flatten(),
        num_groups=num_groups,
    )


class Regions(NamedTuple):
    """The cells of the initial grid and the pixels of a map that each token of a stage covers.

    Cell (y, x) of the H0 x W0 grid is a part of map pixel (y h // H0, x w // W0). Both tables are
    None for the untouched grid, where tokens, cells and pixels are the same.
    """

    cell_token: Tensor  # (B, H0 * W0) int64, the token that owns each cell
    grid_size: tuple[int, int]
    map_size: tuple[int, int]
    to_map: Table | None
    to_tokens: Table | None

    def token2map(self, x: Tensor) -> Tensor:
        """Average over the cells of each pixel: (B, N, C) -> (B, h, w, C)."""
        return (self.to_map.sum(x) if self.to_map else x).unflatten(1, self.map_size)

    def map2token(self, x: Tensor) -> Tensor:
        """Average over the cells of each token: (B, h, w, C) -> (B, N, C)."""
        x = x.flatten(1, 2)
        return self.to_tokens.sum(x) if self.to_tokens else x


def grid_regions(batch: int, grid_size: tuple[int, int], device: torch.device) -> Regions:
    """One token per cell."""
    cells = torch.arange(grid_size[0] * grid_size[1], device=device).expand(batch, -1)
    return Regions(cells, grid_size, grid_size, None, None)


def locate_tokens(
    cell_token: Tensor,
    num_tokens: int,
    grid_size: tuple[int, int],
    map_size: tuple[int, int],
    dtype: torch.dtype,
) -> Regions:
    """Build the tables between tokens and a map of `map_size`, for features of type `dtype`."""
    (height, width), (h, w) = grid_size, map_size
    row = torch.arange(height, device=cell_token.device) * h // height
    column = torch.arange(width, device=cell_token.device) * w // width
    pixel = (row[:, None] * w + column).view(1, -1)  # (1, H0 * W0)
    return Regions(
        cell_token,
        grid_size,
        map_size,
        to_map=map_table(pixel, h * w, cell_token, num_tokens, dtype),
        to_tokens=map_table(cell_token, num_tokens, pixel, h * w, dtype),
    )


def merge_tokens(
    x: Tensor, score: Tensor, mass: Tensor, cluster: Tensor, num_merged: int
) -> tuple[Tensor, Tensor]:
    """Average tokens (B, N, D) and their mass (B, N) over clusters, weighted by exp(score)."""
    numbers = torch.arange(x.shape[1], device=x.device)[None]
    table = group_table(cluster, num_merged, numbers, x.shape[1], mass.dtype)
    table = table.weighted(score.to(mass.dtype).exp()[..., 0])
    columns = torch.cat([x.to(mass.dtype), mass[..., None], torch.ones_like(mass)[..., None]], -1)
    sums = table.sum(columns)  # (B, M, D + 2)
    means = sums[..., :-1] / (sums[..., -1:] + 1e-6)
    return means[..., :-1].to(x.dtype), means[..., -1]
