"""Train several networks on rendered people side by side, for so many minutes.

    python benchmarks/train_bodies.py --minutes 5 --device cuda --workers 16 --out results \\
        --run hrnet_s_192x144=11:2:hrnet_s_192x144.bodies --run tmpose_s_192x144=12:1 \\
        --run hrnet_s_wholebody_256x192=13:3 --set batch_size=128 --set lr=2e-3

A run is NAME=SEED:SHARE or NAME=SEED:SHARE:INIT, where SHARE is its part of the workers that render
and INIT a name with weights or a file to start from. Each is a `posezoo train` with `--minutes`, so
the learning rate falls to its end when the time ends, whatever the speed. --set changes the recipes
of all runs; `--set NAME:lr=1e-3` that of one.

They work in --runs, where the same command goes on for another time (the rate anew) from the
last.pt that is there. Nothing is evaluated, so few validation pictures are made; --prepare makes
them and ends. Into --out go, for each run, NAME.SEED.safetensors (the averaged weights in half
precision, also while it trains and after SIGTERM), NAME.SEED.jsonl (the log) and NAME.SEED.txt. A
run that fails does not stop the others. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import posezoo
from posezoo.files import replacing
from posezoo.synthetic.bodies import write_people
from posezoo.training.checkpoint import CHECKPOINT

EPOCHS, WARMUP = 1000, 40  # not reached: the time decides; so many of them the rate rises
PICTURES = 16  # of the validation set
TOLD_EVERY, WRITTEN_EVERY, LEAD, GRACE = 15, 30, 20, 45  # s: to write; before runs are killed


@dataclass
class Run:
    """One training; `written` is the time stamp of the last.pt that weights were taken from."""

    recipe: str
    seed: str
    share: float
    init: str | None
    process: subprocess.Popen[bytes] | None = None
    written: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.recipe}.{self.seed}"

    def last(self, folder: Path) -> dict[str, Any]:
        """Return the last line of its log."""
        try:
            return dict(json.loads((folder / "log.jsonl").read_text().splitlines()[-1]))
        except (OSError, IndexError, ValueError):
            return {}


def parse_run(text: str) -> Run:
    found = re.fullmatch(r"(\w+)=(\d+):(\d+(?:\.\d+)?)(?::(.+))?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"run is {text!r}; give NAME=SEED:SHARE[:INIT]")
    return Run(found[1], found[2], float(found[3]), found[4])


def command(run: Run, args: argparse.Namespace, minutes: float, workers: int) -> list[str]:
    settings = {"epochs": str(EPOCHS), "warmup_steps": "0", "warmup_epochs": str(WARMUP),
                "eval_every": str(EPOCHS)}  # fmt: skip
    for text in args.set:
        key, _, value = text.partition("=")
        name, _, own = key.rpartition(":")
        if name in ("", run.recipe, run.name):
            settings[own] = value
    return [
        sys.executable, "-m", "posezoo", "train", run.recipe, "--data", f"render:{run.seed}",
        "--out", str(args.runs / run.name), "--device", args.device, "--workers", str(workers),
        "--minutes", f"{minutes:.3f}", *(["--init", run.init] if run.init else []),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]  # fmt: skip


def write_weights(run: Run, args: argparse.Namespace) -> bool:
    """Turn a new last.pt into half-precision weights beside the log; tell whether there are any."""
    folder, target = args.runs / run.name, args.out / f"{run.name}.safetensors"
    try:
        stamp = (folder / CHECKPOINT).stat().st_mtime
        if stamp != run.written:
            state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
            halved = {
                key: (value.half() if value.is_floating_point() else value).contiguous()
                for key, value in state["average"].items()
            }
            with replacing(target) as temporary:
                save_file(halved, temporary)
            run.written = stamp
        shutil.copyfile(folder / "log.jsonl", args.out / f"{run.name}.jsonl")
    except Exception as error:  # of one run; the others go on
        print(f"{run.name}: no new weights ({error})", flush=True)
    return target.is_file()


def prepare(run: Run, folder: Path) -> None:
    if not any((folder / "rendered" / "annotations").glob("*.json")):
        skeleton = posezoo.get_pretrained_cfg(run.recipe).skeleton
        write_people(folder / "rendered", PICTURES, int(run.seed) + 1_000_003, skeleton=skeleton)


def start(args: argparse.Namespace, end: float) -> None:
    """Start all runs, which end a little before the time is over."""
    total = sum(run.share for run in args.run)
    for run in args.run:
        workers = max(1, round(args.workers * run.share / total))
        minutes = max(0.05, (end - LEAD - time.monotonic()) / 60)
        words = command(run, args, minutes, workers)
        with open(args.out / f"{run.name}.txt", "ab") as said:
            run.process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        print(f"{run.name}: {workers} workers: {' '.join(words[2:])}", flush=True)


def alive(args: argparse.Namespace) -> list[subprocess.Popen[bytes]]:
    return [run.process for run in args.run if run.process and run.process.poll() is None]


def tell(args: argparse.Namespace, end: float) -> None:
    parts = []
    for run in args.run:
        row, code = run.last(args.runs / run.name), run.process and run.process.poll()
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
        parts.append(f"{run.name}: {numbers}" + ("" if code is None else f" ended with {code}"))
    print(f"[{end - time.monotonic():4.0f} s left] " + "; ".join(parts), flush=True)


def wait(args: argparse.Namespace, end: float) -> None:
    """Wait for the runs, tell, write; ask those that go on too long to stop, then end them."""
    told = written = time.monotonic()
    is_asked = False
    while alive(args):
        time.sleep(0.2)
        now = time.monotonic()
        if now - told >= TOLD_EVERY:
            told = now
            tell(args, end)
        if now - written >= WRITTEN_EVERY and now < end - LEAD:
            written = now
            for run in args.run:
                write_weights(run, args)
        for process in alive(args) if now >= end else ():
            if now > end + GRACE:
                process.kill()
            elif not is_asked:
                process.terminate()
        is_asked = now >= end


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True, help="of all, from start to end")
    parser.add_argument("--run", type=parse_run, action="append", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="[NAME:]KEY=VALUE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of all together")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/bodies"), help="where they work")
    parser.add_argument("--prepare", action="store_true", help="only make validation pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    for run in args.run:
        prepare(run, args.runs / run.name)
    if args.prepare:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # of the runs and their workers
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start(args, end)
    try:
        wait(args, end)
    except KeyboardInterrupt:  # the weights so far are written all the same
        wait(args, time.monotonic())
    found = {run.name: write_weights(run, args) for run in args.run}
    rows = {r.name: {"weights": found[r.name], **r.last(args.runs / r.name)} for r in args.run}
    print(json.dumps(rows))
    sys.exit(not any(found.values()))


if __name__ == "__main__":
    main()
