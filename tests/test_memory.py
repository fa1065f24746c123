"""Memory that forwards free is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_COUNT = """
import resource, torch
from posezoo.memory import keep_freed_memory
print(keep_freed_memory())
for i in range(20):
    if i == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(1 << 22) for _ in range(6)]  # 16 MiB each
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _count(**more: str) -> list[str]:
    own = ("MALLOC_", "GLIBC_TUNABLES")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment = variables | {"OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, "-c", _COUNT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_blocks_are_kept_unless_the_environment_says_otherwise() -> None:
    kept, faults = _count()
    assert kept == "True" and int(faults) < 1000  # else 200,000, a page each
    assert _count(MALLOC_ARENA_MAX="4")[0] == "False"
