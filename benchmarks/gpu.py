"""Everything about one GPU, for a strange machine and ten minutes.

    python benchmarks/gpu.py --out gpu/                 results.json and report.md
    python benchmarks/gpu.py --device cpu --quick       the same steps, tiny, to try the script

First, side by side, what is not timed: small models on CUDA against the CPU in float64 and the rest
of the CUDA tests (where pytest is installed); one variant per family against the stored outputs of
the published implementation, and what bfloat16 changes; and compiled models, for the cache of
torch. Then, one by one: the machine and its limits (an 8192^3 product per precision, a large copy);
eager and optimised forwards; detectors; an evaluation run on made photos; steps of training; last,
as compiling takes minutes where the cache is not ready, compiled forwards.

Each step runs in a process of its own, started again behind an item that killed it (side by side:
a process per item); after each row both files are written, so that whatever happens leaves what was
measured. It needs what posezoo
itself needs, and scipy. The Markdown is for benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from gpu_checks import Row
from gpu_steps import STEPS, items_of

HERE = Path(__file__).parent

SECONDS = {  # most time of a step
    "tests": 200, "parity": 200, "prepare": 240, "machine": 60, "forward": 120, "compiled": 200,
    "detectors": 60, "harness": 120, "training": 120,
}  # fmt: skip
SIDE_BY_SIDE = ("tests", "parity", "prepare")


def child(args: argparse.Namespace) -> None:
    """Go through the items of a step; print each row, and an error in the place of one."""
    for name in args.items:
        try:
            for row in STEPS[args.step](args, [name]):
                print("ROW " + json.dumps(row), flush=True)
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0][:200]
            row = {"item": name, "failed": f"{type(error).__name__}: {text}"}
            print("ROW " + json.dumps(row), flush=True)
        print(f"DONE {name}", flush=True)


def run_step(
    args: argparse.Namespace, step: str, items: list[str], seconds: float,
    keep: Callable[[str, Row], None],
) -> None:  # fmt: skip
    """Run items of a step in processes of its own until it is through, or its time is."""
    end = time.monotonic() + seconds
    while items and time.monotonic() < end:
        command = [sys.executable, __file__, "--step", step, "--device", args.device]
        command += ["--quick"] * args.quick + ["--items", *items]
        left = max(1, round(end - time.monotonic()))
        process = subprocess.Popen(
            ["timeout", str(left), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=HERE.parent, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("ROW "):
                keep(step, json.loads(line[4:]))
            elif line.startswith("DONE ") and items:
                items.pop(0)
        error = process.stderr.read().strip().splitlines()[-1:]
        if process.wait() and items:  # the item that it was at goes, the others get their turn
            why = "no time left" if process.returncode == 124 else "".join(error)[:200]
            keep(step, {"item": items.pop(0), "failed": f"status {process.returncode}: {why}"})
    for item in items:
        keep(step, {"item": item, "failed": "no time left"})


def run_steps(args: argparse.Namespace, end: float, keep: Callable[[str, Row], None]) -> None:
    """Run what is not timed side by side, then the other steps, until the time is `end`."""
    together = [(s, i) for s in args.steps if s in SIDE_BY_SIDE for i in items_of(s, args.quick)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for step, item in together:
            left = min(SECONDS[step], end - time.monotonic())
            pool.submit(run_step, args, step, [item], left, keep)
    for step in args.steps:
        if step not in SIDE_BY_SIDE:
            left = min(SECONDS[step], end - time.monotonic())
            run_step(args, step, items_of(step, args.quick), left, keep)


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
    parser.add_argument("--items", nargs="+", help=argparse.SUPPRESS)
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
