"""Python in processes of their own, alone or under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def launch(count: int, *command: object) -> subprocess.Popen[str]:
    """Start `python COMMAND` in so many processes; output and errors come in one stream."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, *(launcher if count > 1 else []), *map(str, command)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=TESTS,
    )  # fmt: skip


def run(count: int, *command: object) -> None:
    """Start it and wait for its good end."""
    process = launch(count, *command)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-2000:]
