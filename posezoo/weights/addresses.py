"""Where the weights of a configuration are, in words; nothing is asked or opened here."""

from __future__ import annotations

from ..zoo.config import PretrainedCfg
from .pins import packaged_pins
from .trust import by_hand_reason, is_pinned, objection

__all__ = ["by_hand", "describe", "kinds", "listing", "summary"]

_KINDS = {
    "hub": "Hub", "hub_dataset": "Hub", "https": "web", "drive": "Google Drive", "folder": "folder",
}  # fmt: skip


def kinds(cfg: PretrainedCfg) -> list[str]:
    """List the kinds of address that `pretrained=True` uses, in their order."""
    if cfg.source.packaged:
        return ["package"]
    pinned = ["hub"] if cfg.name in packaged_pins() else []
    usable = [a.kind for a in cfg.source.addresses if objection(a, cfg.source) is None]
    return list(dict.fromkeys([*pinned, *usable]))


def summary(cfg: PretrainedCfg) -> str:
    """Say in a word or two where the weights are."""
    if cfg.source.packaged:
        return "in the package"
    if found := kinds(cfg):
        return ", ".join(dict.fromkeys(_KINDS[kind] for kind in found))
    reason = by_hand_reason(cfg)
    return f"by hand: {reason}" if reason else f"none: {cfg.source.unavailable}"


def describe(cfg: PretrainedCfg) -> str:
    """Say how the weights are fetched and checked, or why there are none."""
    source = cfg.source
    if source.unavailable is not None:
        return source.unavailable
    if source.packaged:
        return f"in the package: {source.packaged}, sha256 pinned"
    if reason := by_hand_reason(cfg):
        return f"by hand: {reason}"
    if is_pinned(cfg):
        return "fetched, sha256 pinned"
    known = "only 8 digits" if source.original_sha256 else "nothing"
    return f"fetched; {known} of the sha256 is published: the first file used is remembered"


def listing(cfg: PretrainedCfg) -> list[str]:
    """List every address with its publisher, or why it is not asked."""
    pin = packaged_pins().get(cfg.name)
    lines = [f"hf:{pin.repository}@{pin.revision[:8]} (converted, pinned)"] if pin else []
    for address in cfg.source.addresses:
        note = objection(address, cfg.source) or f"published by {address.publisher}"
        if address.publisher is None and objection(address, cfg.source) is None:
            note = "a copy, used because its sha256 is pinned"
        lines.append(f"{address} ({note})")
    if cfg.source.original_page:
        lines.append(f"{cfg.source.original_page} (with a browser)")
    return lines


def by_hand(cfg: PretrainedCfg) -> str:
    """Say how to get the authors' file with a browser; empty where no address is known."""
    source = cfg.source
    page = source.original_page or next((a.link for a in source.addresses), None)
    if page is None:
        return ""
    file = source.original_filename or "FILE"
    out = "" if source.original_sha256 else f" --out {cfg.name}"
    after = "" if source.original_sha256 else f", then use local-dir:{cfg.name}"
    return (
        f"By hand: take {'the file' if file == 'FILE' else file} from {page} and run "
        f"`posezoo convert {file} --model {cfg.name}{out}`{after}"
    )
