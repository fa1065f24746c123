"""A weights file that was found: `Located`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Located"]


@dataclass(frozen=True, kw_only=True)
class Located:
    """A file, and the full sha256 that the bytes loaded from it must have."""

    path: Path
    sha256: str
