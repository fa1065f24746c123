"""The trust rule: which address is asked, and which content is used. Nothing else decides it.

An address is used without asking only if

* its content is pinned: the full sha256 is in the table of weights (for a Hub repository also the
  commit), or in `pins.json`; or
* it is the named publisher's own, over TLS.

Eight digits of a hash are a check against damage, not a pin. The first file that passes is
remembered by its full sha256, which is printed; another one is refused later. The same holds
where the publisher states no hash. `POSEZOO_MIRROR` and `POSEZOO_HUB_NAMESPACE` are the user's
own word: what they name is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..zoo.address import Address
from ..zoo.config import PretrainedCfg, SourceCfg
from .pins import Pin, packaged_pins

__all__ = ["by_hand_reason", "is_automatic", "is_pinned", "namespace", "objection", "pinned_hash"]

_FULL = 64  # hex digits of a sha256


def namespace() -> str | None:
    """Return the Hub user or organisation that the user named for converted weights."""
    return os.environ.get("POSEZOO_HUB_NAMESPACE") or None


def pinned_hash(source: SourceCfg) -> str | None:
    """Return the full sha256 of the authors' file; None where at most its beginning is known."""
    known = source.original_sha256
    return known if known is not None and len(known) == _FULL else None


def objection(address: Address, source: SourceCfg, remembered: str | None = None) -> str | None:
    """Say why an address is not used without asking; None if it is.

    Args:
        address: of the authors' file.
        source: that the address belongs to.
        remembered: full sha256 of the first file that was used, if there was one.
    """
    has_hash = bool(pinned_hash(source) or remembered)
    if has_hash and not (address.is_hub and address.revision is None):
        return None
    if address.publisher is None:
        return "not asked: a copy that is not the publisher's, and no full sha256 is known"
    if not _is_private(address):
        return "not asked: no TLS, and no full sha256 is known"
    return None


def _is_private(address: Address) -> bool:
    """Whether nobody on the way can change what comes: TLS, or this machine itself."""
    url = urlsplit(address.where)
    return address.kind != "https" or url.scheme == "https" or url.hostname == "127.0.0.1"


def is_pinned(cfg: PretrainedCfg, pins: Mapping[str, Pin] | None = None) -> bool:
    """Whether the content of the weights is fixed by a full hash that the package ships."""
    pins = packaged_pins() if pins is None else pins
    return bool(cfg.name in pins or cfg.source.packaged or pinned_hash(cfg.source))


def is_automatic(cfg: PretrainedCfg, pins: Mapping[str, Pin] | None = None) -> bool:
    """Whether `pretrained=True` needs no hands: in the package, or at an address that is used."""
    pins = packaged_pins() if pins is None else pins
    source = cfg.source
    usable = any(objection(address, source) is None for address in source.addresses)
    return bool(cfg.name in pins or source.packaged or usable)


def by_hand_reason(cfg: PretrainedCfg) -> str | None:
    """Say why weights that exist are not fetched; None where they are, or where there are none."""
    if not cfg.has_weights or is_automatic(cfg):
        return None
    if not cfg.source.addresses:
        return "needs a browser"
    return "no publisher's address, no full sha256"
