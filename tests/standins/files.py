"""A stand-in for file servers: plain downloads, and Google Drive with its confirmation page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import BaseHandler, Request

from posezoo.errors import WeightsUnavailableError

from .server import Handler, LocalServer

_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="{action}" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{id}">
<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">
<input type="hidden" name="uuid" value="1234"></form></body></html>"""


class LocalOnly(BaseHandler):
    """A handler of urllib that refuses every host but this machine."""

    def default_open(self, request: Request) -> None:
        if not request.host.startswith(("127.0.0.1:", "localhost:")):
            raise WeightsUnavailableError(f"{request.full_url} is not asked in tests")


class FileServer(LocalServer):
    """`/files/<name>` serves `files`, `/uc?id=` serves `drive` as Google Drive does.

    Pieces of files (Range) are served unless `whole_only`; `sent` counts the bytes of every body.
    """

    def __init__(self) -> None:
        super().__init__(type("FileHandler", (_Handler,), {"owner": self}))
        self.files: dict[str, bytes] = {}
        self.drive: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}  # name -> URL
        self.confirm_from = 10_000  # Drive asks to confirm files of this size
        self.whole_only = False
        self.log: list[str] = []
        self.sent: list[int] = []
        self.fault: Callable[[Any, bytes], bool] | None = None


class _Handler(Handler):
    owner: FileServer

    def do_GET(self) -> None:
        server, url = self.owner, urlsplit(self.path)
        server.log.append(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if url.path == "/uc":
            return self.drive(query["id"])
        if url.path == "/download" and query.get("uuid") == "1234":
            return self.body(server.drive[query["id"]])
        name = url.path.removeprefix("/files/")
        if name in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[name])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data = server.files.get(name)
        return self.body(data) if data is not None else self.send_error(404)

    def drive(self, file_id: str) -> None:
        data = self.owner.drive.get(file_id)
        if data is None:
            return self.page("<html><body>Sorry, too many users have viewed it</body></html>")
        if len(data) >= self.owner.confirm_from:
            return self.page(_PAGE.format(action=f"{self.owner.url}/download", id=file_id))
        self.body(data)

    def page(self, text: str) -> None:
        self.reply(text.encode(), "text/html; charset=utf-8")

    def body(self, data: bytes) -> None:
        if self.owner.fault is None or not self.owner.fault(self, data):
            self.reply(data, "application/octet-stream")

    def reply(self, data: bytes, kind: str, cut: int | None = None) -> None:
        """Answer with the file or the piece asked for; `cut` ends the connection at a byte."""
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", etag) == etag
        first = int(start[1]) if start and same and not self.owner.whole_only else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", etag)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        body = data[first:cut]
        self.owner.sent.append(len(body))
        self.wfile.write(body)
