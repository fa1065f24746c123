"""How fast a model runs, next to what this machine can do.

    python benchmarks/speed.py "uniformer_s*" --batch 1 8
    python benchmarks/speed.py uniformer_s_256x192 --dtype float32 bfloat16 --device cuda
    python benchmarks/speed.py vitpose_b_256x192 --peers --dtype float32 bfloat16 --threads 1
    python benchmarks/speed.py "pct*" --plain
    python benchmarks/speed.py "tmpose*" --mask-ratio 1 .8 .6 .4 --plot curve.png
    python benchmarks/speed.py "pct_swin*" --load

Inputs and weights are random; see timing.py for the rounds, units and shares. Engines are torch
(the model as it is), optimised and compiled (`posezoo.optimize`), onnxruntime and openvino (our
export on a CPU), and transformers, which has ViTPose; one that lacks a precision or a model, or is
not installed, is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import mask_curve
import torch
from load import fresh, report
from timing import make_case, measure, memory_of, multiply_adds, network, summarise

import posezoo
from posezoo.errors import PoseZooError

PEERS = ("onnxruntime", "openvino", "transformers")
ENGINES = ("torch", "optimised", "compiled", *PEERS)


def table(rows: list[dict[str, Any]]) -> str:
    columns = {
        "model": "model", "engine": "engine", "batch": "batch", "dtype": "dtype",
        "median_ms": "median ms", "p95_ms": "p95 ms", "images_per_s": "images/s",
        "cpu_ms": "CPU ms", "units": "units", "share": "of limit", "params": "params M",
        "macs": "GMACs", "peak_mib": "peak MiB",
    }  # fmt: skip
    shown = [key for key in columns if any(key in row for row in rows)]
    lines = [[columns[key] for key in shown]]
    for row in rows:
        text = {key: str(row.get(key, "-")) for key in shown}
        text["model"] += " (plain)" * row["plain"]
        text |= {"params": f"{row['params'] / 1e6:.2f}", "macs": f"{row['macs'] / 1e9:.2f}"}
        text["share"] = f"{100 * row['share']:.0f} %"
        lines.append([text[key] for key in shown])
    widths = [max(len(line[i]) for line in lines) for i in range(len(shown))]
    lines.insert(1, ["-" * (width - 1) + ":" for width in widths])  # Markdown
    return "\n".join(
        "| " + " | ".join(t.rjust(w) for t, w in zip(line, widths)) + " |" for line in lines
    )


def cases_of(
    names: list[str], batches: list[int], dtypes: list[str], engines: list[str], device: Any,
    plain: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return all combinations that there are; say which are not."""
    cases = []
    for name, batch, dtype, engine in itertools.product(names, batches, dtypes, engines):
        try:
            cases.append(make_case(name, batch, dtype, engine, device))
        except (PoseZooError, ImportError) as error:
            print(f"left out: {name}, {engine}, {dtype}: {error}", file=sys.stderr)
        if plain and "_swin_" in name and network(name, device).backbone and engine == "torch":
            cases.append(make_case(name, batch, dtype, engine, device, plain=True))
    return cases


def processor() -> str:
    """Return the name of the processor, where Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((ln.split(":")[1].strip() for ln in lines if ln.startswith("model name")), "")


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the milliseconds per image of every engine, in groups."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((r["model"], r["batch"], r["dtype"]) for r in rows))
    engines = list(dict.fromkeys(r["engine"] for r in rows))
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.25 * len(rows)), layout="constrained")
    for i, engine in enumerate(engines):
        shown = [r for r in rows if r["engine"] == engine and not r["plain"]]
        places = [groups.index((r["model"], r["batch"], r["dtype"])) for r in shown]
        heights = [r["median_ms"] / r["batch"] for r in shown]
        step = 0.8 / len(engines)
        axes.barh([p + i * step for p in places], heights, step, label=engine)
    axes.set_yticks([p + 0.4 - step / 2 for p in range(len(groups))])
    axes.set_yticklabels([f"{m}\nbatch {b}, {d}" for m, b, d in groups], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("ms per image")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", nargs="+", help="model names or patterns")
    add("--batch", type=int, nargs="+", default=[1, 8], help="images per forward (default 1 8)")
    add("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16", "float16"))
    add("--device", default="cpu")
    add("--engines", nargs="+", default=["torch"], choices=ENGINES, help="default: torch")
    add("--peers", action="store_true", help="torch, optimised, and all that are not posezoo")
    add("--plain", action="store_true", help="also measure timm's own forward (models on Swin)")
    add("--rounds", type=int, default=7, help="timed rounds (default 7)")
    add("--warmup", type=int, default=3, help="untimed rounds (default 3)")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--memory", action="store_true", help="also peak memory")
    add("--load", action="store_true", help="instead: time and memory of loading, see load.py")
    add("--mask-ratio", help="instead: over shares of tokens kept, see mask_curve.py --help")
    add("--plot", type=Path, help="PNG: bars of the time per image")
    add("--out", type=Path, help="write the JSON here as well")
    if any(text.startswith("--mask-ratio") for text in sys.argv):
        return mask_curve.main()  # it has options of its own
    args = parser.parse_args()
    device, names = torch.device(args.device), posezoo.list_models(args.names)
    if args.load or not names:
        return report(names) if names else parser.error(f"no model matches {args.names}")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    cache = Path(tempfile.gettempdir()) / "posezoo-benchmarks"  # of exported random networks
    os.environ.setdefault("POSEZOO_CACHE", str(cache))
    engines = ["torch", "optimised", *PEERS] if args.peers else args.engines
    cases = cases_of(names, args.batch, args.dtype, engines, device, args.plain)
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
    record |= {"processor": processor(), "load": os.getloadavg()}
    if args.plot:
        plot(rows, args.plot)
    if args.out:
        args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
