"""What TCFormer's clustering and token maps cost, as a share of the forward.

    python benchmarks/clustering.py tcformer_mta_256x192 --batch 1 8

A forward is watched once: every clustering, table and move between tokens and map is kept with
its inputs. These are then run alone, as the package does them and in the formulation of the
original (seven N x N matrices per clustering; for each move an index image, a sparse COO matrix
for the sums and another for the means), interleaved with whole forwards and a 1024^3 product.
Both must give the same. The original's share refers to a forward with its formulation inside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from timing import timed
from torch import Tensor

import posezoo
from posezoo.models.tcformer import blocks as tcformer
from posezoo.models.tcformer import tokens as tcformer_tokens
from posezoo.models.tcformer.tokens import Regions

Calls = list[tuple[str, tuple[Any, ...]]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["tcformer", "tcformer_mta_256x192"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images per forward")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed rounds (default 2)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    return parser.parse_args()


def original_clusters(x: Tensor, num_clusters: int) -> Tensor:
    """DPC-KNN with whole matrices; the noise of the original is left out."""
    batch, tokens, channels = x.shape
    distance = torch.cdist(x, x) / channels**0.5
    nearest = distance.topk(5, largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    denser = (density[:, None, :] > density[:, :, None]).to(x.dtype)
    largest = distance.flatten(1).max(-1).values[:, None, None]
    delta = (distance * denser + largest * (1 - denser)).min(-1).values
    centres = (delta * density).topk(num_clusters).indices  # (B, M)
    image = torch.arange(batch)[:, None]
    rows = distance.gather(1, centres[..., None].expand(-1, -1, tokens))  # (B, M, N)
    cluster = rows.argmin(1)
    cluster[image.expand_as(centres), centres] = torch.arange(num_clusters).expand_as(centres)
    return cluster


def pixel_of_cell(regions: Regions, batch: int) -> Tensor:
    """(B, cells): the map pixel of each cell, by enlarging an image of pixel numbers."""
    h, w = regions.map_size
    numbers = torch.arange(h * w, dtype=torch.float32).view(1, 1, h, w).expand(batch, -1, -1, -1)
    return F.interpolate(numbers, regions.grid_size, mode="nearest").flatten(1).long()


def sparse_mean(rows: Tensor, columns: Tensor, num_rows: int, x: Tensor) -> Tensor:
    """Average rows of x (B, S, C) into (B, num_rows, C) by two sparse matrices."""
    batch, sources, channels = x.shape
    image = torch.arange(batch)[:, None]
    where = torch.stack(
        [(rows + image * num_rows).flatten(), (columns + image * sources).flatten()]
    )
    shape = (batch * num_rows, batch * sources)

    def matrix(values: Tensor) -> Tensor:
        return torch.sparse_coo_tensor(where, values, shape, check_invariants=False)

    ones = torch.ones(where.shape[1])
    counts = matrix(ones) @ torch.ones(shape[1], 1) + 1e-6
    means = matrix(ones / counts[where[0], 0]) @ x.reshape(-1, channels)
    return means.view(batch, num_rows, channels)


def original_token2map(regions: Regions, x: Tensor) -> Tensor:
    (h, w), pixel = regions.map_size, pixel_of_cell(regions, len(x))
    return sparse_mean(pixel, regions.cell_token, h * w, x).unflatten(1, (h, w))


def original_map2token(regions: Regions, x: Tensor, num_tokens: int) -> Tensor:
    pixel = pixel_of_cell(regions, len(x))
    return sparse_mean(regions.cell_token, pixel, num_tokens, x.flatten(1, 2))


@contextmanager
def watched(calls: Calls) -> Iterator[None]:
    """Keep the arguments of all clusterings, tables and moves."""
    places = [(tcformer, n) for n in ("cluster_tokens", "locate_tokens", "merge_tokens")]
    places += [(Regions, n) for n in ("token2map", "map2token")]
    kept = [getattr(owner, name) for owner, name in places]

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            calls.append((name, args))
            return function(*args)

        return run

    try:
        for (owner, name), function in zip(places, kept):
            setattr(owner, name, watch(name, function))
        yield
    finally:
        for (owner, name), function in zip(places, kept):
            setattr(owner, name, function)


def replay(calls: Calls, original: bool) -> dict[str, float]:
    """Run the calls alone; seconds of the clustering and of tables, merges and moves."""
    spent = {"clustering": 0.0, "maps": 0.0}
    for name, args in calls:
        start = time.perf_counter()
        if name == "cluster_tokens":
            (original_clusters if original else tcformer_tokens.cluster_tokens)(*args[:2])
        elif name == "merge_tokens":
            tcformer_tokens.merge_tokens(*args)
        elif name == "locate_tokens":
            None if original else tcformer_tokens.locate_tokens(*args)
        elif not original or args[0].to_map is None:  # the untouched grid is a reshape
            getattr(args[0], name)(args[1])
        elif name == "token2map":
            original_token2map(*args)
        else:
            original_map2token(*args, args[0].to_tokens.num_groups)
        kind = "clustering" if name == "cluster_tokens" else "maps"
        spent[kind] += time.perf_counter() - start
    return spent


def check(calls: Calls) -> None:
    """Both formulations must give the same."""
    for name, args in calls:
        if name == "cluster_tokens":
            differ = original_clusters(*args[:2]) != tcformer_tokens.cluster_tokens(*args[:2])
            assert differ.float().mean() < 0.02, "clusters differ beyond rounding"
        elif name in ("token2map", "map2token") and args[0].to_map is not None:
            extra = (args[0].to_tokens.num_groups,) if name == "map2token" else ()
            theirs = globals()[f"original_{name}"](*args, *extra)
            torch.testing.assert_close(getattr(args[0], name)(args[1]), theirs)


def measure(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    model = posezoo.create_model(name)
    x = torch.randn(batch, 3, *model.pretrained_cfg.input.size)
    calls: Calls = []
    with watched(calls):
        model(x)
    check(calls)
    square = torch.randn(1024, 1024)
    found: dict[str, list[float]] = {}
    for _ in range(args.warmup + args.rounds):
        for what, run in (("unit", lambda: square @ square), ("forward", lambda: model(x))):
            found.setdefault(what, []).append(timed(run, x.device))
        for who in ("ours", "original"):
            for kind, seconds in replay(calls, who == "original").items():
                found.setdefault(f"{who}_{kind}", []).append(seconds)
    row = {k: statistics.median(v[args.warmup :]) * 1e3 for k, v in found.items()}
    ours, theirs = (row[f"{w}_clustering"] + row[f"{w}_maps"] for w in ("ours", "original"))
    row["ours_share"] = ours / row["forward"]
    row["original_share"] = theirs / (row["forward"] - ours + theirs)
    return {"model": name, "batch": batch} | {k: round(v, 3) for k, v in row.items()}


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        rows = [measure(name, batch, args) for name in args.names for batch in args.batch]
    print("milliseconds (median)   unit  forward | clustering + maps, share of forward")
    for row in rows:
        print(f"{row['model']} x{row['batch']}: {row['unit']:.1f}  {row['forward']:.0f}", end="")
        for who in ("ours", "original"):
            parts = f"{row[f'{who}_clustering']:.1f} + {row[f'{who}_maps']:.1f}"
            print(f" | {who} {parts}, {row[f'{who}_share']:.0%}", end="")
        print()
    print(json.dumps({"command": " ".join(sys.argv), "torch": torch.__version__,
                      "threads": torch.get_num_threads(), "unit": "ms", "rows": rows}))  # fmt: skip


if __name__ == "__main__":
    main()
