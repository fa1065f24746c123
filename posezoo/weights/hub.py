"""The Hugging Face Hub: fetch, verify, save, upload.

The Hub client compares no file with its hash (a truncated or altered file is returned without
a word), so every file is checked here against the sha256 that the configuration pins, or else
against the hash under which the Hub lists it. A checked file is remembered by size and
modification time and not hashed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import CheckpointError, IntegrityError, WeightsUnavailableError
from ..zoo import catalog as _registry
from ..zoo.config import PretrainedCfg
from . import files as _checkpoints

__all__ = [
    "cache_root",
    "fetch_from_hub",
    "hub_id",
    "push_to_hub",
    "read_config",
    "save_pretrained",
    "verify_file",
]

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_HEX = re.compile(r"[0-9a-f]+")
_log = logging.getLogger(__name__)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Return the folder for converted weights and records of checked files.

    It is `cache_dir`, else `$POSEZOO_CACHE`, else `~/.cache/posezoo`. Downloads from the Hub go
    to the Hub client's own cache, or below `cache_dir` where it is given.
    """
    default = os.environ.get("POSEZOO_CACHE") or Path.home() / ".cache" / "posezoo"
    return Path(cache_dir or default).expanduser()


def hub_id(cfg: PretrainedCfg) -> str:
    """Return the repository of a variant: pinned, or `<namespace>/<architecture>.<tag>`."""
    namespace = os.environ.get("POSEZOO_HUB_NAMESPACE", "posezoo")
    return cfg.source.hf_hub_id or f"{namespace}/{cfg.name}"


