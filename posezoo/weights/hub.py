"""The Hugging Face Hub: files fetched and verified, folders uploaded.

The Hub client says what is asked for (commit, hash, size, errors, tokens), the download is ours:
the client trusts whatever comes, names files by what a server calls their hash, waits without
limit for locks, and does not retry a body. A copy in its own cache is used if the hash fits.

Ours are in `hub/<owner>--<name>/<commit>/<file>` of the cache, the hash beside each.
"""

from __future__ import annotations

import logging
import re
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors

from ..errors import IntegrityError, WeightsUnavailableError
from ..files import sha256_of, write_text
from ..version import __version__
from ..zoo.address import Address
from .cache import CacheDir, hub_dir, is_inside, locked, remove
from .located import Located
from .transfer import save
from .verify import verify_file
from .web import Web

__all__ = ["HubFile", "Published", "cached", "fetch", "file_at", "is_offline", "stated", "upload"]

_REPOSITORY = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # git's sha1 of small files, sha256 of large ones
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_log = logging.getLogger(__name__)


def is_offline() -> bool:
    """Whether the Hub client was told to stay off the network (HF_HUB_OFFLINE=1)."""
    return bool(constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; `revision` is a commit, tag or branch, None the main branch."""

    repo_id: str
    filename: str
    revision: str | None = None
    repo_type: str = "model"

    def __str__(self) -> str:
        at = f"@{self.revision[:8]}" if self.revision else ""
        prefix = "datasets/" if self.repo_type == "dataset" else ""
        return f"hf:{prefix}{self.repo_id}/{self.filename}{at}"


def file_at(address: Address) -> HubFile:
    """Return the file that an address on the Hub means."""
    kind = "dataset" if address.kind == "hub_dataset" else "model"
    return HubFile(address.where, address.file or "", address.revision, kind)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the Hub states about a file: its commit, its hash, its size, and where its body is."""

    commit: str
    hash: str
    size: int | None
    url: str


def fetch(
    file: HubFile, *, sha256: str | None = None, cache_dir: CacheDir = None, web: Web | None = None
) -> Located:
    """Return a local file whose content was checked against its hash.

    A damaged copy in the cache is fetched once more. Nothing is asked where the revision is a
    commit and the file is there; without an answer, what the revision last meant is used.

    Args:
        file: what to fetch.
        sha256: its hash; None is the one that the Hub states.
        cache_dir: as in `create_model`.
        web: how to ask web servers; None is the usual way.

    Raises:
        IntegrityError: the Hub serves other bytes than the hash says.
        WeightsUnavailableError: no such repository, revision or file, no permission, no
            network, no space.
    """
    web = web or Web()
    store = _Store(file, cache_dir)
    if file.revision and _COMMIT.fullmatch(file.revision):
        if found := store.find(file.revision, sha256, must_fit=is_offline()):
            return found
    try:
        published = stated(file, web)
    except _NoAnswerError as error:
        if found := store.find(store.last_commit(), sha256, must_fit=True):
            _log.warning("%s: %s; the copy in the cache is used", file, error)
            return found
        raise
    expected = sha256 or published.hash
    return store.fetch(published, expected, web)


class _NoAnswerError(WeightsUnavailableError):
    """The Hub gave no answer about a file, which may well exist."""


def stated(file: HubFile, web: Web) -> Published:
    """Ask the Hub about a file.

    Raises:
        WeightsUnavailableError: no such file, no permission, no answer.
    """
    if is_offline():
        raise _NoAnswerError(f"{file}: not in the cache, and offline mode is on (HF_HUB_OFFLINE=1)")
    for wait in (*web.waits, None):
        try:
            answer = _ask(file, web)
            break
        except _NoAnswerError as error:
            if wait is None or not _may_pass(error.__cause__, wait == web.waits[0]):
                raise
            _log.info("%s; trying again in %.0f s", error, wait)
            time.sleep(wait)
    commit, etag = answer.commit_hash or "", answer.etag or ""
    if not (_COMMIT.fullmatch(commit) and _HASH.fullmatch(etag)):
        raise WeightsUnavailableError(
            f"{file}: the server states no commit and hash (it says {commit[:40]!r} and "
            f"{etag[:40]!r}); it is not used"
        )
    return Published(commit=commit, hash=etag, size=answer.size, url=answer.location)


def _may_pass(cause: BaseException | None, is_first: bool) -> bool:
    """Whether asking again can help; a host that cannot be reached is asked twice."""
    if isinstance(cause, errors.HfHubHTTPError):
        return cause.response is not None and cause.response.status_code in _TRANSIENT
    return is_first


def _ask(file: HubFile, web: Web) -> Any:
    """Call the Hub client; its many exceptions become one kind with a plain sentence."""
    try:
        url = huggingface_hub.hf_hub_url(
            file.repo_id, file.filename, revision=file.revision, repo_type=file.repo_type
        )
        return huggingface_hub.get_hf_file_metadata(
            url, timeout=web.timeout, library_name="posezoo", library_version=__version__
        )
    except errors.GatedRepoError as error:
        raise WeightsUnavailableError(
            f"{file}: gated: accept its terms on the Hub and log in (`hf auth login`)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{file}: does not exist, or is private and HF_TOKEN gives no access"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsUnavailableError(f"{file}: no such revision") from error
    except errors.EntryNotFoundError as error:
        raise WeightsUnavailableError(f"{file}: does not exist") from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "error"
        raise _NoAnswerError(f"{file}: HTTP {code} {error.server_message or ''}") from error
    except Exception as error:  # of the network: the HTTP library's own kinds
        raise _NoAnswerError(f"{file}: no connection ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


class _Store:
    """Copies of one file in the cache, one for each commit."""

    def __init__(self, file: HubFile, cache_dir: CacheDir) -> None:
        if not _REPOSITORY.fullmatch(file.repo_id):
            raise WeightsUnavailableError(
                f"{file.repo_id!r} is not a repository name; owner/name is expected"
            )
        self.file, self.cache_dir = file, cache_dir
        prefix = "datasets--" if file.repo_type == "dataset" else ""
        self.folder = hub_dir(cache_dir) / (prefix + file.repo_id.replace("/", "--"))
        revision = urllib.parse.quote(file.revision or "main", safe="")
        self.reference = self.folder / f"revision-{revision}"
        if not is_inside(self.path("0" * 40), self.folder):
            raise WeightsUnavailableError(f"{file.filename!r} is not the name of a file")

    def path(self, commit: str) -> Path:
        return self.folder / commit / self.file.filename

    def hash_path(self, commit: str) -> Path:
        path = self.path(commit)
        return path.with_name(path.name + ".hash")

    def last_commit(self) -> str:
        """Return the commit that the revision meant when the Hub was last asked."""
        return _text(self.reference) or self.file.revision or "main"  # the client may know more

    def find(self, commit: str, sha256: str | None, *, must_fit: bool) -> Located | None:
        """Return the verified copy of a commit; None where there is none.

        Raises:
            IntegrityError: `must_fit`, and the copy is damaged.
        """
        for path, expected in self.copies(commit, sha256):
            try:
                return self._verified(path, expected)
            except IntegrityError as error:
                if must_fit:
                    raise
                _log.warning("%s; fetching it again", error)
        return None

    def copies(self, commit: str, sha256: str | None) -> list[tuple[Path, str]]:
        """List our copy and the Hub client's, each with the hash that it should have."""
        found = []
        if _COMMIT.fullmatch(commit) and self.path(commit).is_file():
            expected = sha256 or _text(self.hash_path(commit))
            if expected is not None:
                found.append((self.path(commit), expected))
        theirs = huggingface_hub.try_to_load_from_cache(
            self.file.repo_id,
            self.file.filename,
            revision=commit,
            repo_type=self.file.repo_type,
        )
        if isinstance(theirs, str):
            blob = Path(theirs).resolve()  # the client names it by its hash, if links can be made
            if sha256 or _HASH.fullmatch(blob.name):
                found.append((blob, sha256 or blob.name))
        return found

    def _verified(self, path: Path, expected: str) -> Located:
        verify_file(path, expected, cache_dir=self.cache_dir)
        full = expected if len(expected) == 64 else sha256_of(path)
        return Located(path=path, sha256=full)

    def fetch(self, published: Published, expected: str, web: Web) -> Located:
        """Return the copy of a commit, downloaded if there is none that is whole."""
        commit = published.commit
        if found := self.find(commit, expected, must_fit=False):
            self._note(commit)
            return found
        target = self.path(commit)
        try:
            with locked(target.parent):
                if found := self.find(commit, expected, must_fit=False):
                    return found
                remove(target, self.cache_dir)
                self._download(published, expected, target, web)
                write_text(self.hash_path(commit), expected)
                self._note(commit)
        except OSError as error:
            raise WeightsUnavailableError(
                f"{target.parent} cannot be written: {error.strerror or error}"
            ) from error
        return self._verified(target, expected)

    def _download(self, published: Published, expected: str, target: Path, web: Web) -> None:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else huggingface_hub.get_token()
        is_here = urllib.parse.urlsplit(published.url).netloc == _host()
        headers = {"Authorization": f"Bearer {token}"} if token and is_here else {}
        try:
            save(
                published.url,
                target,
                sha256=expected,
                size=published.size,
                headers=headers,
                web=web,
            )
        except IntegrityError as error:
            raise IntegrityError(f"{self.file}: {error}") from error
        except WeightsUnavailableError as error:
            raise WeightsUnavailableError(f"{self.file}: {error}") from error

    def _note(self, commit: str) -> None:
        try:
            if _text(self.reference) != commit:
                write_text(self.reference, commit)
        except OSError:
            _log.debug("cannot remember %s (read-only cache)", self.reference)


def _host() -> str:
    return urllib.parse.urlsplit(constants.ENDPOINT).netloc


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def cached(
    file: HubFile, sha256: str | None = None, cache_dir: CacheDir = None
) -> list[tuple[Path, str]]:
    """List copies of a file on this machine with the hash that each should have."""
    store = _Store(file, cache_dir)
    return store.copies(store.last_commit(), sha256)


def upload(
    folder: Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> tuple[str, str]:
    """Upload a folder, making the repository if there is none.

    Returns:
        The commit and its address; the newest commit where nothing had to be changed.

    Raises:
        WeightsUnavailableError: the Hub refuses it or cannot be reached.
    """
    api = huggingface_hub.HfApi(token=token, library_name="posezoo")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, ignore_patterns=[".*", "*.sha256", "*.tmp"]
        )
    except Exception as error:  # the client's own, the HTTP library's, and OSErrors
        raise WeightsUnavailableError(f"{repo_id} cannot be published: {_reason(error)}") from error
    return str(commit.oid), str(commit.commit_url)
