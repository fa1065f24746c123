"""What keeps a measured number from being compared with a published one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..datasets.descriptors import DATA_SETS
from ..weights.firstuse import known_hash
from ..zoo.config import PretrainedCfg

__all__ = ["NOT_PUBLISHED", "OTHER", "PARTIAL", "is_published_file", "labels_of"]

NOT_PUBLISHED = "not the published file"
PARTIAL = "partial, not comparable"
OTHER = "other data, not comparable"


def is_published_file(cfg: PretrainedCfg, origin: Mapping[str, str]) -> bool:
    """Whether weights are those of the published file, by its hash.

    Where none was published, the first file from the publisher's own address counts, which this
    machine remembers.

    Args:
        cfg: of the variant.
        origin: of the model, see `ZooModel.origin`.
    """
    pinned = cfg.source.sha256 or known_hash(cfg)
    return pinned is not None and origin.get("origin_sha256", "").startswith(pinned)


def labels_of(
    cfg: PretrainedCfg,
    origin: Mapping[str, str],
    counts: Mapping[str, int],
    settings: Mapping[str, Any],
    bad: int = 0,
) -> list[str]:
    """Return what a number must be labelled with; nothing where it is one of the published row.

    Args:
        cfg, origin: of the model.
        counts: of the data, see `EvaluationTask.counts`.
        settings: of the record.
        bad: images that could not be used.
    """
    labels = []
    if not cfg.tag:
        labels.append("weights of your own: there is no published row")
    elif not is_published_file(cfg, origin):
        file = origin.get("origin_file", "random, or set by hand")
        labels.append(f"{NOT_PUBLISHED} (weights: {file})")
    published = DATA_SETS[cfg.dataset].counts if cfg.dataset in DATA_SETS else {}
    differing = [
        f"{counts[name]} {name} (published: {count})"
        for name, count in published.items()
        if counts.get(name, count) != count
    ]
    if settings["limit"] is not None:
        labels.append(f"{PARTIAL}: the first {settings['limit']} images only")
    elif settings.get("images_subset"):
        labels.append(f"{PARTIAL}: " + ", ".join(["the images that were there", *differing]))
    elif differing:
        labels.append(f"{OTHER}: {', '.join(differing)}")
    if bad:
        labels.append(f"{PARTIAL}: images that could not be used and count as empty: {bad}")
    return labels
