"""Where the weights of a configuration are, in words; nothing is asked or opened here."""

from __future__ import annotations

import os

from ..zoo.config import PretrainedCfg

__all__ = ["by_hand", "describe", "hub_id"]


def hub_id(cfg: PretrainedCfg) -> str:
    """Return the Hub repository of a variant: its own, or `<namespace>/<architecture>.<tag>`."""
    namespace = os.environ.get("POSEZOO_HUB_NAMESPACE", "posezoo")
    return cfg.source.hf_hub_id or f"{namespace}/{cfg.name}"


def describe(cfg: PretrainedCfg) -> str:
    """Say where `pretrained=True` looks first, or why there is nothing to look for."""
    source = cfg.source
    if source.unavailable is not None:
        return source.unavailable
    return f"in the package: {source.packaged}" if source.packaged else f"hf-hub:{hub_id(cfg)}"


def by_hand(cfg: PretrainedCfg) -> str:
    """Say how to get the authors' file with a browser; empty where no address is known."""
    source = cfg.source
    page = source.original_page or next(iter(source.original_urls), None)
    if page is None:
        return ""
    return (
        f"By hand: take {source.original_filename or 'the file'} from {page} and run "
        f"`posezoo convert {source.original_filename or 'FILE'} --model {cfg.name}`"
    )
