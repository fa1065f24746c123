"""Rows of operators as graphs of oneDNN or as programs: the same bits, or not used."""

from __future__ import annotations

import copy
import mmap
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from families import fill, small
from torch import Tensor, nn

from posezoo import graphs, optimize
from posezoo.graphs import Graph
from posezoo.memory import give_back_freed_memory
from posezoo.models.layers import Mlp, depthwise_gelu
from posezoo.packing import can_pack, pack_layers

HAS_GRAPHS = can_pack(torch.device("cpu"), torch.float32) and hasattr(torch._C, "_jit_llga_enabled")
needs_graphs = pytest.mark.skipif(not HAS_GRAPHS, reason="needs x86 and oneDNN's fuser")
BFLOAT16 = can_pack(torch.device("cpu"), torch.bfloat16)


RECORDED = ["vitpose_b_simple_256x192", "vitpose_plus_s_256x192", "pct_swin_base"]


class Row(nn.Module):
    """Two convolutions and a residual, as a row of operators, or what pretends to be one."""

    graph_is_fused = True

    def __init__(self, after=lambda x: x) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.after = after
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.second(self.first(x).relu()))


class Shift(nn.Module):
    """A program with a large constant."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.graph_is_fused = fused
        self.shift = nn.Parameter(torch.zeros(1 << 22), requires_grad=False)  # 16 MiB

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def maps(batch: int) -> Tensor:
    return torch.randn(batch, 8, 12, 6).contiguous(memory_format=torch.channels_last)


def graphs_of(network: nn.Module) -> list:
    return [g for m in network.modules() if isinstance(m, Graph) for g in m._graphs.values()]


@needs_graphs
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["hrnet_xs_128x96", "tmpose_b_256x192", *RECORDED])
def test_models_keep_their_bits_when_rows_become_graphs(name: str, dtype: str, monkeypatch):
    if dtype == "bfloat16" and not BFLOAT16:
        pytest.skip("needs a processor with bfloat16")
    model = fill(small(name))
    fast = optimize(model, dtype=dtype)
    first, *later = ([flat(fast(x)) for x in inputs] for inputs in 4 * [images(model)])
    made = graphs_of(fast)
    # where one bit differs there is no graph
    assert made and (all(made) if name in RECORDED else dtype == "bfloat16" or any(made))
    assert all(torch.equal(a, b) for found in later for a, b in zip(found, first, strict=True))
    monkeypatch.setattr(graphs, "_CALLS", 99)
    usual = [flat(optimize(model, dtype=dtype)(x)) for x in images(model)]
    assert all(torch.equal(a, b) for a, b in zip(first, usual, strict=True))


def flat(output) -> Tensor:
    """All numbers of an output, which may be several tensors."""
    parts = [output] if isinstance(output, Tensor) else output
    return torch.cat([part.flatten().double() for part in parts])


def images(model) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = model.pretrained_cfg.input.size
    return [torch.randn(b, 3, *size, generator=generator) for b in (1, 2, 5)]


class Packed(nn.Module):
    """All operators with packed weights that a program may call."""

    graph_is_fused = False

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.fc1, self.act, self.fc2 = nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = depthwise_gelu(
            self.again(x, self.conv(x, relu=True), True), self.again.weight[:, :1], X
        )
        x = x.permute(0, 2, 3, 1)
        return self.fc2(self.act(self.fc1(x)), x)


X = torch.linspace(-1, 1, 8)


@needs_graphs
def test_a_program_calls_the_operators_that_ran_before_it():
    network = nn.Sequential(Packed()).eval().requires_grad_(False)
    pack_layers(network, torch.float32)
    graphs.make_graphs(network)
    graph, x = network[0], maps(2)
    with torch.no_grad():
        expected = graph.module(x)
        for _ in range(5):
            assert torch.equal(graph(x), expected)
    assert all(graphs_of(graph))
    program = str(torch.jit.last_executed_optimized_graph())
    assert program.count("mkldnn::_convolution_pointwise") == 3
    assert program.count("mkldnn::_linear_pointwise") == 2 and "aten::linear" not in program


@needs_graphs
def test_a_shape_has_its_graph_from_its_third_input_on():
    graph, x = Graph(Row()), maps(2)
    for calls in range(1, 5):
        assert torch.equal(graph(x), graph.module(x)), calls
        assert len(graph._graphs) == (calls >= 3)
    for _ in range(3):
        assert len(graph._graphs) == 1
        graph(maps(3))
    assert len(graph._graphs) == 2


@needs_graphs
def test_a_row_that_is_none_runs_as_it_is():
    numbers = iter(range(99))

    def differ(x: Tensor) -> Tensor:
        return x + next(numbers)

    def fail(x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise ValueError("no graph")
        return x

    for after in (differ, fail):
        graph = Graph(Row(after))
        found = [graph(maps(2)) for _ in range(5)]
        assert list(graph._graphs.values()) == [None]
    assert len({float(x.mean()) for x in found}) == 5
    x = maps(2)
    assert torch.equal(graph(x), graph.module(x))


@needs_graphs
@pytest.mark.parametrize("is_fused", [True, False], ids=["graph", "program"])
def test_a_graph_that_would_write_over_its_input_is_not_used(is_fused: bool):
    class Writes(Row):
        graph_is_fused = is_fused

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if torch.jit.is_tracing():
                x.zero_()
            return y

    graph, x = Graph(Writes()), maps(2)
    kept = x.clone()
    for _ in range(4):
        graph(x)
    assert graphs_of(graph) == [None] and torch.equal(x, kept)


def test_other_arguments_and_no_images_run_the_module():
    class Two(Row):
        def forward(self, x: Tensor, more: tuple[int, ...] = ()) -> Tensor:
            return super().forward(x) + sum(more)

    graph = Graph(Two())
    for _ in range(4):
        assert torch.equal(graph(maps(1) * 0, (2, 3)), graph.module(maps(1) * 0) + 5)
        assert graph(maps(1)[:0]).shape == (0, 8, 12, 6)
    assert not graph._graphs


@needs_graphs
def test_graphs_are_neither_copied_nor_kept_in_another_type():
    graph, x = Graph(Row()), maps(1)
    for _ in range(3):
        expected = graph(x)
    for again in (copy.deepcopy(graph), pickle.loads(pickle.dumps(Graph(Mlp(4, 8)))), None):
        again = again or copy.deepcopy(graph)
        assert not again._graphs and not again._calls
    assert torch.equal(copy.deepcopy(graph)(x), expected)
    assert graph._graphs and not graph.double()._graphs
    assert graph(x.double()).dtype == torch.float64


def test_parts_are_found_where_they_were():
    graph = Graph(Row())
    assert graph.first is graph.module.first and graph.graph_is_fused
    with pytest.raises(AttributeError, match="'Row' object has no attribute 'third'"):
        _ = graph.third


@needs_graphs
def test_few_shapes_have_graphs_and_the_others_run():
    graph = Graph(Row(), shapes=2)
    for batch in (4, 1, 2, 3):
        for _ in range(1 if batch == 4 else 4):
            x = maps(batch)
            assert torch.equal(graph(x), graph.module(x))
    assert [shape[0] for shape, *_ in graph._graphs] == [1, 2]


@needs_graphs
def test_threads_share_a_graph_and_the_setting_of_torch_stays():
    graph = Graph(Row())
    inputs = [maps(2) for _ in range(40)]
    expected = [graph.module(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(graph, inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch._C._jit_llga_enabled()


@needs_graphs
def test_a_program_is_of_the_precision_that_it_was_recorded_in():
    row = Row()
    row.graph_is_fused = False
    graph, x = Graph(row), maps(2)
    for _ in range(4):
        for half in (None, torch.bfloat16, torch.float16):
            with torch.autocast("cpu", half, enabled=half is not None):
                found, expected = graph(x), row(x)
                assert torch.equal(found, expected) and found.dtype == expected.dtype
                assert torch.is_autocast_enabled("cpu") == (half is not None)
    assert len(graphs_of(graph)) == 3 and all(graphs_of(graph))


@needs_graphs
def test_graphs_run_with_gradients_and_autocast_on():
    model = fill(small("hrnet_xs_128x96"))
    fast, x = optimize(model), images(model)[0]
    with torch.no_grad():
        expected = fast(x)
    for _ in range(4):
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
            found = fast(x)
    assert torch.allclose(found.float(), expected, atol=0.05 * float(expected.std()) + 1e-6)


@needs_graphs
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("fused", [True, False])
def test_graphs_that_are_dropped_give_their_memory_back(fused: bool):
    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    x, used = torch.randn(1, 1 << 22), []
    for _ in range(8):
        graph = Graph(Shift(fused))
        with torch.no_grad():
            for _ in range(4):
                graph(x)
        assert all(graph._graphs.values())
        del graph
        give_back_freed_memory()
        used.append(memory())
    assert used[-1] - used[1] < 3 << 24


@needs_graphs
def test_threads_do_not_make_more_graphs_than_there_may_be():
    graph = Graph(Row(), shapes=3)
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        list(pool.map(graph, [maps(1 + i % 8) for i in range(64)]))
        list(pool.map(graph, [maps(9 + i % 4) for i in range(64)]))
    assert len(graph._graphs) <= 3
