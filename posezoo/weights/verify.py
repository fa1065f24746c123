"""What `posezoo verify` does: hash every cached weights file again, without the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..zoo import catalog as _registry
from . import convert as _convert
from . import files as _checkpoints
from . import hub as _hub

__all__ = ["VerifyReport", "verify_cached"]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """`state` is "fine", "damaged" or "absent"; `detail` the file, or what is wrong with it."""

    name: str
    state: str
    detail: str


def verify_cached(
    patterns: list[str], cache_dir: str | Path | None = None
) -> Iterator[VerifyReport]:
    """Check what is cached of every matching `architecture.tag`; nothing is fetched.

    Absent weights are reported only where the pattern names a single variant.
    """
    names = _registry.list_models(patterns, tags=True)
    for name in names:
        found = False
        for path, expected in _cached(name, cache_dir):
            found = True
            actual = _checkpoints.sha256_of(path)
            fine = actual == expected
            detail = (
                str(path) if fine else f"{path} has sha256 {actual[:16]}…, not {expected[:16]}…"
            )
            yield VerifyReport(name=name, state="fine" if fine else "damaged", detail=detail)
        if not found and len(names) == 1:
            yield VerifyReport(name=name, state="absent", detail="nothing in the cache")


def _cached(name: str, cache_dir: str | Path | None) -> Iterator[tuple[Path, str]]:
    """Yield cached weights files of a variant with the sha256 that they should have."""
    cfg = _registry.get_pretrained_cfg(name)
    folder = _hub.converted_dir(cfg, cache_dir)
    stated = folder / _convert.HASH_FILE
    if stated.is_file() and (folder / _hub.WEIGHTS_FILE).is_file():
        yield folder / _hub.WEIGHTS_FILE, stated.read_text().strip()
    blob = _hub.cached_blob(cfg, cache_dir)
    if blob is not None:
        yield blob, cfg.source.sha256 or blob.name
