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
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1000  # files of this size and more are "large": listed by sha256, uploaded through LFS


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def etag(data: bytes) -> str:
    return sha256(data) if len(data) >= LARGE else git_sha1(data)


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

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class StandInHub:
    """The server. Use as a context manager; `url` is what HF_ENDPOINT wants."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.faults: dict[str, Callable[[BaseHTTPRequestHandler, bytes], bool]] = {}
        hub = self

        class Handler(_Handler):
            server_hub = hub

        class Server(ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    def __enter__(self) -> StandInHub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes]) -> str:
        """Put files into a repository (made if missing) and return the commit."""
        repo = self.repos.setdefault(repo_id, Repo())
        return repo.commit({**repo.files, **files})

    def count(self, method: str, part: str) -> int:
        """How many requests of this method had `part` in their path."""
        return sum(m == method and part in p for m, p in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: StandInHub

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        names = {k.lower() for k in headers or {}}
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message or code}
        self._answer(status, b"{}", headers)

    def _serve(self) -> None:
        hub = self.server_hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        hub.log.append((self.command, path))
        for suffix, fault in list(hub.faults.items()):
            if path.endswith(suffix) and fault(self, body):
                return
        for pattern, name in _ROUTES:
            if found := re.fullmatch(pattern, path):
                getattr(self, name)(body, *found.groups())
                return
        self._answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _repo(self, repo_id: str) -> Repo | None:
        repo = self.server_hub.repos.get(repo_id)
        token = self.headers.get("Authorization")
        if repo is None or (repo.access == "private" and not token):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        if repo.access == "gated" and not token:
            self._error(401, "GatedRepo", "Access to this model is restricted")
            return None
        return repo

    # ------------------------------------------------------------------ downloads

    def resolve(self, body: bytes, repo_id: str, rest: str) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        known = sorted([*repo.refs, *repo.commits], key=len, reverse=True)
        revision = next((r for r in known if rest.startswith(r + "/")), None)
        if revision is None:
            return self._error(404, "RevisionNotFound")
        commit, name = repo.find(revision), rest[len(revision) + 1 :]
        assert commit is not None
        data = repo.commits[commit].get(name)
        if data is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._answer(404, b"", headers)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(data)}"'}
        if len(data) >= LARGE:
            headers |= {"X-Linked-Etag": f'"{etag(data)}"', "X-Linked-Size": str(len(data))}
        if self.command == "HEAD":
            return self._answer(200, b"", {**headers, "Content-Length": str(len(data))})
        self._answer(200, data, headers)

    def info(self, body: bytes, repo_id: str, revision: str | None = None) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        commit = repo.find(revision or "main")
        if commit is None:
            return self._error(404, "RevisionNotFound")
        files = repo.commits[commit]
        siblings = [
            {"rfilename": n, "size": len(d), "blobId": git_sha1(d)}
            | ({"lfs": self._lfs(d)} if len(d) >= LARGE else {})
            for n, d in files.items()
        ]
        self._json(
            {"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings,
             "private": repo.access == "private", "tags": [], "downloads": 0, "likes": 0}
        )  # fmt: skip

    @staticmethod
    def _lfs(data: bytes) -> dict[str, Any]:
        return {"oid": sha256(data), "sha256": sha256(data), "size": len(data), "pointerSize": 134}

    def _tree(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": n, "size": len(d), "oid": git_sha1(d)}
            | ({"lfs": self._lfs(d)} if len(d) >= LARGE else {})
            for n, d in files.items()
        ]

    def tree(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        if repo is not None:
            self._json(self._tree(repo.commits[repo.find(revision) or ""]))

    def paths_info(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        if repo is not None:
            wanted = body.decode()
            files = repo.commits[repo.find(revision) or ""]
            self._json([row for row in self._tree(files) if row["path"] in unquote(wanted)])

    # ------------------------------------------------------------------ uploads

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        repo_id = f"{asked.get('organization') or 'user'}/{asked['name']}"
        exists = repo_id in self.server_hub.repos
        repo = self.server_hub.repos.setdefault(repo_id, Repo())
        if asked.get("private") or asked.get("visibility") == "private":
            repo.access = "private"
        self._json({"url": f"{self.server_hub.url}/{repo_id}"}, 409 if exists else 200)

    def validate_yaml(self, body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
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
            place = f"{self.server_hub.url}/lfs/{item['oid']}"
            actions = {"upload": {"href": place}, "verify": {"href": place + "/verify"}}
            stored = item["oid"] in self.server_hub.lfs
            objects.append({**item, **({} if stored else {"actions": actions})})
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            return self._answer(400)
        self.server_hub.lfs[oid] = body
        self._answer(200)

    def lfs_verify(self, body: bytes, oid: str) -> None:
        self._answer(200 if oid in self.server_hub.lfs else 404)

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        if repo is None:
            return
        files = dict(repo.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.lfs[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        oid = repo.commit(files)
        url = f"{self.server_hub.url}/{repo_id}/commit/{oid}"
        self._json({"commitUrl": url, "commitOid": oid})

    def whoami(self, body: bytes) -> None:
        self._json({"type": "user", "name": "user", "orgs": [], "auth": {}})

    def harnesses(self, body: bytes) -> None:
        self._json({"standardEnvVars": [], "harnesses": {}})


_ID = r"([^/]+/[^/]+)"
_ROUTES = [
    (rf"/{_ID}/resolve/(.+)", "resolve"),
    (rf"/api/models/{_ID}", "info"),
    (rf"/api/models/{_ID}/revision/(.+)", "info"),
    (rf"/api/models/{_ID}/tree/([^/]+)", "tree"),
    (rf"/api/models/{_ID}/paths-info/([^/]+)", "paths_info"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate_yaml"),
    (rf"/api/models/{_ID}/preupload/([^/]+)", "preupload"),
    (rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/([0-9a-f]+)", "lfs_put"),
    (r"/lfs/([0-9a-f]+)/verify", "lfs_verify"),
    (rf"/api/models/{_ID}/commit/([^/]+)", "commit"),
    (r"/api/whoami-v2", "whoami"),
    (r"/api/agent-harnesses", "harnesses"),
]
