"""Pins: which commit of which Hub repository holds our converted weights, and their hash.

`pins.json` comes with the package and is written by `posezoo publish`. What it names is content,
so nobody who takes over the repository or the host can change it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["PINS_FILE", "Pin", "as_text", "packaged_pins", "read_pins"]

PINS_FILE = Path(__file__).with_name("pins.json")
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """`model.safetensors` of one set of weights: its commit, its sha256 and its size in bytes."""

    repository: str
    revision: str
    sha256: str
    size: int


@cache
def packaged_pins() -> Mapping[str, Pin]:
    """Return the pins that the package ships, by `architecture.tag`."""
    return read_pins(PINS_FILE)


def read_pins(path: Path) -> dict[str, Pin]:
    """Read a file of pins; one that does not exist holds none.

    Raises:
        DataError: it is no such file.
    """
    if not path.is_file():
        return {}
    try:
        return {name: _pin(fields) for name, fields in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a file of pins: {error}") from error


def _pin(fields: Any) -> Pin:
    pin = Pin(**fields)
    if not (_COMMIT.fullmatch(pin.revision) and _SHA256.fullmatch(pin.sha256)):
        raise ValueError(f"{pin.repository!r} needs a commit of 40 and a sha256 of 64 hex digits")
    return pin


def as_text(pins: Mapping[str, Pin]) -> str:
    """Return what the file holds: sorted by name, so that a commit shows what changed."""
    plain = {name: dataclasses.asdict(pins[name]) for name in sorted(pins)}
    return json.dumps(plain, indent=2) + "\n"
