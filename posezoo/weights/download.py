"""The authors' own files: plain HTTPS, Google Drive, or somebody else's Hub repository.

They are the way to weights that are not on the Hub yet. A file is downloaded under a temporary
name, its length and hash are checked, and only then it gets its name.
"""

from __future__ import annotations

import logging
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..errors import IntegrityError, WeightsUnavailableError
from . import hub
from .cache import CacheDir
from .files import replacing
from .verify import check_hash

__all__ = ["Web", "fetch"]

_TRANSIENT = {408, 429, 500, 502, 503, 504}
_LASTING_ERRORS = (28, 30)  # no space, read-only
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Web:
    """How web servers are asked.

    Attributes:
        waits: seconds before each retry.
        timeout: seconds without a byte after which a connection counts as broken.
        drive: where Google Drive answers.
    """

    waits: tuple[float, ...] = (1.0, 3.0)
    timeout: float = 30.0
    drive: str = "https://drive.google.com/uc"


def fetch(
    address: str,
    target: Path,
    *,
    sha256: str | None,
    cache_dir: CacheDir = None,
    web: Web | None = None,
) -> Path:
    """Fetch `https://…`, `gdrive:<id>` or `hf:<owner>/<repository>/<file>` and check its hash.

    Args:
        address: where the file is.
        target: what to call it (Hub files stay in the Hub client's cache).
        sha256: its hash, or the first 8 digits; None where none was published.
        cache_dir: as in `create_model`.
        web: how to ask web servers; None is the usual way.

    Returns:
        The path of the file.

    Raises:
        WeightsUnavailableError: it cannot be fetched now.
        IntegrityError: other bytes came.
    """
    _log.info("fetching %s", address)
    if address.startswith("hf:"):
        owner, repo, filename = address.removeprefix("hf:").split("/", 2)
        path = hub.fetch(hub.HubFile(f"{owner}/{repo}", filename), cache_dir=cache_dir)
        if sha256 is not None:
            check_hash(path, sha256, name=address)
        return path
    web = web or Web()
    is_drive = address.startswith("gdrive:")
    url = _drive_url(address, web) if is_drive else address
    _retrying(lambda: _download(url, target, web), address, web)
    try:
        if sha256 is not None:
            check_hash(target, sha256, name=address)
    except IntegrityError:
        target.unlink()
        raise
    return target


def _retrying(step: Callable[[], T], address: str, web: Web) -> T:
    """Run a network step; transient failures are tried again, then become one error."""
    waits = list(web.waits)
    while True:
        try:
            return step()
        except (OSError, HTTPException) as error:
            lasting = isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT
            lasting |= isinstance(error, OSError) and error.errno in _LASTING_ERRORS
            if lasting or not waits:
                raise WeightsUnavailableError(f"{address} cannot be fetched: {error}") from error
            wait = waits.pop(0)
            _log.info("%s: %s; trying again in %.0f s", address, error, wait)
            time.sleep(wait)


def _open(url: str, web: Web) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "posezoo"})
    return urllib.request.urlopen(request, timeout=web.timeout)


def _download(url: str, target: Path, web: Web) -> None:
    with _open(url, web) as response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise WeightsUnavailableError(f"{url} answers with a web page instead of the file")
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced else None
        with (
            replacing(target) as temporary,
            open(temporary, "wb") as file,
            tqdm(
                total=total, unit="B", unit_scale=True, desc=target.name,
                disable=not sys.stderr.isatty(),
            ) as bar,
        ):  # fmt: skip
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
            if total is not None and file.tell() != total:
                raise OSError(f"the connection was cut after {file.tell()} of {total} bytes")


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


def _drive_url(address: str, web: Web) -> str:
    """Return the URL of a Drive file, past the page that asks to confirm large files."""
    query = urllib.parse.urlencode(
        {"export": "download", "id": address.removeprefix("gdrive:"), "confirm": "t"}
    )
    first = f"{web.drive}?{query}"

    def page() -> str | None:
        with _open(first, web) as response:
            is_page = "text/html" in response.headers.get("Content-Type", "")
            return response.read(_BLOCK).decode("utf-8", "replace") if is_page else None

    text = _retrying(page, address, web)
    if text is None:
        return first
    form = _Form()
    form.feed(text)
    if not form.action or "id" not in form.fields:
        raise WeightsUnavailableError(
            f"{address}: Google Drive refuses the file (deleted, private, or downloaded too often "
            "today); fetch it with a browser and run `posezoo convert`"
        )
    action = urllib.parse.urljoin(first, form.action)
    return f"{action}?{urllib.parse.urlencode(form.fields)}"
