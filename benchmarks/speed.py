"""How fast a model runs, next to what this machine can do.

    python benchmarks/speed.py "uniformer_s*" --batch 1 8
    python benchmarks/speed.py uniformer_s_256x192 --dtype float32 bfloat16 --device cuda
    python benchmarks/speed.py "pct*" --plain
    python benchmarks/speed.py "tmpose*" --mask-ratio 1 .8 .6 .4 --plot curve.png
    python benchmarks/speed.py "pct_swin*" --load

Every round runs each case once, with a matrix product before and after, so that whatever else the
machine does hits all alike. One unit is the time of that product (1024^3 on a CPU, 8192^3 on CUDA,
same precision); units carry from machine to machine, milliseconds do not. The floor is every
multiply-add at the speed of the product, the share floor / measured. Inputs and weights are random.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from load import fresh, peak_mib, report
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import posezoo


def timed(run: Callable[[], Any], device: torch.device) -> float:
    wait = torch.cuda.synchronize if device.type == "cuda" else int
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


@functools.cache
def network(name: str, device: torch.device, **model_args: Any) -> Any:
    return posezoo.create_model(name, **model_args).to(device)


def forward_of(model: Any, batch: int, device: torch.device) -> Callable[[], Any]:
    """Return a function that runs the model once on random images; a tokenizer on poses, too."""
    image = torch.randn(batch, 3, *model.pretrained_cfg.input.size, device=device)
    if model.pretrained_cfg.task != "tokenizer":
        return lambda: model(image)
    pose = 256 * torch.rand(batch, 17, 2, device=device), torch.ones(batch, 17, device=device)
    guide = model.forward_features if model.image_guided else lambda image: None
    return lambda: model(*pose, guide(image))


def multiply_adds(name: str, **model_args: Any) -> int:
    """Multiply-adds of one image: convolutions, matrix products and attention."""
    meta = torch.device("meta")
    run = forward_of(posezoo.create_model(name, **model_args).to(meta), 1, meta)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops() // 2


def make_case(
    name: str, batch: int, dtype: str, compiled: bool, device: Any, plain=False, **model_args: Any
) -> dict[str, Any]:
    model = network(name, device, **model_args)
    forward, backbone = forward_of(model, batch, device), getattr(model, "backbone", None)
    forward = torch.compile(forward) if compiled else forward

    def run() -> Any:
        if backbone is not None:
            backbone.plain = plain  # of no effect but on Swin
        with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            return forward()

    case = {"model": name, "batch": batch, "dtype": dtype, "compiled": compiled, "plain": plain}
    return case | {"run": run, "params": sum(p.numel() for p in model.parameters())}


def measure(cases: list[dict], args: argparse.Namespace, device: torch.device) -> None:
    """Interleave all cases; add the seconds of each round, and of its product, to each."""
    side = 8192 if device.type == "cuda" else 1024
    squares = {d: torch.randn(side, side, device=device).to(getattr(torch, d)) for d in args.dtype}
    for round_ in range(args.warmup + args.rounds):
        for case in cases:
            product = functools.partial(torch.mm, *[squares[case["dtype"]]] * 2)
            before = timed(product, device)
            seconds = timed(case["run"], device)
            gemm = min(before, timed(product, device))
            if round_ >= args.warmup:
                case.setdefault("samples", []).append((seconds, gemm))


def memory_of(name: str, batch: int, **model_args: Any) -> dict[str, float]:
    """Return the peak MiB of one forward beyond the imports; for a fresh process."""
    import timm  # noqa: F401  the models import it when they are built

    imported = peak_mib()
    run = forward_of(posezoo.create_model(name, **model_args), batch, torch.device("cpu"))
    with torch.inference_mode():
        run()
    return {"peak_mib": round(peak_mib() - imported, 1)}


def summarise(case: dict, macs: int, side: int) -> dict[str, Any]:
    seconds, gemm = (sorted(values) for values in zip(*case["samples"]))
    units = statistics.median(s / g for s, g in case["samples"])
    median, floor = statistics.median(seconds), macs * case["batch"] / side**3
    return {
        **{k: case[k] for k in ("model", "batch", "dtype", "compiled", "plain", "params")},
        "macs": macs,
        "median_ms": round(median * 1e3, 2),
        "p95_ms": round(seconds[int(0.95 * len(seconds))] * 1e3, 2),
        "images_per_s": round(case["batch"] / median, 1),
        "units": round(units, 2),
        "floor_units": round(floor, 2),
        "share": round(floor / units, 3),
        "gemm_tflops": round(2 * side**3 / statistics.median(gemm) / 1e12, 3),
        **{k: case[k] for k in ("peak_mib",) if k in case},
    }


def table(rows: list[dict[str, Any]]) -> str:
    columns = {
        "model": "model", "batch": "batch", "dtype": "dtype", "median_ms": "median ms",
        "p95_ms": "p95 ms", "images_per_s": "images/s", "units": "units", "share": "of limit",
        "params": "params M", "macs": "GMACs", "peak_mib": "peak MiB",
    }  # fmt: skip
    shown = [key for key in columns if any(key in row for row in rows)]
    lines = [[columns[key] for key in shown]]
    for row in rows:
        text = {key: str(row.get(key, "-")) for key in shown}
        text["model"] += " (compiled)" * row["compiled"] + " (plain)" * row["plain"]
        text |= {"params": f"{row['params'] / 1e6:.2f}", "macs": f"{row['macs'] / 1e9:.2f}"}
        text["share"] = f"{100 * row['share']:.0f} %"
        lines.append([text[key] for key in shown])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    return "\n".join("  ".join(t.rjust(w) for t, w in zip(line, widths)) for line in lines)


def main() -> None:
    import mask_curve  # which imports this file

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", nargs="+", help="model names or patterns")
    add("--batch", type=int, nargs="+", default=[1, 8], help="images per forward (default 1 8)")
    add("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16", "float16"))
    add("--device", default="cpu")
    add("--compile", action="store_true", help="also measure torch.compile")
    add("--plain", action="store_true", help="also measure timm's own forward (models on Swin)")
    add("--rounds", type=int, default=7, help="timed rounds (default 7)")
    add("--warmup", type=int, default=2, help="untimed rounds (default 2)")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--memory", action="store_true", help="also peak memory")
    add("--load", action="store_true", help="instead: time and memory of loading, see load.py")
    add("--mask-ratio", help="instead: over shares of tokens kept, see mask_curve.py --help")
    add("--out", type=Path, help="write the JSON here as well")
    if any(text.startswith("--mask-ratio") for text in sys.argv):
        return mask_curve.main()  # it has options of its own
    args = parser.parse_args()
    device, names = torch.device(args.device), posezoo.list_models(args.names)
    if args.load or not names:
        return report(names) if names else parser.error(f"no model matches {args.names}")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    torch.manual_seed(0)
    cases = [
        make_case(name, batch, dtype, compiled, device, plain)
        for name, batch, dtype, compiled, plain in itertools.product(
            names, args.batch, args.dtype, {False, args.compile}, {False, args.plain}
        )
        if not plain or "_swin_" in name and network(name, device).backbone
    ]
    with torch.inference_mode():
        measure(cases, args, device)
    for case in cases if args.memory else []:
        case |= fresh(memory_of, case["model"], case["batch"])
    macs, cuda = {name: multiply_adds(name) for name in names}, device.type == "cuda"
    rows = [summarise(case, macs[case["model"]], 8192 if cuda else 1024) for case in cases]
    print(table(rows))
    where = torch.cuda.get_device_name(device) if cuda else platform.machine()
    record = {"command": " ".join(sys.argv), "device": f"{device} {where}", "rows": rows}
    record |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
