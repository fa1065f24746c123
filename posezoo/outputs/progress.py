"""How far a run has come, in a file, so that it can go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import load_json, writing
from ..streaming.stream import Position
from ..weights.files import write_text

__all__ = ["Counts", "Progress"]


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


def _damaged(path: Path) -> DataError:
    """Return the error for a file that says nothing of a run's progress."""
    return DataError(f"{path} is damaged; delete it, and what it was for begins anew")


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
        if self.path is None or not self.path.exists():
            return False
        try:
            content = load_json(self.path)
            found = content["identity"]
            position, counts = Position(**content["position"]), Counts(**content["counts"])
            sinks, done = content["sinks"], content["done"]
        except (DataError, KeyError, TypeError) as error:
            raise _damaged(self.path) from error
        if not resume:
            raise DataError(
                f"{self.path} is from an unfinished run; give --resume to finish it, or delete it"
            )
        names = [
            key for key in {**self.identity, **found} if self.identity.get(key) != found.get(key)
        ]
        if names:
            raise DataError(
                f"{self.path} is from an unfinished run that differs in {', '.join(names)}; give "
                "the same options, another --out, or delete it"
            )
        self.position, self.sinks, self.counts, self.done = position, sinks, counts, done
        return True

    def remove(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
