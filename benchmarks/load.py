"""What it takes to create a model with its weights: seconds, and memory at its peak.

    python benchmarks/load.py "pct_swin*"     (or speed.py "pct_swin*" --load)

Each model is written once with random weights, then created from that file in a fresh process
(Linux). Peak is memory beyond the imports, also as a multiple of the file; random is the time of
creating the same model without a file, which initialises every weight.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import posezoo

COLUMNS = ("model", "file_mib", "load_s", "peak_mib", "peak_of_file", "random_s")


def peak_mib() -> float:
    """Return the most memory that this process image held so far; getrusage inherits."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def write(name: str, folder: str) -> float:
    """Save a model with random weights; return the seconds that creating it took."""
    start = time.perf_counter()
    model = posezoo.create_model(name)
    seconds = time.perf_counter() - start
    posezoo.save_pretrained(model, folder)
    return seconds


def load(folder: str) -> tuple[float, float]:
    """Create the saved model; return seconds and peak MiB beyond the imports."""
    import timm.models.swin_transformer_v2  # noqa: F401  what building a model imports

    posezoo.create_model("hrnet_xs_128x96")  # imports the rest, and torch's first allocations
    before, start = peak_mib(), time.perf_counter()
    model = posezoo.create_model(f"local-dir:{folder}", pretrained=True)
    seconds = time.perf_counter() - start
    assert sum(p.numel() for p in model.parameters())  # alive until the peak is read
    return seconds, peak_mib() - before


def fresh(run: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Call a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, args, named)


def report(names: list[str]) -> None:
    """Measure all models and print the table, then one line of JSON."""
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            random_s = fresh(write, name, folder)
            size = (Path(folder) / "model.safetensors").stat().st_size / 2**20
            load_s, peak = fresh(load, folder)
        values = (name, size, load_s, peak, peak / size, random_s)
        digits = (None, 1, 2, 1, 3, 2)
        rows.append(
            {k: v if d is None else round(v, d) for k, v, d in zip(COLUMNS, values, digits)}
        )
    lines = [list(COLUMNS)] + [[str(row[key]) for key in COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    print("\n".join("  ".join(t.rjust(w) for t, w in zip(ln, widths)) for ln in lines))
    print(json.dumps({"command": " ".join(sys.argv), "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="model names or patterns")
    report(posezoo.list_models(parser.parse_args().names))
