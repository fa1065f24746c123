"""From a configuration to a verified file: package, converted file, Hub, the authors' addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ..errors import IntegrityError, WeightsUnavailableError
from ..zoo.catalog import get_pretrained_cfg, list_models
from ..zoo.config import PretrainedCfg
from . import hub
from .addresses import by_hand, hub_id
from .cache import HASH_FILE, WEIGHTS_FILE, CacheDir, converted_dir
from .convert import convert_file
from .download import Web, fetch
from .verify import check_hash, verify_file

__all__ = ["VerifyReport", "fetch_original", "find_converted", "find_weights", "verify_cached"]

_ASSETS = Path(__file__).parents[1] / "assets"


def find_weights(cfg: PretrainedCfg, cache_dir: CacheDir = None, *, web: Web | None = None) -> Path:
    """Return a verified local weights file for the configuration.

    Weights that come with the package are in it. For others, looks for a converted file, then
    on the Hub, then at the authors' addresses, whose file is converted once and kept.

    Raises:
        WeightsUnavailableError: none of them has it; the message says why, one by one.
        IntegrityError: one of them has other bytes than it should.
        CheckpointError: the authors' file cannot be read or does not fit.
    """
    if not cfg.has_weights:
        raise WeightsUnavailableError(
            f"there are no weights for {cfg.name}: {cfg.source.unavailable}. Train it with its "
            "recipe, or load a file of your own with checkpoint="
        )
    if cfg.source.packaged:
        return _ASSETS / cfg.source.packaged
    if converted := find_converted(cfg, cache_dir):
        return converted
    failures = []
    try:
        return hub.fetch(_hub_file(cfg), sha256=cfg.source.sha256, cache_dir=cache_dir)
    except WeightsUnavailableError as error:
        failures.append(str(error))
    if not hub.is_offline():
        try:
            return fetch_original(cfg, cache_dir, web=web)
        except WeightsUnavailableError as error:
            failures.append(str(error))
    raise WeightsUnavailableError(
        ". ".join(filter(None, [f"no weights for {cfg.name}: {'; '.join(failures)}", by_hand(cfg)]))
    )


def _hub_file(cfg: PretrainedCfg) -> hub.HubFile:
    return hub.HubFile(repo_id=hub_id(cfg), filename=WEIGHTS_FILE, revision=cfg.source.hf_revision)


def find_converted(cfg: PretrainedCfg, cache_dir: CacheDir = None) -> Path | None:
    """Return the converted weights of a variant if they are in the cache and whole.

    Raises:
        IntegrityError: they were changed after the conversion.
    """
    folder = converted_dir(cfg, cache_dir)
    try:
        expected = (folder / HASH_FILE).read_text().strip()
    except OSError:
        return None
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        verify_file(path, expected, cache_dir=cache_dir)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; delete {folder} to fetch the weights again") from error
    return path


def fetch_original(
    cfg: PretrainedCfg, cache_dir: CacheDir = None, *, web: Web | None = None
) -> Path:
    """Fetch the authors' file from the first address that has it, convert it, keep the result.

    Several processes may ask at once: one works, the others wait and use its result.

    Raises:
        WeightsUnavailableError: no address has it; all are named.
        IntegrityError, CheckpointError: what was fetched is not what it should be.
    """
    folder = converted_dir(cfg, cache_dir)
    if not cfg.source.original_urls:
        raise WeightsUnavailableError("the authors' file can be fetched with a browser only")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            return find_converted(cfg, cache_dir) or _fetch_first(cfg, folder, cache_dir, web)
    except OSError as error:
        raise WeightsUnavailableError(f"{folder} cannot be written: {error}") from error


def _fetch_first(cfg: PretrainedCfg, folder: Path, cache_dir: CacheDir, web: Web | None) -> Path:
    source, failures = cfg.source, []
    download = folder / (source.original_filename or "original.pth")
    for address in source.original_urls:
        try:
            original = fetch(
                address, download, sha256=source.original_sha256, cache_dir=cache_dir, web=web
            )
        except WeightsUnavailableError as error:
            failures.append(str(error))
            continue
        convert_file(original, cfg, folder, url=address)
        download.unlink(missing_ok=True)
        return folder / WEIGHTS_FILE
    raise WeightsUnavailableError("; ".join(failures))


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """`state` is "fine", "damaged" or "absent"; `detail` the file, or what is wrong with it."""

    name: str
    state: str
    detail: str


def verify_cached(patterns: list[str], cache_dir: CacheDir = None) -> Iterator[VerifyReport]:
    """Hash what is cached of every matching `architecture.tag` again; nothing is fetched.

    Absent weights are reported only where the patterns name a single variant.
    """
    names = list_models(patterns, tags=True)
    for name in names:
        cached = list(_cached(get_pretrained_cfg(name), cache_dir))
        for path, expected in cached:
            try:
                check_hash(path, expected)
                yield VerifyReport(name=name, state="fine", detail=str(path))
            except IntegrityError as error:
                yield VerifyReport(name=name, state="damaged", detail=str(error))
        if not cached and len(names) == 1:
            yield VerifyReport(name=name, state="absent", detail="nothing in the cache")


def _cached(cfg: PretrainedCfg, cache_dir: CacheDir) -> Iterator[tuple[Path, str]]:
    """Yield cached weights files of a variant with the hash that they should have."""
    folder = converted_dir(cfg, cache_dir)
    if (folder / HASH_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
        yield folder / WEIGHTS_FILE, (folder / HASH_FILE).read_text().strip()
    blob = hub.cached(_hub_file(cfg), cache_dir)
    if blob is not None:
        yield blob, cfg.source.sha256 or blob.name
