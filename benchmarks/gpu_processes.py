"""The processes of gpu.py: side by side what is prepared, one by one what is measured."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, Semaphore, Timer
from typing import Any

from gpu_checks import Row
from gpu_steps import items_of

HERE = Path(__file__).parent

SECONDS = {  # most time of a step
    "machine": 60, "forward": 120, "detectors": 60, "harness": 120,
}  # fmt: skip
SIDE_BY_SIDE = ("training", "compiled", "tests", "parity")
COMPILING = {"TORCHINDUCTOR_COMPILE_THREADS": "6"}  # of each process; by default one per core


class Turns:
    """Items are prepared side by side, and measured one by one when no more are being prepared.

    Args:
        count: of the items.
        end: when preparing has to end.
    """

    def __init__(self, count: int, end: float) -> None:
        self.preparing, self.started, self.end = count, 0, end
        self.cores = Semaphore(os.cpu_count() or 4)
        self.counter, self.machine, self.all_ready = Lock(), Lock(), Event()

    def start(self) -> int:
        """Wait for a core; return the niceness of who starts: the first need the most time."""
        self.cores.acquire()
        with self.counter:
            self.started += 1
            return min(19, self.started - 1)

    def prepared(self) -> None:
        """Say that an item is prepared, or failed."""
        self.cores.release()
        with self.counter:
            self.preparing -= 1
            if not self.preparing:
                self.all_ready.set()

    def take(self) -> Callable[[], None]:
        """Wait until the machine is ours; return what gives it back."""
        self.all_ready.wait(max(0.0, self.end - time.monotonic()))
        self.machine.acquire()
        return self.machine.release


def start(
    args: argparse.Namespace, step: str, items: list[str], seconds: float, nice: int = 0
) -> Any:
    """Start a process for items of a step."""
    command = [sys.executable, str(HERE / "gpu.py"), "--step", step, "--device", args.device]
    command += ["--quick"] * args.quick + ["--items", *items]
    return subprocess.Popen(
        ["nice", "-n", str(nice), "timeout", str(max(1, round(seconds))), *command],
        text=True, cwd=HERE.parent,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**COMPILING, **os.environ, "PYTHONPATH": str(HERE.parent)},
    )  # fmt: skip


def why(process: Any) -> str:
    """Say why a process ended."""
    error = process.stderr.read().strip().splitlines()[-1:]
    late = process.returncode in (124, 128 + signal.SIGTERM, -signal.SIGTERM)
    return f"status {process.returncode}: {'no time left' if late else ''.join(error)[:200]}"


def run_step(
    args: argparse.Namespace, step: str, items: list[str], seconds: float,
    keep: Callable[[str, Row], None],
) -> None:  # fmt: skip
    """Run items of a step in processes of its own until it is through, or its time is."""
    end = time.monotonic() + seconds
    while items and time.monotonic() < end:
        process = start(args, step, items, end - time.monotonic())
        for line in process.stdout:
            if line.startswith("ROW "):
                keep(step, json.loads(line[4:]))
            elif line.startswith("DONE ") and items:
                items.pop(0)
        if process.wait() and items:  # the item that it was at goes, the others get their turn
            keep(step, {"item": items.pop(0), "failed": why(process)})
    for item in items:
        keep(step, {"item": item, "failed": "no time left"})


def run_beside(
    args: argparse.Namespace, step: str, item: str, end: float, turns: Turns,
    keep: Callable[[str, Row], None],
) -> None:  # fmt: skip
    """Run one item of what is prepared beside others, and then measured alone."""
    nice = turns.start()
    process = start(args, step, [item], end - time.monotonic(), nice)
    late = Timer(max(0.0, turns.end - time.monotonic()), process.terminate)
    late.start()
    leave = turns.prepared
    try:
        for line in process.stdout:
            if line.startswith("ROW "):
                keep(step, json.loads(line[4:]))
            elif line.startswith("READY"):
                late.cancel()
                turns.prepared()
                leave = turns.take()
                process.stdin.write("go\n")
                process.stdin.flush()
            elif line.startswith("DONE "):
                leave()  # not when the process has ended, which takes another second
                leave = int
        if process.wait():
            keep(step, {"item": item, "failed": why(process)})
    except OSError as error:  # it ended while it waited
        keep(step, {"item": item, "failed": str(error)})
    finally:
        late.cancel()
        leave()


def run_steps(args: argparse.Namespace, end: float, keep: Callable[[str, Row], None]) -> None:
    """Run what is prepared side by side, then the other steps, until the time is `end`."""
    chosen = {step: items_of(step, args.quick, args.items) for step in args.steps}
    together = [(step, item) for step in SIDE_BY_SIDE for item in chosen.pop(step, ())]
    turns = Turns(len(together), time.monotonic() + min(240.0, 40 * args.minutes))
    with ThreadPoolExecutor(max(1, len(together))) as pool:
        for step, item in together:
            pool.submit(run_beside, args, step, item, end, turns, keep)
    for step, items in chosen.items():
        left = min(SECONDS[step], end - time.monotonic())
        run_step(args, step, items, left, keep)
