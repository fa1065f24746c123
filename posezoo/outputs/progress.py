"""How far a run has come, in a file, so that it can go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json, write_text, writing
from ..runs.folder import check_same_run
from ..streaming.stream import Position

__all__ = ["Counts", "Progress", "finished_counts"]


@dataclass(kw_only=True)
class Counts:
    """What a run has done: photos and frames, those that failed, and people found."""

    frames: int = 0
    failed: int = 0
    people: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            frames=self.frames + other.frames,
            failed=self.failed + other.failed,
            people=self.people + other.people,
        )


@dataclass(kw_only=True)
class Progress:
    """The state of a run at a checkpoint.

    Attributes:
        path: the file; None keeps nothing.
        identity: what a run that goes on must have in common with the one before, as JSON types.
        position: where it goes on, in the list of its own units.
        sinks: states of everything that it writes.
        counts: what it has done.
        done: whether it has nothing left to do.
    """

    path: Path | None
    identity: Mapping[str, Any]
    position: Position = field(default_factory=Position)
    sinks: list[Any] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    done: bool = False

    def save(self) -> None:
        """Write the file.

        Raises:
            DataError: it cannot be written.
        """
        content = {
            "identity": self.identity,
            "position": dataclasses.asdict(self.position),
            "sinks": self.sinks,
            "counts": dataclasses.asdict(self.counts),
            "done": self.done,
        }
        if self.path is None:
            return
        with writing(self.path):
            write_text(self.path, json.dumps(content) + "\n")

    def load(self, *, resume: bool) -> bool:
        """Take over what the file says; return whether there is one.

        Raises:
            DataError: the file is of a run with other inputs or options, or `resume` is false.
        """
        found = None if self.path is None else _read(self.path)
        if found is None:
            return False
        assert self.path is not None
        if not resume:
            raise DataError(
                f"{self.path} is from an unfinished run; give --resume to finish it, or delete it"
            )
        check_same_run(found.identity, self.identity, self.path)
        self.position, self.sinks = found.position, found.sinks
        self.counts, self.done = found.counts, found.done
        return True

    def remove(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def finished_counts(path: Path) -> Counts | None:
    """Return the counts of a run that is done; None if it is not, or its file is damaged."""
    with suppress(DataError):
        found = _read(path)
        if found is not None and found.done:
            return found.counts
    return None


def _read(path: Path) -> Progress | None:
    """Return what a file says; None where there is none.

    Raises:
        DataError: it is damaged.
    """
    if not path.exists():
        return None
    try:
        content = load_json(path)
        return Progress(
            path=path, identity=dict(content["identity"]), sinks=content["sinks"],
            position=Position(**content["position"]), counts=Counts(**content["counts"]),
            done=content["done"],
        )  # fmt: skip
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged; delete it, and what it was for begins anew") from error
