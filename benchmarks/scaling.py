"""Throughput against threads and batch size, drawn.

    python benchmarks/scaling.py uniformer_s_256x192 tmpose_b_256x192 --plot scaling.png

Runs speed.py on `posezoo.optimize`d models, once per number of threads in a process of its own, on
an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SPEED = Path(__file__).with_name("speed.py")


def rows_of(args: argparse.Namespace, threads: int, dtype: str) -> list[dict[str, Any]]:
    """Return the rows of speed.py for all models and batches."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        subprocess.run(
            [sys.executable, SPEED, *args.names, "--engines", "optimised", "--dtype", dtype,
             "--threads", str(threads), "--batch", *map(str, args.batch),
             "--rounds", str(args.rounds), "--warmup", "3", "--out", out],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    return [row | {"threads": threads} for row in rows]


def table(rows: list[dict[str, Any]]) -> str:
    batches = sorted({row["batch"] for row in rows})
    lines = ["| model | dtype | threads | " + " | ".join(f"batch {b}" for b in batches) + " |"]
    lines.append("|---|---|---|" + "---|" * len(batches))
    speeds = {(r["model"], r["dtype"], r["threads"], r["batch"]): r["images_per_s"] for r in rows}
    for key in dict.fromkeys(key[:3] for key in speeds):
        cells = [f"{speeds[(*key, batch)]:.1f}" for batch in batches]
        lines.append(f"| `{key[0]}` | {key[1]} | {key[2]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw images per second over the batch, a panel per model, a line per threads and dtype."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["model"] for row in rows))
    figure, panels = pyplot.subplots(
        1, len(names), figsize=(3.2 * len(names), 3), layout="constrained", squeeze=False
    )
    for name, axes in zip(names, panels[0]):
        mine = [row for row in rows if row["model"] == name]
        for dtype, threads in dict.fromkeys((row["dtype"], row["threads"]) for row in mine):
            line = [r for r in mine if (r["dtype"], r["threads"]) == (dtype, threads)]
            axes.plot(
                [r["batch"] for r in line], [r["images_per_s"] for r in line], marker="o",
                color={"float32": "C0", "bfloat16": "C1"}[dtype],
                linestyle="-" if threads > 1 else "--",
                label=f"{dtype}, {threads} thread{'s' * (threads > 1)}",
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({r["batch"] for r in mine}))
        axes.get_xaxis().set_major_formatter("{x:.0f}")
        axes.set_ylim(0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("images per forward")
    panels[0, 0].set_ylabel("images per second")
    panels[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", help="model names")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    rows = [
        row for dtype in args.dtype for threads in args.threads
        for row in rows_of(args, threads, dtype)
    ]  # fmt: skip
    print(table(rows))
    if args.plot:
        plot(rows, args.plot)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
