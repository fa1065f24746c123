"""Everything about one GPU, for a strange machine and ten minutes.

    python benchmarks/gpu.py --out gpu/                 results.json and report.md
    python benchmarks/gpu.py --device cpu --quick       the same steps, tiny, to try the script

First, side by side, what is not timed: models are compiled and batches for training made; small
models on CUDA against the CPU in float64 and the rest of the CUDA tests (where pytest is
installed); one variant per family against the stored outputs of the published implementation, and
what bfloat16 changes. When all that is done, or its time is over, one by one: forwards eager,
optimised and compiled, and steps of training, of what is ready; the machine and its limits (an
8192^3 product per precision, a large copy); eager and optimised forwards; detectors; an evaluation
run on made photos.

Each step runs in a process of its own, started again behind an item that killed it (side by side:
a process per item); after each row both files are written, so that whatever happens leaves what was
measured. It needs what posezoo itself needs, and scipy. The Markdown is for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from threading import Lock

from gpu_checks import Row
from gpu_processes import run_steps
from gpu_steps import STEPS


def child(args: argparse.Namespace) -> None:
    """Go through the items of a step; print each row, and an error in the place of one."""
    for name in args.items:
        try:
            for row in STEPS[args.step](args, [name]):
                if row is None:
                    print("READY", flush=True)
                    sys.stdin.readline()
                else:
                    print("ROW " + json.dumps(row), flush=True)
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0][:200]
            row = {"item": name, "failed": f"{type(error).__name__}: {text}"}
            print("ROW " + json.dumps(row), flush=True)
        print(f"DONE {name}", flush=True)


def report(results: dict[str, list[Row]], command: str) -> str:
    """Return the Markdown of all steps."""
    lines = ["## One GPU", "", f"`{command}`", ""]
    for step, rows in results.items():
        about = (STEPS[step].__doc__ or "").strip().splitlines()[0]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"### {step}", "", about, "", "| " + " | ".join(columns) + " |"]
        lines.append("|" + "---|" * len(columns))
        for row in rows:
            cells = [row.get(column, "") for column in columns]
            texts = [f"{c:.2g}" if isinstance(c, float) and abs(c) < 0.1 else str(c) for c in cells]
            lines.append("| " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder (default gpu)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything (default 9.5)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--items", nargs="+", help="only these models, or items as printed")
    args = parser.parse_args()
    if args.step:
        child(args)
        return 0
    results: dict[str, list[Row]] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    end = begin + 60 * args.minutes

    lock = Lock()

    def keep(step: str, row: Row) -> None:
        with lock:
            results.setdefault(step, []).append(row)
            record = {"command": " ".join(sys.argv), "results": results}
            (args.out / "results.json").write_text(json.dumps(record, indent=2) + "\n")
            (args.out / "report.md").write_text(report(results, record["command"]) + "\n")
            print(f"{time.monotonic() - begin:5.0f} s", step, json.dumps(row), flush=True)

    run_steps(args, end, keep)
    print(report(results, " ".join(sys.argv)))
    rows = [row for rows in results.values() for row in rows]
    return 1 if any("failed" in row or row.get("passed") is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
