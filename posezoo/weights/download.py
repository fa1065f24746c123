"""From an address to a file whose content was checked."""

from __future__ import annotations

import logging
import os
import shutil
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

from ..errors import IntegrityError, WeightsUnavailableError
from ..files import replacing
from ..zoo.address import Address
from . import hub
from .archives import extract
from .cache import CacheDir, hub_dir, is_inside
from .transfer import is_full, save
from .verify import check_hash
from .web import Web, page

__all__ = ["fetch"]

_log = logging.getLogger(__name__)


def fetch(
    address: Address, target: Path, *, sha256: str | None, cache_dir: CacheDir, web: Web
) -> None:
    """Fetch the file at an address and check its hash.

    Args:
        address: where the file is.
        target: the file to write.
        sha256: its hash, or the first 8 digits; None where none is known.
        cache_dir: as in `create_model`.
        web: how to ask web servers.

    Raises:
        WeightsUnavailableError: it cannot be fetched now.
        IntegrityError: other bytes came.
    """
    _log.info("fetching %s", address)
    if address.member is None:
        _fetch(address, target, sha256, cache_dir, web)
        return
    archive = target.with_name(target.name + ".archive")
    try:
        _fetch(address, archive, None, cache_dir, web, is_pinned=is_full(sha256))
        extract(archive, address.member, target)
    finally:
        archive.unlink(missing_ok=True)
    _check(target, sha256, address)


def _fetch(
    address: Address,
    target: Path,
    sha256: str | None,
    cache_dir: CacheDir,
    web: Web,
    *,
    is_pinned: bool = False,
) -> None:
    if address.is_hub:
        found = hub.fetch(
            hub.file_at(address),
            sha256=sha256 if is_full(sha256) else None,
            cache_dir=cache_dir,
            web=web,
        )
        if is_inside(found.path, hub_dir(cache_dir)):
            os.replace(found.path, target)  # it will be converted; no need to keep both
        else:
            _copy(found.path, target)
    elif address.kind == "folder":
        path = Path(address.where).expanduser() / (address.file or "")
        if not path.is_file():
            raise WeightsUnavailableError("no such file")
        _copy(path, target)
    elif hub.is_offline():
        raise WeightsUnavailableError("offline mode is on (HF_HUB_OFFLINE=1)")
    else:
        url = _drive_url(address.where, web) if address.kind == "drive" else address.where
        save(url, target, sha256=sha256, is_pinned=is_pinned, web=web)
        return
    _check(target, sha256, address)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _check(target: Path, sha256: str | None, address: Address) -> None:
    try:
        if sha256 is not None:
            check_hash(target, sha256, name=target.name)
    except IntegrityError:
        target.unlink()
        raise


class _Form(HTMLParser):
    """The form of the page on which Google Drive asks to confirm a large download."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form" and self.action is None:
            self.action = values.get("action", "")
        elif tag == "input" and self.action is not None and "name" in values:
            self.fields[values["name"]] = values.get("value", "")


def _drive_url(file_id: str, web: Web) -> str:
    """Return the URL of a Drive file, past the page that asks to confirm large files."""
    query = urllib.parse.urlencode({"export": "download", "id": file_id, "confirm": "t"})
    first = f"{web.drive}?{query}"
    is_page, content = page(first, web)
    if not is_page:
        return first
    form = _Form()
    form.feed(content.decode("utf-8", "replace"))
    if not form.action or "id" not in form.fields:
        raise WeightsUnavailableError(
            "Google Drive refuses the file (deleted, private, or fetched too often today)"
        )
    action = urllib.parse.urljoin(first, form.action)
    return f"{action}?{urllib.parse.urlencode(form.fields)}"
