"""The Hugging Face Hub: files fetched and verified, folders uploaded.

The Hub client compares no file with its hash (a truncated or altered file is returned without
a word), so every file is checked here against the sha256 that the configuration pins, or else
against the hash under which the Hub lists it.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from ..errors import IntegrityError, WeightsUnavailableError
from ..version import __version__
from .cache import CacheDir, hub_dir
from .verify import verify_file

__all__ = ["HubFile", "cached", "fetch", "head_commit", "is_offline", "upload"]

_HEX = re.compile(r"[0-9a-f]+")
_log = logging.getLogger(__name__)


def is_offline() -> bool:
    """Whether the Hub client was told to stay off the network (HF_HUB_OFFLINE=1)."""
    return bool(constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class HubFile:
    """A file of a model repository; `revision` is a commit, tag or branch, None the main branch."""

    repo_id: str
    filename: str
    revision: str | None = None

    def __str__(self) -> str:
        at = f" at {self.revision}" if self.revision else ""
        return f"{self.filename} of Hub repository {self.repo_id!r}{at}"


def fetch(file: HubFile, *, sha256: str | None = None, cache_dir: CacheDir = None) -> Path:
    """Return the local path of a file whose content was checked against its hash.

    A damaged copy in the cache is fetched once more.

    Args:
        file: what to fetch.
        sha256: its hash; None is the one that the Hub states.
        cache_dir: as in `create_model`.

    Raises:
        IntegrityError: the Hub serves other bytes than the hash says.
        WeightsUnavailableError: no such repository, revision or file, no permission, no
            network, no space.
    """
    path = _download(file, cache_dir)
    try:
        _verify(path, file, sha256, cache_dir)
    except IntegrityError as error:
        if is_offline() or not _removed(path):
            raise
        _log.warning("%s; fetching it again", error)
        path = _download(file, cache_dir)
        _verify(path, file, sha256, cache_dir)
    return path


def _verify(path: Path, file: HubFile, sha256: str | None, cache_dir: CacheDir) -> None:
    verify_file(path.resolve(), sha256 or _stated_hash(path, file), cache_dir=cache_dir)


def _removed(path: Path) -> bool:
    """Delete a file of the cache; never written over in place: a model may have it mapped."""
    blob = path.resolve()
    try:
        path.unlink()
        blob.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _download(file: HubFile, cache_dir: CacheDir) -> Path:
    """Call the Hub client; its many exceptions become one kind with a plain sentence."""
    try:
        path = huggingface_hub.hf_hub_download(
            file.repo_id,
            file.filename,
            revision=file.revision,
            cache_dir=hub_dir(cache_dir),
            library_name="posezoo",
            library_version=__version__,
        )
    except errors.GatedRepoError as error:
        raise WeightsUnavailableError(
            f"{file} is gated: accept its terms on the Hub and log in (`hf auth login`)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{file} does not exist, or is private and HF_TOKEN gives no access"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsUnavailableError(f"{file}: no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{file} is not in the local cache and cannot be fetched: {_reason(error)}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise WeightsUnavailableError(f"{file} does not exist") from error
    except errors.HFValidationError as error:
        raise WeightsUnavailableError(
            f"{file.repo_id!r} is not a repository name: {error}"
        ) from error
    except Exception as error:  # OSErrors of disk and network, and the HTTP library's own
        raise WeightsUnavailableError(f"{file} cannot be fetched: {_reason(error)}") from error
    return Path(path)


def _reason(error: BaseException) -> str:
    if is_offline():
        return "offline mode is on (HF_HUB_OFFLINE=1); fetch it once while online"
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _stated_hash(path: Path, file: HubFile) -> str:
    """Return the hash under which the Hub lists a file that was downloaded to `path`.

    The client names blobs by it; where the cache has no symlinks, the Hub is asked.
    """
    blob = path.resolve()
    if blob != path.absolute() and _HEX.fullmatch(blob.name):
        return blob.name
    url = huggingface_hub.hf_hub_url(file.repo_id, file.filename, revision=file.revision)
    try:
        return huggingface_hub.get_hf_file_metadata(url).etag or ""
    except Exception as error:
        raise WeightsUnavailableError(
            f"the hash of {file} cannot be fetched: {_reason(error)}"
        ) from error


def cached(file: HubFile, cache_dir: CacheDir = None) -> Path | None:
    """Return a file of the client's cache under the name that is its hash; None if absent."""
    found = huggingface_hub.try_to_load_from_cache(
        file.repo_id, file.filename, revision=file.revision, cache_dir=hub_dir(cache_dir)
    )
    return Path(found).resolve() if isinstance(found, str) else None


def upload(folder: Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a folder, making the repository if there is none; return the commit's address."""
    api = huggingface_hub.HfApi(token=token, library_name="posezoo")
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=folder, ignore_patterns=[".*", "*.sha256", "*.tmp"]
    )
    return str(commit.commit_url)


def head_commit(repo_id: str, token: str | None = None) -> str | None:
    """Return the newest commit of a repository; None if it does not exist or cannot be seen."""
    try:
        return huggingface_hub.HfApi(token=token).model_info(repo_id).sha
    except errors.RepositoryNotFoundError:
        return None
