"""Fetch weights beforehand: into the cache, or into a folder that serves as a mirror."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PoseZooError
from ..zoo.catalog import get_pretrained_cfg, matching
from . import mirror
from .cache import CacheDir
from .locate import find_weights
from .web import Web

__all__ = ["FetchReport", "fetch_all"]


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """`detail` is the file, or why there is none."""

    name: str
    is_fine: bool
    detail: str


def fetch_all(
    patterns: list[str],
    folder: Path | None = None,
    *,
    cache_dir: CacheDir = None,
    web: Web | None = None,
) -> Iterator[FetchReport]:
    """Fetch, verify and convert every matching `architecture.tag`, one report each.

    Args:
        patterns: names or shell patterns; a name without a tag means all its weights.
        folder: the mirror to add them to; None only fills the cache.
        cache_dir: as in `create_model`.
        web: how to ask web servers; None is the usual way.

    Raises:
        UnknownModelError: a pattern that matches nothing.
    """
    for name in matching(patterns):
        cfg = get_pretrained_cfg(name)
        try:
            found = find_weights(cfg, cache_dir, web=web)
            path = found.path if folder is None else mirror.add(folder, cfg, found)
            yield FetchReport(name=name, is_fine=True, detail=str(path))
        except (PoseZooError, OSError) as error:
            yield FetchReport(name=name, is_fine=False, detail=str(error))
