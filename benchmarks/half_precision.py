"""How far bfloat16 moves keypoints, for architectures without weights in the package.

    python benchmarks/half_precision.py --device cuda --jobs 8 --out half.json
    python benchmarks/half_precision.py "tokenpose_t*" uniformer_small

Maxima of random heatmaps jump with the last bit, so a network first learns rendered people by
heart: eight, each in two crops, with the objective of its recipe, from random weights (by_heart.py
says how). That ends when 95 % of the keypoints are within two input pixels, or at a limit of steps
or time, as the table says. Then float32 and `posezoo.optimize(model, dtype="bfloat16")` decode
these crops and copies that were not learnt, moved and with noise; without flip test. The table has
median, 95th percentile and largest move of all keypoints, and the largest of those that float32
finds within five pixels of the truth: the others may have two maxima of the same height.

Classifiers learn a class per person. PCT reads the tokens of the tokenizer in the package, and
guided tokenizers start from it as far as it fits; the backbones of both stay random, as their
recipes train none.

--steps 0 learns nothing and tells how much of their spread heatmaps, joints and logits change.

Architectures run side by side in `--jobs` processes; those that train more than 300 M parameters
one after the other. What fails or takes too long leaves a row that says so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from by_heart import Row, measure
from gpu_checks import exact_float32

import posezoo
from posezoo.training import RECIPES

BIG = 300e6  # parameters
COLUMNS = (
    "model", "steps", "float32 from the truth, 95 % (learnt, copies)",
    "bfloat16 from float32, learnt", "copies", "tokens or classes changed",
)  # fmt: skip


def serve(pipe: Any, args: argparse.Namespace) -> None:
    """Measure the models whose names come through the pipe; runs in a process of its own."""
    exact_float32()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    torch.zeros(1, device=device)
    pipe.send("ready")
    for name in iter(pipe.recv, None):
        try:
            row = measure(name, device, args.steps, args.seconds)
        except Exception as error:
            text = (str(error).strip().splitlines() or [""])[0][:200]
            row = {"model": name, "failed": f"{type(error).__name__}: {text}"}
        if device.type == "cuda":
            row["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.empty_cache()
        pipe.send(row)


def work(names: Iterable[str], args: argparse.Namespace, keep: Callable[[Row], None]) -> None:
    """Go through names in a process, and in a new one after a crash or too long a time."""
    context = multiprocessing.get_context("spawn")
    process: Any = None
    for name in names:
        is_new = process is None
        if is_new:
            pipe, other = context.Pipe()
            process = context.Process(target=serve, args=(other, args), daemon=True)
            process.start()
            other.close()
        row: Row = {"model": name, "failed": "no time left"}
        try:
            if is_new and not (pipe.poll(120) and pipe.recv()):
                raise EOFError
            pipe.send(name)
            if pipe.poll(args.seconds):
                row = pipe.recv()
        except (EOFError, OSError):
            row["failed"] = "its process ended"
        if "seconds" not in row:
            process.kill()
            process = None
        keep(row)
    if process is not None:
        pipe.send(None)
        process.join()


def chosen(patterns: list[str]) -> list[str]:
    """Return the architectures that match, by default those without weights in the package."""
    names = posezoo.list_models(patterns or "*")
    packaged = {
        name.partition(".")[0]
        for name in posezoo.list_models(tags=True)
        if posezoo.get_pretrained_cfg(name).source.packaged
    }
    return names if patterns else [name for name in names if name not in packaged]


def cells(row: Row) -> list[str]:
    """Return a row of the table; lengths in input pixels."""
    if "failed" in row:
        return [f"`{row['model']}`", row["failed"], "", "", "", ""]
    if "largest" in row:
        return [f"`{row['model']}`", f"{row['largest']:.2g}", f"{row['mean']:.2g}"]
    both = [row["learnt"], row["copies"]]
    shift = [
        f"{part['of spread']} of the logits' spread"
        if "of spread" in part
        else " / ".join(map(str, part["moves"]))
        for part in both
    ]
    changed = ", ".join(f"{100 * part['changed']:.1f} %" for part in both if "changed" in part)
    far = ", ".join(str(part["far"]) for part in both)
    steps = f"{row['steps']}, {row['end']}"
    return [f"`{row['model']}`", steps, far, *shift, changed or "-"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="architectures or patterns")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--jobs", type=int, default=1, help="architectures at a time (default 1)")
    parser.add_argument("--steps", type=int, default=300, help="most (default 300); 0: see above")
    parser.add_argument("--seconds", type=float, default=60, help="most for one (default 60)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each (default 1)")
    parser.add_argument("--out", type=Path, help="write the JSON here after each")
    args = parser.parse_args()
    params = {n: posezoo.get_pretrained_cfg(n).params or 0 for n in chosen(args.names)}
    names = sorted(params, key=lambda name: -params[name] if args.jobs > 1 else params[name])
    if not names:
        parser.error(f"no architecture matches {args.names}")
    record: dict[str, Any] = {"command": " ".join(sys.argv), "torch": torch.__version__}
    record |= {"machine": platform.machine(), "rows": []}
    if args.device.startswith("cuda"):
        record["machine"] = torch.cuda.get_device_name()
    lock = threading.Lock()

    def keep(row: Row) -> None:
        with lock:
            record["rows"].append(row)
            print(json.dumps(row), flush=True)
            if args.out:
                args.out.write_text(json.dumps(record, indent=2) + "\n")

    big = [n for n in names if params[n] > BIG and RECIPES[n].objective == "heatmap"]
    rest = iter([name for name in names if name not in big])  # shared by all
    queues = [itertools.chain(big, rest), *[rest] * (args.jobs - 1)]
    threads = [threading.Thread(target=work, args=(queue, args, keep)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = sorted(record["rows"], key=lambda row: list(params).index(row["model"]))
    columns = COLUMNS if args.steps else ("model", "largest, of spread", "mean, of spread")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    print("\n".join("| " + " | ".join(cells(row)) + " |" for row in rows))
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
