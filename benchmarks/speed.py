"""How fast a model runs, next to what this machine can do.

    python benchmarks/speed.py "uniformer_s*" --batch 1 8
    python benchmarks/speed.py uniformer_s_256x192 --dtype float32 bfloat16 --device cuda

Every round runs each model, batch size and setting once, with a matrix product before and
after, so that whatever else the machine does hits all of them alike. One unit is the time of that
product (1024^3 on a CPU, 8192^3 on CUDA, in the same precision); units carry from machine to
machine, milliseconds do not. The floor is every multiply-add at the speed of the product, the
share is floor / measured. Inputs are random, weights are random: neither changes the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import posezoo

DTYPES = ("float32", "bfloat16", "float16")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="model names or patterns")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images per forward")
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=DTYPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds (default 7)")
    parser.add_argument("--warmup", type=int, default=2, help="untimed rounds (default 2)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--memory", action="store_true", help="also load time and peak memory")
    parser.add_argument("--out", type=Path, help="write the JSON here as well")
    return parser.parse_args()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def multiply_adds(name: str) -> int:
    """Multiply-adds of one image: convolutions, matrix products and attention."""
    model = posezoo.create_model(name).to("meta")
    image = torch.empty(1, 3, *model.pretrained_cfg.input.size, device="meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image)
    return counter.get_total_flops() // 2


def make_case(name: str, batch: int, dtype: str, compiled: bool, device: torch.device) -> dict:
    model = posezoo.create_model(name).to(device)
    image = torch.randn(batch, 3, *model.pretrained_cfg.input.size, device=device)
    network = torch.compile(model) if compiled else model

    def run() -> Any:
        half = dtype != "float32"
        cast = torch.autocast(device.type, getattr(torch, dtype)) if half else None
        with cast or contextlib.nullcontext():
            return network(image)

    return {
        "model": name,
        "batch": batch,
        "dtype": dtype,
        "compiled": compiled,
        "run": run,
        "params": sum(p.numel() for p in model.parameters()),
    }


def measure(cases: list[dict], args: argparse.Namespace, device: torch.device) -> None:
    """Interleave all cases; add seconds, units and GEMM rates to each."""
    side = 8192 if device.type == "cuda" else 1024
    squares = {d: torch.randn(side, side, device=device).to(getattr(torch, d)) for d in args.dtype}
    for case in cases:
        case.update(seconds=[], units=[], gemm=[])
    for round_ in range(args.warmup + args.rounds):
        for case in cases:
            square = squares[case["dtype"]]
            before = timed(lambda square=square: square @ square, device)
            seconds = timed(case["run"], device)
            after = timed(lambda square=square: square @ square, device)
            if round_ >= args.warmup:
                case["seconds"].append(seconds)
                case["units"].append(seconds / min(before, after))
                case["gemm"].append(min(before, after))


def memory_of(name: str, batch: int) -> dict[str, float]:
    """In a fresh process (Linux): load time, and peak MiB of one forward beyond the imports."""
    import timm  # noqa: F401  the models import it when they are built

    def peak() -> float:  # of this process image alone; getrusage inherits its parent's
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    imported = peak()
    start = time.perf_counter()
    model = posezoo.create_model(name)
    load = time.perf_counter() - start
    with torch.inference_mode():
        model(torch.randn(batch, 3, *model.pretrained_cfg.input.size))
    return {"create_s": round(load, 3), "peak_mib": round(peak() - imported, 1)}


def summarise(case: dict, macs: int, side: int) -> dict[str, Any]:
    seconds = sorted(case["seconds"])
    units = statistics.median(case["units"])
    median = statistics.median(seconds)
    floor = macs * case["batch"] / side**3
    return {
        "model": case["model"],
        "batch": case["batch"],
        "dtype": case["dtype"],
        "compiled": case["compiled"],
        "params": case["params"],
        "macs": macs,
        "median_ms": round(median * 1e3, 2),
        "p95_ms": round(seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))] * 1e3, 2),
        "images_per_s": round(case["batch"] / median, 1),
        "units": round(units, 2),
        "floor_units": round(floor, 2),
        "share": round(floor / units, 3),
        "gemm_tflops": round(2 * side**3 / statistics.median(case["gemm"]) / 1e12, 3),
        **{k: case[k] for k in ("create_s", "peak_mib") if k in case},
    }


def table(rows: list[dict[str, Any]]) -> str:
    columns = {
        "model": "model",
        "batch": "batch",
        "dtype": "dtype",
        "median_ms": "median ms",
        "p95_ms": "p95 ms",
        "images_per_s": "images/s",
        "units": "units",
        "share": "of limit",
        "params": "params M",
        "macs": "GMACs",
        "create_s": "create s",
        "peak_mib": "peak MiB",
    }
    shown = [key for key in columns if any(key in row for row in rows)]
    lines = [[columns[key] for key in shown]]
    for row in rows:
        text = {key: str(row.get(key, "-")) for key in shown}
        text["model"] += " (compiled)" if row["compiled"] else ""
        text["params"] = f"{row['params'] / 1e6:.2f}"
        text["macs"] = f"{row['macs'] / 1e9:.2f}"
        text["share"] = f"{100 * row['share']:.0f} %"
        lines.append([text[key] for key in shown])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    return "\n".join("  ".join(t.rjust(w) for t, w in zip(line, widths)) for line in lines)


def main() -> int:
    args = parse()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    names = posezoo.list_models(args.names)
    if not names:
        print(f"no model matches {' '.join(args.names)}", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    cases = [
        make_case(name, batch, dtype, compiled, device)
        for name in names
        for batch in args.batch
        for dtype in args.dtype
        for compiled in ([False, True] if args.compile else [False])
    ]
    with torch.inference_mode():
        measure(cases, args, device)
    if args.memory:
        for case in cases:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                case.update(pool.apply(memory_of, (case["model"], case["batch"])))
    macs = {name: multiply_adds(name) for name in names}
    side = 8192 if device.type == "cuda" else 1024
    rows = [summarise(case, macs[case["model"]], side) for case in cases]
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    record = {
        "command": " ".join(sys.argv),
        "device": f"{device} {where}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": rows,
    }
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
