"""Requests to web servers: time limits, retries, and failures in words."""

from __future__ import annotations

import logging
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypeVar

from ..errors import WeightsUnavailableError

__all__ = ["LASTING_ERRORS", "Web", "is_page", "is_unreachable", "open_url", "page", "retrying"]

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
LASTING_ERRORS = (28, 30)  # no space, read-only
_BLOCK = 1 << 20
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for
_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Web:
    """How web servers are asked.

    Attributes:
        waits: seconds before each retry; a host that cannot be reached gets the first only.
        timeout: seconds without a byte after which a connection counts as broken.
        patience: seconds after which `slowest` counts.
        slowest: bytes per second below which a connection counts as broken.
        drive: where Google Drive answers.
    """

    waits: tuple[float, ...] = (1.0, 3.0, 8.0)
    timeout: float = 10.0
    patience: float = 60.0
    slowest: float = 2000.0
    drive: str = "https://drive.google.com/uc"


def page(url: str, web: Web) -> tuple[bool, bytes]:
    """Return whether a URL answers with a web page, and its first megabyte."""

    def step() -> tuple[bool, bytes]:
        with open_url(url, web, {}) as response:
            return is_page(response), response.read(_BLOCK)

    return retrying(step, web)


def retrying(step: Callable[[], T], web: Web) -> T:
    """Run a network step; transient failures are tried again, then become one error."""
    tries = 0
    while True:
        try:
            return step()
        except (OSError, HTTPException) as error:
            allowed = 1 if is_unreachable(error) else len(web.waits)
            if tries >= min(allowed, len(web.waits)) or not _may_pass(error):
                raise WeightsUnavailableError(reason(error)) from error
            wait = min(max(web.waits[tries], _asked_wait(error)), _LONGEST_WAIT)
            tries += 1
            _log.info("%s; trying again in %.0f s", reason(error), wait)
            time.sleep(wait)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _TRANSIENT
    return not (isinstance(error, OSError) and error.errno in LASTING_ERRORS)


def _asked_wait(error: Exception) -> float:
    """Return the seconds that a server asks to wait (429, 503), 0 if it does not say."""
    if isinstance(error, urllib.error.HTTPError):
        text = error.headers.get("Retry-After", "")
        return float(text) if text.isdigit() else 0.0
    return 0.0


def is_unreachable(error: BaseException) -> bool:
    """Whether a host cannot be reached at all: no name, no route, nobody listening."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    return isinstance(error, (socket.gaierror, ConnectionRefusedError)) or (
        isinstance(error, OSError) and error.errno in (101, 113)  # network, host unreachable
    )


def reason(error: BaseException) -> str:
    """Say in a few words why a request failed."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"no connection ({text[:100]})" if is_unreachable(error) else text[:120]


def open_url(url: str, web: Web, headers: Mapping[str, str]) -> Any:
    """Return the answer to a GET; `headers` do not follow it to other hosts."""
    request = urllib.request.Request(url, headers={"User-Agent": "posezoo"})
    for key, value in headers.items():
        request.add_unredirected_header(key, value)
    return urllib.request.urlopen(request, timeout=web.timeout)


def is_page(response: Any) -> bool:
    """Whether the answer is a web page."""
    return "text/html" in response.headers.get("Content-Type", "")
