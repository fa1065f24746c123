"""Where the time of a forward goes: the share of each kind of operation, per family.

    python benchmarks/operations.py
    python benchmarks/operations.py tmpose_b_256x192 --dtype bfloat16 --batch 8

Runs `posezoo.optimize`d models in torch's profiler, one thread, and sums the time that each
operator spends itself. The profiler slows small operations down, so shares are for orientation.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch
from engines import FAMILIES
from torch.profiler import ProfilerActivity, profile

import posezoo

KINDS = {
    "graphs of oneDNN": ("Llga",),  # convolutions, matrix products, activations, see graphs.py
    "convolutions": ("conv",),
    "matrix products": ("addmm", "::mm", "bmm", "linear", "matmul", "baddbmm", "mkl"),
    "attention": ("attention",),
    "softmax, norms, activations": (
        "softmax", "norm", "gelu", "relu", "silu", "sigmoid", "exp", "tanh",
    ),
    "copies, permutes, concatenation": (
        "copy", "cat", "contiguous", "clone", "reorder", "to_mkldnn", "pad", "roll", "empty",
        "fill", "zero",
    ),
    "gather, scatter, sort": ("index", "gather", "scatter", "sort", "topk", "searchsorted", "take"),
    "sums and products": ("add", "mul", "sub", "div", "sum", "mean", "min", "max", "cdist", "pow"),
}  # fmt: skip


def kind_of(operator: str) -> str:
    """Return the first kind whose words are in the name of an operator."""
    return next((k for k, words in KINDS.items() if any(w in operator for w in words)), "other")


@torch.inference_mode()
def shares(name: str, batch: int, dtype: str, rounds: int) -> tuple[float, Counter[str]]:
    """Return milliseconds per image, and the share of each kind."""
    torch.manual_seed(0)
    model = posezoo.optimize(posezoo.create_model(name), dtype=dtype)
    images = torch.randn(batch, 3, *posezoo.get_pretrained_cfg(name).input.size)
    for _ in range(4):  # graphs are made in the third
        model(images)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            model(images)
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        times[kind_of(event.key)] += event.self_cpu_time_total
    total = times.total()
    return total / 1e3 / rounds / batch, Counter({k: t / total for k, t in times.items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=FAMILIES, help="default: one of each family")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = [*KINDS, "other"]
    print("| model | dtype | ms per image | " + " | ".join(kinds) + " |")
    print("|---|---|---|" + "---|" * len(kinds))
    for dtype in args.dtype:
        for name in args.names:
            milliseconds, found = shares(name, args.batch, dtype, args.rounds)
            cells = " | ".join(f"{100 * found[kind]:.0f} %" for kind in kinds)
            print(f"| `{name}` | {dtype} | {milliseconds:.0f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