def converted_dir(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """Return the folder where converted weights of a variant are looked for first."""
    return cache_root(cache_dir) / "converted" / cfg.name


def origin_of(cfg: PretrainedCfg, filename: str, sha256: str, url: str = "") -> dict[str, str]:
    """Return the provenance that a converted file carries in its metadata."""
    from ..version import __version__

    origin = {
        "origin_file": filename,
        "origin_sha256": sha256,
        "origin_url": url or (cfg.source.original_urls or ("",))[0],
        "license": cfg.source.license or "",
        "converter": f"posezoo {__version__}",
    }
    return {key: value for key, value in origin.items() if value}


# ------------------------------------------------------------------------------- fetching


def fetch_from_hub(
    repo_id: str,
    filename: str,
    *,
    revision: str | None = None,
    sha256: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Return the local path of a Hub file whose content was checked against its hash.

    A damaged copy in the cache is fetched once more.

    Raises:
        IntegrityError: the Hub serves other bytes than its hash (or the pinned one) says.
        WeightsUnavailableError: no such repository, revision or file, no permission, no
            network, no space.
    """
    path = _download(repo_id, filename, revision, cache_dir)
    try:
        _verify_hub_file(path, repo_id, filename, revision, sha256, cache_dir)
    except IntegrityError as error:
        if is_offline():
            raise
        _log.warning("%s; fetching it again", error)
        blob = path.resolve()
        try:
            path.unlink()  # never written over in place: a running model may have it mapped
            blob.unlink(missing_ok=True)
        except OSError:
            raise error from None
        path = _download(repo_id, filename, revision, cache_dir)
        _verify_hub_file(path, repo_id, filename, revision, sha256, cache_dir)
    return path


def _download(
    repo_id: str,
    filename: str,
    revision: str | None,
    cache_dir: str | Path | None,
) -> Path:
    """Call the Hub client; its many exceptions become one kind with a plain sentence."""
    import huggingface_hub
    from huggingface_hub import errors

    from ..version import __version__

    where = f"{filename} of Hub repository {repo_id!r}" + (f" at {revision}" if revision else "")
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repo_id,
                filename,
                revision=revision,
                cache_dir=None if cache_dir is None else str(cache_root(cache_dir) / "hub"),
                library_name="posezoo",
                library_version=__version__,
            )
        )
    except errors.GatedRepoError as error:
        raise WeightsUnavailableError(
            f"{where} is gated: accept its terms on the Hub and log in (`hf auth login`)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{where} does not exist, or is private and HF_TOKEN gives no access"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsUnavailableError(f"{where}: no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{where} is not in the local cache and cannot be fetched: {_reason(error)}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise WeightsUnavailableError(f"{where} does not exist") from error
    except errors.HFValidationError as error:
        raise WeightsUnavailableError(f"{repo_id!r} is not a repository name: {error}") from error
    except Exception as error:  # OSErrors of disk and network, and the HTTP library's own
        raise WeightsUnavailableError(f"{where} cannot be fetched: {_reason(error)}") from error


def cached_blob(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path | None:
    """Return the cached weights file of a variant, under the hash that names it; None if absent."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(
        hub_id(cfg),
        WEIGHTS_FILE,
        revision=cfg.source.hf_revision,
        cache_dir=None if cache_dir is None else str(cache_root(cache_dir) / "hub"),
    )
    return Path(found).resolve() if isinstance(found, str) else None


def is_offline() -> bool:
    """Whether the Hub client was told to stay off the network (HF_HUB_OFFLINE=1)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _reason(error: BaseException) -> str:
    if is_offline():
        return "offline mode is on (HF_HUB_OFFLINE=1); fetch it once while online"
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _verify_hub_file(
    path: Path,
    repo_id: str,
    filename: str,
    revision: str | None,
    sha256: str | None,
    cache_dir: str | Path | None,
) -> None:
    blob = path.resolve()
    if sha256 is not None:
        expected = sha256
    elif blob != path.absolute() and _HEX.fullmatch(blob.name):
        expected = blob.name  # the client names blobs by the hash the Hub states
    else:
        expected = _stated_hash(repo_id, filename, revision)
    verify_file(blob, expected, cache_dir=cache_dir)


def _stated_hash(repo_id: str, filename: str, revision: str | None) -> str:
    """Ask the Hub for the hash of a file (needed where the cache has no symlinks)."""
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(repo_id, filename, revision=revision)
    try:
        return huggingface_hub.get_hf_file_metadata(url).etag or ""
    except Exception as error:
        raise WeightsUnavailableError(
            f"the hash of {filename} in {repo_id!r} cannot be had: {_reason(error)}"
        ) from error


def verify_file(path: Path, expected: str, *, cache_dir: str | Path | None = None) -> None:
    """Check a file against a sha256 (64 hex, or its first 8) or a git blob sha1 (40 hex).

    Raises:
        IntegrityError: the content is another one.
    """
    stat = path.stat()
    record = {
        "path": str(path),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "hash": expected,
    }
    name = hashlib.sha256(str(path).encode()).hexdigest()[:32] + ".json"
    remembered = cache_root(cache_dir) / "verified" / name
    try:
        if json.loads(remembered.read_text()) == record:
            return
    except (OSError, ValueError):
        pass
    actual = _git_sha1(path) if len(expected) == 40 else _checkpoints.sha256_of(path)
    if not expected or not actual.startswith(expected):
        raise IntegrityError(
            f"{path} has hash {actual[:16]}… but {expected[:16] or 'none'}… is expected; "
            "the file is damaged or was replaced"
        )
    try:
        with _checkpoints.replacing(remembered) as temporary:
            temporary.write_text(json.dumps(record))
    except OSError:
        _log.debug("cannot remember the check of %s (read-only cache)", path)


def _git_sha1(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# ------------------------------------------------------------------------------- folders


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json of a saved model: `architecture`, `tag`, `model_args`, `posezoo`.

    Raises:
        CheckpointError: not JSON, or not a posezoo configuration.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = {"architecture", "model_args", "posezoo", "origin"}
        known |= {"num_classes", "num_features", "pretrained_cfg"}  # timm's, for classifiers
        if not isinstance(config, dict) or not {"architecture", "posezoo"} <= set(config):
            raise ValueError("the keys 'architecture' and 'posezoo' are needed")
        if unknown := sorted(set(config) - known):
            raise ValueError(f"unknown key {unknown[0]!r}; valid: {', '.join(sorted(known))}")
        if not isinstance(config["architecture"], str):
            raise ValueError(f"'architecture' is {config['architecture']!r}, expected a name")
        if not isinstance(config.setdefault("model_args", {}), dict):
            raise ValueError(f"'model_args' is {config['model_args']!r}, expected an object")
        config["posezoo"] = PretrainedCfg.from_dict(config["posezoo"])
        if config["posezoo"].architecture != config["architecture"]:
            raise ValueError("'architecture' and 'posezoo.architecture' disagree")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a posezoo configuration: {error}") from error
    return config


def save_pretrained(model: nn.Module, directory: str | Path) -> Path:
    """Write `model.safetensors` and `config.json`; `create_model("local-dir:…")` reads them.

    Files are written under temporary names and moved, so nothing half done is left behind.

    Raises:
        TypeError: not a model made by `create_model`.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, PretrainedCfg):
        raise TypeError(f"{type(model).__name__} has no pretrained_cfg; make it with create_model")
    directory = Path(directory)
    origin: Mapping[str, str] = getattr(model, "origin", {})
    metadata = {"format": "pt", "posezoo": cfg.name, **origin}
    _checkpoints.write_safetensors(model.state_dict(), directory / WEIGHTS_FILE, metadata)
    config: dict[str, Any] = {
        "architecture": cfg.architecture,
        "model_args": _saved_args(model),
        "posezoo": cfg.to_dict(),
    }
    if origin:
        config["origin"] = dict(sorted(origin.items()))
    if cfg.task == "classification":
        config |= _timm_fields(model, cfg)
    with _checkpoints.replacing(directory / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return directory


def _saved_args(model: nn.Module) -> dict[str, Any]:
    """Return the model arguments, with the head size and the token mask as they are now."""
    args: dict[str, Any] = {**model.model_args, **model.settings()}  # type: ignore[dict-item, operator]
    valid = _registry.model_arguments(model.pretrained_cfg.architecture)  # type: ignore[union-attr, arg-type]
    for name in ("num_keypoints", "num_classes"):
        if name in valid and getattr(model, name) != args.get(name, valid[name]):
            args[name] = getattr(model, name)
    return args


def _timm_fields(model: nn.Module, cfg: PretrainedCfg) -> dict[str, Any]:
    """What timm's own loader wants to find in config.json of a classifier."""
    return {
        "num_classes": model.num_classes,
        "num_features": getattr(model, "num_features", 512),
        "pretrained_cfg": {
            "input_size": [3, *cfg.input.size],
            "interpolation": cfg.input.interpolation,
            "crop_pct": cfg.input.crop_pct,
            "mean": list(cfg.input.mean),
            "std": list(cfg.input.std),
            "num_classes": model.num_classes,
        },
    }


def push_to_hub(
    directory: str | Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a folder written by `save_pretrained` and return the commit's address.

    Raises:
        CheckpointError: the folder lacks model.safetensors or a valid config.json.
    """
    import huggingface_hub

    directory = Path(directory)
    if not (directory / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}; write it with save_pretrained")
    read_config(directory / CONFIG_FILE)
    api = huggingface_hub.HfApi(token=token, library_name="posezoo")
    api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=directory, ignore_patterns=[".*", "*.sha256", "*.tmp"]
    )
    return str(getattr(commit, "commit_url", commit))
