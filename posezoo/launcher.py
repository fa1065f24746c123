"""Whether this process is one of several that torchrun started."""

from __future__ import annotations

import os

from .errors import InputError

__all__ = ["launched"]


def launched() -> tuple[int, int] | None:
    """Return the rank of this process and how many there are; None if it is alone.

    Raises:
        InputError: the environment has only a part of what torchrun sets, left by something else.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if world in (None, "1") or rank is None:
        return None
    told = f"RANK={rank} and WORLD_SIZE={world} are in the environment"
    ways = "unset both, or start with torchrun --nproc-per-node N -m posezoo …"
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        raise InputError(f"{told}, but torchrun did not start this process; {ways}")
    try:
        numbers = int(rank), int(world)
    except ValueError as error:
        raise InputError(f"{told}, which are no numbers; {ways}") from error
    return numbers
