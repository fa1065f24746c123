"""Which part of some work a process does, by itself or as one that torchrun started."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["Share", "launched", "launched_share"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of a run this process does: number `index`, from 0, of `count`.

    Raises:
        InputError: no such part.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"share {self.index}/{self.count}: there must be at least one share")
        if not 0 <= self.index < self.count:
            raise InputError(
                f"share {self.index}/{self.count}: the index runs from 0 to {self.count - 1}"
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that "I/N" means.

        Raises:
            InputError: it means none.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise InputError(f"--shard is {text!r}; valid: I/N, such as 0/4")
        return cls(index=int(index), count=int(count))


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


def launched_share(given: Share | None) -> Share | None:
    """Return the share of this process of torchrun, None where there is none.

    Raises:
        InputError: a share is given as well.
    """
    told = launched()
    if told is not None and given is not None:
        raise InputError("a share under torchrun, which hands out the shares itself; give one")
    return None if told is None else Share(index=told[0], count=told[1])
