"""What TCFormer does with tokens: clustering, maps and back, merging."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posezoo.models.tcformer import tokens
from posezoo.models.tcformer.blocks import ReducedAttention


def _cluster_by_the_book(x: Tensor, num_clusters: int) -> Tensor:
    """DPC-KNN of one image, straight from the formulas, ties by index."""
    distance = (x[:, None] - x[None]).square().sum(-1).sqrt() / math.sqrt(x.shape[-1])
    n = len(x)
    nearest = distance.sort(dim=1).values[:, :5]
    density = torch.exp(-nearest.square().mean(1)).tolist()
    delta = []
    for i in range(n):
        denser = [j for j in range(n) if (density[j], -j) > (density[i], -i)]
        delta.append(min((float(distance[i, j]) for j in denser), default=float(distance.max())))
    by_score = sorted(range(n), key=lambda i: (-delta[i] * density[i], i))
    centres = by_score[:num_clusters]
    cluster = distance[:, centres].argmin(1)
    cluster[torch.tensor(centres)] = torch.arange(num_clusters)
    return cluster


@given(
    n=st.integers(1, 60),
    copies=st.sampled_from([1, 5, 6]),  # fewer would leave mutual neighbours tied up to rounding
    ratio=st.sampled_from([0.05, 0.25, 0.6, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_clusters_are_those_of_the_formulas(n, copies, ratio, seed):
    x = torch.randn(n, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x.repeat(copies, 1)  # copies are exact ties
    num_clusters = max(math.ceil(len(x) * ratio), 1)
    ours = tokens.cluster_tokens(x[None], num_clusters)[0]
    assert torch.equal(ours, _cluster_by_the_book(x, num_clusters))


@pytest.mark.parametrize("n", [255, 256, 257, 770, 784, 832])
def test_clusters_do_not_depend_on_how_rows_are_blocked(n, monkeypatch):
    x = torch.randn(2, n, 16, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    found = tokens.cluster_tokens(x, n // 4)
    monkeypatch.setattr(tokens, "_BLOCK_ROWS", 1000)
    assert torch.equal(found, tokens.cluster_tokens(x, n // 4))
    assert torch.equal(found[0], _cluster_by_the_book(x[0], n // 4))


@pytest.mark.parametrize("copies", [1, 6])
def test_devices_that_look_at_all_tokens_find_the_same_clusters(copies):
    """As compiled code and GPUs do, to which the number of density peaks must not matter."""
    x = torch.randn(2, 300 // copies, 16, generator=torch.Generator().manual_seed(0)).double()
    x = x.repeat(1, copies, 1)
    everywhere = torch.compile(tokens.cluster_tokens, backend="eager", fullgraph=True)
    assert torch.equal(everywhere(x, 75), tokens.cluster_tokens(x, 75))


@pytest.mark.parametrize("n", [1, 4, 320, 641, 704, 784, 3072])
def test_five_largest_are_the_five_largest(n):
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n)).round(decimals=1)
    values, indices = tokens._largest(x)
    assert torch.equal(values, x.sort(dim=-1, descending=True).values[..., :5])
    assert torch.equal(values, x.gather(-1, indices))


@pytest.mark.parametrize("n", [1, 4, 49, 192, 768])
def test_of_equals_the_first_is_the_largest(n):
    x = torch.randint(4, (2, 50, n), generator=torch.Generator().manual_seed(n)).float()
    x[0, 0, n // 2] = x[1, 3, -1] = math.nan
    assert torch.equal(tokens._first_largest(x), x.argmax(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equal_tokens_spend_one_centre(dtype):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(400, 128, generator=g).to(dtype)
    rows[100:300] = rows[100]
    cluster = tokens.cluster_tokens(rows[None], 50)[0]
    assert len(set(cluster[100:300].tolist())) == 1
    assert len(set(cluster.tolist())) == 50


def test_all_tokens_equal_take_the_first_as_centres():
    cluster = tokens.cluster_tokens(torch.full((1, 64, 8), 0.1), 16)[0]
    assert cluster.tolist() == [*range(16)] + [0] * 48


def test_every_cluster_has_its_centre():
    x = torch.randn(3, 100, 8, generator=torch.Generator().manual_seed(1))
    for num_clusters in (1, 25, 100):
        for row in tokens.cluster_tokens(x, num_clusters):
            assert sorted(set(row.tolist())) == list(range(num_clusters))


def test_half_precision_tokens_are_clustered_in_float32():
    x = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.bfloat16, torch.float16):
        exact = tokens.cluster_tokens(x.to(dtype).double(), 75)
        assert torch.equal(tokens.cluster_tokens(x.to(dtype), 75), exact)
        with torch.autocast("cpu", dtype):
            assert torch.equal(tokens.cluster_tokens(x.to(dtype).float(), 75), exact)


def test_noise_comes_from_the_generator_and_only_where_asked():
    x = torch.zeros(1, 64, 8)  # with ties everywhere, noise decides
    torch.manual_seed(0)
    first = tokens.cluster_tokens(x, 16, 1e-6)
    assert not torch.equal(first, tokens.cluster_tokens(x, 16, 1e-6))
    torch.manual_seed(0)
    assert torch.equal(first, tokens.cluster_tokens(x, 16, 1e-6))
    state = torch.get_rng_state()
    tokens.cluster_tokens(x, 16)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "grid, map_size", [((8, 12), (4, 6)), ((9, 13), (5, 7)), ((9, 13), (3, 4))]
)
def test_tokens_and_maps_average_over_cells(grid, map_size):
    g = torch.Generator().manual_seed(0)
    batch, num_tokens, cells = 3, 10, grid[0] * grid[1]
    cell_token = torch.cat(
        [torch.arange(num_tokens).expand(batch, -1),
         torch.randint(num_tokens, (batch, cells - num_tokens), generator=g)], 1)  # fmt: skip
    regions = tokens.locate_tokens(cell_token, num_tokens, grid, map_size, torch.float64)
    x = torch.randn(batch, num_tokens, 5, generator=g, dtype=torch.float64)
    map = torch.randn(batch, *map_size, 5, generator=g, dtype=torch.float64)
    token2map, map2token = regions.token2map(x), regions.map2token(map)
    for b in range(batch):
        sums, counts = torch.zeros_like(map[b]), torch.zeros(map_size)
        back, sizes = torch.zeros_like(x[b]), torch.zeros(num_tokens)
        for cell, token in enumerate(cell_token[b].tolist()):
            i = (cell // grid[1]) * map_size[0] // grid[0]
            j = (cell % grid[1]) * map_size[1] // grid[1]
            sums[i, j] += x[b, token]
            counts[i, j] += 1
            back[token] += map[b, i, j]
            sizes[token] += 1
        close = dict(rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            token2map[b], sums / (counts.double() + 1e-6)[..., None], **close
        )
        torch.testing.assert_close(map2token[b], back / (sizes.double() + 1e-6)[:, None], **close)


@pytest.mark.parametrize("make", [tokens.pair_table, tokens.matrix_table])
def test_all_tables_give_the_same_sums(make):
    draw = torch.Generator().manual_seed(0)
    group = torch.cat([torch.arange(5).expand(2, -1), torch.randint(5, (2, 19), generator=draw)], 1)
    source = torch.randint(7, (1, 24), generator=draw)
    x = torch.randn(2, 7, 3, generator=draw, dtype=torch.float64)
    expected = tokens.row_table(group, 5, source, 7, x.dtype).sum(x)
    torch.testing.assert_close(
        make(group, 5, source, 7, x.dtype).sum(x), expected, rtol=0, atol=1e-14
    )


@pytest.mark.cuda
def test_cuda_maps_in_half_precision_are_those_of_the_cpu_and_the_same_again():
    draw = torch.Generator().manual_seed(0)
    owners = torch.arange(24).repeat(2, 8)[:, torch.randperm(192, generator=draw)]  # of 16x12 cells
    x = torch.randn(2, 24, 64, generator=draw)
    slow = tokens.locate_tokens(owners, 24, (16, 12), (8, 6), x.dtype)
    with torch.autocast("cuda", torch.bfloat16):
        fast = tokens.locate_tokens(owners.cuda(), 24, (16, 12), (8, 6), x.dtype)
        maps = [fast.token2map(x.cuda()) for _ in range(2)]
        back = fast.map2token(maps[0])
    assert torch.equal(*maps) and maps[0].dtype == x.dtype
    torch.testing.assert_close(maps[0].cpu(), slow.token2map(x), rtol=0.02, atol=0.02)
    torch.testing.assert_close(back.cpu(), slow.map2token(maps[0].cpu()), rtol=0.02, atol=0.02)


def test_the_untouched_grid_is_a_reshape():
    regions = tokens.grid_regions(2, (3, 4), torch.device("cpu"))
    x = torch.randn(2, 12, 5)
    assert torch.equal(regions.token2map(x), x.view(2, 3, 4, 5))
    assert torch.equal(regions.map2token(x.view(2, 3, 4, 5)), x)


def test_half_precision_maps_are_averaged_in_float32():
    """1/15 rounded to bfloat16, times 15, is not 1."""
    cells = torch.zeros(1, 15, dtype=torch.long)
    regions = tokens.locate_tokens(cells, 1, (3, 5), (3, 5), torch.float32)
    for value in (1.25, 1.5, 1.75):
        map = torch.full((1, 3, 5, 1), value, dtype=torch.bfloat16)
        assert regions.map2token(map).item() == value


def test_merging_weighs_tokens_by_their_scores():
    g = torch.Generator().manual_seed(0)
    x, score, mass = (torch.randn(2, 9, d, generator=g, dtype=torch.float64) for d in (4, 1, 1))
    cluster = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 0, 0], [2, 2, 2, 2, 2, 2, 2, 0, 1]])
    merged, merged_mass = tokens.merge_tokens(x, score, mass[..., 0], cluster, 3)
    for b in range(2):
        for c in range(3):
            mine = cluster[b] == c
            weight = score[b, mine].exp()
            weight = weight / (weight.sum() + 1e-6)
            torch.testing.assert_close(merged[b, c], (weight * x[b, mine]).sum(0))
            torch.testing.assert_close(merged_mass[b, c], (weight * mass[b, mine]).sum())


def test_attention_adds_the_score_to_the_logits():
    torch.manual_seed(0)
    attention = ReducedAttention(128, 1, pool=False).double()
    regions = tokens.grid_regions(2, (3, 4), torch.device("cpu"))
    x, source = torch.randn(2, 5, 128).double(), torch.randn(2, 12, 128).double()
    score = torch.randn(2, 12, 1).double()
    q = F.linear(x, attention.q.weight, attention.q.bias).view(2, 5, 2, 64)
    kv = F.linear(source, attention.kv.weight, attention.kv.bias)
    k, v = (part.view(2, 12, 2, 64) for part in kv.split(128, -1))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8 + score.mT[:, None]
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v).flatten(2)
    out = F.linear(out, attention.proj.weight, attention.proj.bias)
    torch.testing.assert_close(attention(x, source, regions, score), out)
