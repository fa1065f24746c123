"""A stand-in for the Hugging Face Hub on 127.0.0.1, for the real client to talk to.

Repositories are dictionaries of commits; every commit is a dictionary of files. `faults` maps a
path suffix to a function `(handler, body) -> bool` that may answer in place of the server, which
is how outages, cut bodies and wrong bytes are made. Every request is kept in `log`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from .server import Handler, LocalServer

Fault = Callable[["_Handler", bytes], bool]

LARGE = 1000  # files of this size and more are "large": listed by sha256, uploaded through LFS


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def etag(data: bytes) -> str:
    return sha256(data) if len(data) >= LARGE else git_sha1(data)


class _Refused(Exception):
    """Status, code and message of an error answer."""


class Repo:
    """One model repository: named revisions and the files of each commit."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.access = "public"  # or "private", "gated"
        self.commit({})

    def commit(self, files: dict[str, bytes]) -> str:
        text = json.dumps({k: sha256(v) for k, v in sorted(files.items())}) + str(len(self.commits))
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = dict(files)
        self.refs["main"] = oid
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


class StandInHub(LocalServer):
    """The server. Use as a context manager; `url` is what HF_ENDPOINT wants."""

    def __init__(self) -> None:
        super().__init__(type("HubHandler", (_Handler,), {"hub": self}))
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.faults: dict[str, Fault] = {}

    def add(self, repo_id: str, files: dict[str, bytes]) -> str:
        """Put files into a repository (made if missing) and return the commit."""
        repo = self.repos.setdefault(repo_id, Repo())
        return repo.commit({**repo.files, **files})

    def count(self, method: str, part: str) -> int:
        """How many requests of this method had `part` in their path."""
        return sum(m == method and part in p for m, p in self.log)


def answering(
    status: int,
    body: bytes = b"",
    methods: tuple[str, ...] = ("HEAD", "GET", "POST"),
    times: int = 1000,
    **headers: str,
) -> Fault:
    """A fault: the first `times` requests by `methods` get this answer."""
    left = iter(range(times))

    def fault(handler: _Handler, _: bytes) -> bool:
        if handler.command not in methods or next(left, None) is None:
            return False
        handler.answer(status, body, headers)
        return True

    return fault


class _Handler(Handler):
    protocol_version = "HTTP/1.1"
    hub: StandInHub

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append((self.command, path))
        for suffix, fault in list(self.hub.faults.items()):
            if path.endswith(suffix) and fault(self, body):
                return
        for pattern, name in _ROUTES:
            if found := re.fullmatch(pattern, path):
                try:
                    return getattr(self, name)(body, *found.groups())
                except _Refused as refused:
                    status, code, message = refused.args
                    headers = {"X-Error-Code": code, "X-Error-Message": message}
                    return self.answer(status, b"{}", headers)
        self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _repo(self, repo_id: str) -> Repo:
        repo = self.hub.repos.get(repo_id)
        token = self.headers.get("Authorization")
        if repo is None or (repo.access == "private" and not token):
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if repo.access == "gated" and not token:
            raise _Refused(401, "GatedRepo", "Access to this model is restricted")
        return repo

    def resolve(self, body: bytes, repo_id: str, rest: str) -> None:
        repo = self._repo(repo_id)
        known = sorted([*repo.refs, *repo.commits], key=len, reverse=True)
        revision = next((r for r in known if rest.startswith(r + "/")), None)
        if revision is None:
            raise _Refused(404, "RevisionNotFound", "Revision not found")
        commit = repo.refs.get(revision, revision)
        data = repo.commits[commit].get(rest[len(revision) + 1 :])
        if data is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self.answer(404, b"", headers)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(data)}"'}
        if len(data) >= LARGE:
            headers |= {"X-Linked-Etag": f'"{etag(data)}"', "X-Linked-Size": str(len(data))}
        self.answer(200, data, headers)

    def info(self, body: bytes, repo_id: str, revision: str = "main") -> None:
        repo = self._repo(repo_id)
        commit = repo.refs.get(revision, revision)
        siblings = [{"rfilename": name} for name in repo.commits[commit]]
        self._json({"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo_id = f"{asked.get('organization') or 'user'}/{asked['name']}"
        exists = repo_id in self.hub.repos
        repo = self.hub.repos.setdefault(repo_id, Repo())
        if asked.get("private") or asked.get("visibility") == "private":
            repo.access = "private"
        self._json({"url": f"{self.hub.url}/{repo_id}"}, 409 if exists else 200)

    def validate_yaml(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        answers = []
        for file in json.loads(body)["files"]:
            answer = {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                "shouldIgnore": False,
            }
            if file["path"] in repo.files:
                data = repo.files[file["path"]]
                answer["oid"] = etag(data) if len(data) >= LARGE else git_sha1(data)
            answers.append(answer)
        self._json({"files": answers})

    def batch(self, body: bytes, repo_id: str) -> None:
        objects = []
        for item in json.loads(body)["objects"]:
            url = f"{self.hub.url}/lfs/{item['oid']}"
            actions = {"upload": {"href": url}, "verify": {"href": url + "/verify"}}
            stored = item["oid"] in self.hub.lfs
            objects.append({**item, **({} if stored else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            return self.answer(400)
        self.hub.lfs[oid] = body
        self.answer(200)

    def lfs_verify(self, body: bytes, oid: str) -> None:
        self.answer(200 if oid in self.hub.lfs else 404)

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        files = dict(repo.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        oid = repo.commit(files)
        url = f"{self.hub.url}/{repo_id}/commit/{oid}"
        self._json({"commitUrl": url, "commitOid": oid})


_ID = r"([^/]+/[^/]+)"
_ROUTES = [
    (r"/((?:datasets/)?[^/]+/[^/]+)/resolve/(.+)", "resolve"),
    (rf"/api/models/{_ID}", "info"),
    (rf"/api/models/{_ID}/revision/(.+)", "info"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate_yaml"),
    (rf"/api/models/{_ID}/preupload/([^/]+)", "preupload"),
    (rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/([0-9a-f]+)", "lfs_put"),
    (r"/lfs/([0-9a-f]+)/verify", "lfs_verify"),
    (rf"/api/models/{_ID}/commit/([^/]+)", "commit"),
]
