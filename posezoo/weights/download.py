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
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import IntegrityError, WeightsUnavailableError
from . import files as _checkpoints
from . import hub as _hub

__all__ = ["fetch_original"]

DRIVE_URL = "https://drive.google.com/uc"
_TIMEOUT = 30.0  # seconds without a byte
_WAITS = (1.0, 3.0)  # seconds before each retry
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


def fetch_original(
    url: str, target: Path, *, sha256: str | None, cache_dir: str | Path | None = None
) -> Path:
    """Fetch `https://…`, `gdrive:<id>` or `hf:<owner>/<repo>/<file>` and check its hash.

    Args:
        url: where the file is.
        target: where to put it (Hub files stay in the Hub client's cache).
        sha256: what it must have, or the first 8 digits; None where none was published.
        cache_dir: as in `create_model`.

    Returns:
        The path of the file.

    Raises:
        WeightsUnavailableError: it cannot be had now.
        IntegrityError: other bytes came.
    """
    _log.info("fetching %s", url)
    if url.startswith("hf:"):
        owner, repo, filename = url.removeprefix("hf:").split("/", 2)
        path = _hub.fetch_from_hub(f"{owner}/{repo}", filename, cache_dir=cache_dir)
    else:
        path = target
        source = _drive_source(url) if url.startswith("gdrive:") else url
        _retrying(lambda: _download(source, path), url)
    if sha256 is not None and not (actual := _checkpoints.sha256_of(path)).startswith(sha256):
        if path is target:
            path.unlink()
        raise IntegrityError(
            f"{url} has sha256 {actual[:16]}…, but {sha256[:16]} was published: not used"
        )
    return path


def _retrying(step: Callable[[], Any], url: str) -> Any:
    """Run a network step; transient failures are tried again, then become one error."""
    for wait in (*_WAITS, None):
        try:
            return step()
        except (OSError, HTTPException) as error:
            lasting = isinstance(error, urllib.error.HTTPError) and error.code not in _TRANSIENT
            if wait is None or lasting or getattr(error, "errno", None) in (28, 30):
                raise WeightsUnavailableError(f"{url} cannot be fetched: {error}") from error
            _log.info("%s: %s; trying again in %.0f s", url, error, wait)
            time.sleep(wait)


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "posezoo"})
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _download(url: str, target: Path) -> None:
    with _open(url) as response:
        if "text/html" in response.headers.get("Content-Type", ""):
            raise WeightsUnavailableError(f"{url} answers with a web page instead of the file")
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced else None
        with (
            _checkpoints.replacing(target) as temporary,
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
    """The first form of a page: its action and hidden fields."""

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


def _drive_source(url: str) -> str:
    """Return the address of a Drive file, past the page that asks to confirm large files."""
    query = urllib.parse.urlencode(
        {"export": "download", "id": url.removeprefix("gdrive:"), "confirm": "t"}
    )
    first = f"{DRIVE_URL}?{query}"

    def page() -> str | None:
        with _open(first) as response:
            is_page = "text/html" in response.headers.get("Content-Type", "")
            return response.read(_BLOCK).decode("utf-8", "replace") if is_page else None

    text = _retrying(page, url)
    if text is None:
        return first
    form = _Form()
    form.feed(text)
    if not form.action or "id" not in form.fields:
        raise WeightsUnavailableError(
            f"{url}: Google Drive refuses the file (deleted, private, or downloaded too often "
            "today); fetch it with a browser and run `posezoo convert`"
        )
    action = urllib.parse.urljoin(first, form.action)
    return f"{action}?{urllib.parse.urlencode(form.fields)}"
