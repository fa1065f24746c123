"""How fast a model runs, next to what this machine can do.

    python benchmarks/speed.py "uniformer_s*" --batch 1 8
    python benchmarks/speed.py uniformer_s_256x192 --dtype float32 bfloat16 --device cuda
    python benchmarks/speed.py "pct*" --plain
    python benchmarks/speed.py "tmpose*" --mask-ratio 1 .8 .6 .4 --plot curve.png
    python benchmarks/speed.py "pct_swin*" --load

Inputs and weights are random; see timing.py for the rounds, units and shares.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from pathlib import Path
from typing import Any

import mask_curve
import torch
from load import fresh, report
from timing import make_case, measure, memory_of, multiply_adds, network, summarise

import posezoo


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
        measure(cases, device, rounds=args.rounds, warmup=args.warmup)
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
