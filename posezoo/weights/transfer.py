"""A file from the web, in pieces that survive interruptions.

Until its hash was checked a download is called `.<name>.part`. Beside it is written which
version of the file it belongs to, so that a later run goes on from there and never mixes two.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from ..errors import IntegrityError, WeightsUnavailableError
from .verify import check_hash
from .web import LASTING_ERRORS, Web, is_page, open_url, retrying

__all__ = ["is_full", "save"]

_BLOCK = 1 << 20


def save(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    is_pinned: bool = False,
    size: int | None = None,
    headers: dict[str, str] | None = None,
    web: Web,
) -> None:
    """Download a URL to `target` and check its hash; what is wrong is deleted.

    Raises:
        WeightsUnavailableError: it cannot be fetched now.
        IntegrityError: other bytes came.
    """
    part = Part(
        path=target.with_name(f".{target.name}.part"),
        url=url,
        is_pinned=is_pinned or is_full(sha256),
        size=size,
        headers=headers or {},
    )
    while True:
        went_on = _download(part, web)
        try:
            if sha256 is not None:
                check_hash(part.path, sha256, name=target.name)
            part.keep_as(target)
            return
        except IntegrityError:
            part.discard()
            if not went_on:  # otherwise the bytes of an earlier run may be to blame
                raise


def is_full(sha256: str | None) -> bool:
    """Whether a hash is more than its first 8 digits."""
    return sha256 is not None and len(sha256) > 8


@dataclass(frozen=True, kw_only=True)
class Part:
    """What has arrived of a file, and which version of it that is.

    Attributes:
        path: of the incomplete file.
        url: where it comes from.
        is_pinned: its full hash is known. Then it may go on without a word of the server about
            versions, and may come from another host than the one that was asked.
        size: bytes of the whole file, if known beforehand.
        headers: sent along, not to hosts that the server redirects to.
    """

    path: Path
    url: str
    is_pinned: bool
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def _record(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def begin(self, version: str) -> None:
        """Note which version the bytes to come belong to."""
        self._record.write_text(json.dumps({"url": self.url, "version": version}))

    def version(self) -> str | None:
        """Return the version that the bytes so far belong to; None if they are of no use."""
        try:
            record = json.loads(self._record.read_text())
            return str(record["version"]) if record["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def discard(self) -> None:
        """Remove what has arrived."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def keep_as(self, target: Path) -> None:
        """Give the checked file its name."""
        os.replace(self.path, target)
        self._record.unlink(missing_ok=True)


def _download(part: Part, web: Web) -> bool:
    """Fetch a file, going on where an earlier attempt ended.

    Returns:
        Whether bytes of an earlier run are in it.

    Raises:
        WeightsUnavailableError: it cannot be fetched now.
    """
    part.path.parent.mkdir(parents=True, exist_ok=True)
    went_on = part.version() is not None and part.path.is_file()
    try:
        retrying(lambda: _continue(part, web), web)
    except WeightsUnavailableError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in LASTING_ERRORS:
            part.discard()
        raise
    return went_on


def _continue(part: Part, web: Web) -> None:
    """Make one request for what is missing, and write it."""
    version = part.version()
    start = part.path.stat().st_size if version is not None and part.path.is_file() else 0
    if not version and not part.is_pinned:
        start = 0
    headers = dict(part.headers)
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    try:
        response = open_url(part.url, web, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what has arrived is not the beginning of this file
            part.discard()
            raise OSError("the server does not know the piece that is missing") from error
        raise
    with response:
        _check_answer(response, part)
        goes_on = response.status == 206
        start = _range_start(response, start) if goes_on else 0
        if not goes_on:
            part.begin(_version_of(response))
        _write(response, part, web, start)


def _check_answer(response: Any, part: Part) -> None:
    """Refuse what cannot be the file."""
    asked, answered = urlsplit(part.url), urlsplit(response.geturl())
    moved = (asked.scheme, asked.netloc) != (answered.scheme, answered.netloc)
    if moved and not part.is_pinned and not _is_google(asked.hostname, answered.hostname):
        raise WeightsUnavailableError(
            f"redirects to {answered.netloc}, which is followed only where a full sha256 is known"
        )
    if is_page(response):
        raise WeightsUnavailableError("answers with a web page instead of the file")


def _is_google(*hosts: str | None) -> bool:
    """Whether all are Google's: Drive hands files out from another of its hosts."""
    return all((h or "").endswith((".google.com", ".googleusercontent.com")) for h in hosts)


def _range_start(response: Any, start: int) -> int:
    found = response.headers.get("Content-Range", "")
    if not found.startswith(f"bytes {start}-"):
        raise OSError(f"the server sent {found!r} where bytes from {start} on were asked for")
    return start


def _version_of(response: Any) -> str:
    """Return what tells versions of the file apart (RFC 9110: a strong ETag or a date)."""
    etag: str = response.headers.get("ETag", "")
    date: str = response.headers.get("Last-Modified", "")
    return etag if etag and not etag.startswith("W/") else date


def _write(response: Any, part: Part, web: Web, start: int) -> None:
    announced = response.headers.get("Content-Length")
    total = start + int(announced) if announced else part.size
    if part.size is not None and total != part.size:
        part.discard()
        raise WeightsUnavailableError(f"has a length of {total} bytes, expected {part.size}")
    name = part.path.name.removeprefix(".").removesuffix(".part")
    began, done = time.monotonic(), start
    with (
        open(part.path, "r+b" if start else "wb") as file,
        tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=name,
            disable=not sys.stderr.isatty(),
        ) as bar,
    ):  # fmt: skip
        file.seek(start)
        while block := response.read1(_BLOCK):
            file.write(block)
            done += len(block)
            bar.update(len(block))
            elapsed = time.monotonic() - began
            if elapsed > web.patience and done - start < web.slowest * elapsed:
                raise OSError(f"slower than {web.slowest / 1000:g} kB/s")
        file.truncate()
    if total is not None and done != total:
        raise OSError(f"the connection was cut after {done} of {total} bytes")
