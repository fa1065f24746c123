"""Which part of some work a process does."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InputError
from .launcher import launched

__all__ = ["Share", "launched_share"]


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


def launched_share(given: Share | None) -> Share | None:
    """Return the share of this process of torchrun, None where there is none.

    Raises:
        InputError: a share is given as well.
    """
    told = launched()
    if told is not None and given is not None:
        raise InputError("a share under torchrun, which hands out the shares itself; give one")
    return None if told is None else Share(index=told[0], count=told[1])
