"""Milliseconds per person of the models in the chooser table; writes latency.json.

    python benchmarks/latency.py                  # one CPU thread
    python benchmarks/latency.py --device cuda    # a GPU; keeps what was measured on a CPU

One crop, float32 without TF32, random weights, as `posezoo.optimize` makes the network and the
predictor runs it, no flip test (with it, twice). On the CPU it is
the CPU time of one thread, which other work on the machine changes little; on CUDA the time until
the result is there. Median of --rounds forwards. report.py prints the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import torch
from chooser import CHOICES
from timing import forward_of

import posezoo

OUT = Path(__file__).with_name("latency.json")


def milliseconds(name: str, device: torch.device, rounds: int) -> float:
    """Return the median of a forward of one crop, after two that do not count."""
    model = posezoo.optimize(posezoo.create_model(name), device=device)
    run = forward_of(model, 1, device)
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 2):
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            start = clock()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(1000 * (clock() - start))
    return statistics.median(times[2:])


def processor() -> str:
    """Return the name of the CPU, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="timed forwards (default 7)")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # torch leaves it on for convolutions
    measured = {}
    for name in dict.fromkeys(choice.name for choice in CHOICES):
        measured[name] = round(milliseconds(name, device, args.rounds), 1)
        print(f"{name:32s} {measured[name]:8.1f} ms", flush=True)
    on_gpu = device.type == "cuda"
    entry = {
        "hardware": torch.cuda.get_device_name(device) if on_gpu else f"{processor()}, one thread",
        "command": "python " + " ".join(["benchmarks/latency.py", *sys.argv[1:]]),
        "date": date.today().isoformat(), "torch": torch.__version__.partition("+")[0],
        "load": f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores", "ms": measured,
    }  # fmt: skip
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    OUT.write_text(json.dumps({**known, device.type: entry}, indent=2) + "\n")


if __name__ == "__main__":
    main()
