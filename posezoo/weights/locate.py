"""From a configuration to a verified file: package, cache, mirror, pinned Hub copy, publishers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import IntegrityError, PoseZooError, WeightsUnavailableError
from ..zoo.address import Address
from ..zoo.catalog import OFFLINE_MODEL, get_pretrained_cfg, matching
from ..zoo.config import PretrainedCfg
from . import firstuse, hub, mirror, trust
from .addresses import by_hand
from .cache import (
    HASH_FILE,
    WEIGHTS_FILE,
    CacheDir,
    cache_root,
    converted_dir,
    locked,
    remove,
)  # fmt: skip
from .convert import convert_file
from .download import fetch
from .located import Located
from .pins import Pin, packaged_pins
from .verify import check_hash, verify_file
from .web import Web

__all__ = ["VerifyReport", "find_converted", "find_weights", "verify_cached"]

ASSETS = Path(__file__).parents[1] / "assets"
_log = logging.getLogger(__name__)


def find_weights(
    cfg: PretrainedCfg,
    cache_dir: CacheDir = None,
    *,
    web: Web | None = None,
    pins: Mapping[str, Pin] | None = None,
) -> Located:
    """Return a verified local weights file for the configuration.

    Weights that come with the package are in it. For others, looks for a converted file, then
    at the user's mirror, at the copy on the Hub that is pinned (or in the user's namespace), and
    at the authors' addresses, whose file is converted once and kept. What fails or has other
    bytes is reported and the next is tried; `trust` decides which are asked.

    Args:
        cfg: the configuration.
        cache_dir: as in `create_model`.
        web: how to ask web servers; None is the usual way.
        pins: converted weights on the Hub; None are those of the package.

    Raises:
        WeightsUnavailableError: none of them has it; the message says why, one by one.
        IntegrityError: every one of them, or what is in the package or the cache, has other
            bytes than it should.
    """
    pins = packaged_pins() if pins is None else pins
    if cfg.source.packaged and cfg.source.sha256:
        path = ASSETS / cfg.source.packaged
        verify_file(path, cfg.source.sha256, cache_dir=cache_dir)
        return Located(path=path, sha256=cfg.source.sha256)
    if not cfg.has_weights and cfg.name not in pins:
        raise WeightsUnavailableError(
            f"there are no weights for {cfg.name}: {cfg.source.unavailable}. Train it with its "
            "recipe, or load a file of your own with checkpoint="
        )
    if converted := find_converted(cfg, cache_dir):
        return converted
    failures: list[tuple[str, PoseZooError]] = []
    for where, step in _attempts(cfg, cache_dir, web or Web(), pins):
        try:
            found = step()
        except PoseZooError as error:
            failures.append((where, error))
            continue
        for failed, why in failures:
            _log.warning("%s: %s; %s has the weights of %s", failed, why, where, cfg.name)
        return found
    raise _nothing_found(cfg, failures, cache_dir)


def _attempts(
    cfg: PretrainedCfg, cache_dir: CacheDir, web: Web, pins: Mapping[str, Pin]
) -> Iterator[tuple[str, Callable[[], Located]]]:
    """Yield what is asked, in order, each with what it is called."""
    pin = pins.get(cfg.name)
    if where := mirror.mirror():
        sha256 = pin.sha256 if pin else None
        step = partial(mirror.find, where, cfg, sha256=sha256, cache_dir=cache_dir, web=web)
        yield f"mirror {where}", step
    if (copy := _copy_on_hub(cfg, pins)) is not None:
        file, sha256 = copy
        yield (
            str(file),
            partial(hub.fetch, file, sha256=sha256, cache_dir=cache_dir, web=web),
        )
    for address in cfg.source.addresses:
        yield str(address), partial(_fetch_original, cfg, address, cache_dir, web)


def _copy_on_hub(
    cfg: PretrainedCfg, pins: Mapping[str, Pin]
) -> tuple[hub.HubFile, str | None] | None:
    """Return our converted file on the Hub, with its hash: in the user's namespace, or pinned."""
    if (namespace := trust.namespace()) is not None:
        return hub.HubFile(f"{namespace}/{cfg.name}", WEIGHTS_FILE), None
    if pin := pins.get(cfg.name):
        return hub.HubFile(pin.repository, WEIGHTS_FILE, pin.revision), pin.sha256
    return None


def _nothing_found(
    cfg: PretrainedCfg, failures: list[tuple[str, PoseZooError]], cache_dir: CacheDir
) -> PoseZooError:
    """Return the error that lists what was tried, and the way out."""
    reasons: dict[str, list[str]] = {}
    for where, error in failures:
        reasons.setdefault(str(error).removeprefix(f"{where}: "), []).append(where)
    lines = [f"no weights for {cfg.name}" + (":" if failures else "")]
    lines += [f"  {', '.join(places)}: {reason}" for reason, places in reasons.items()]
    if any("no connection" in reason or "offline" in reason for reason in reasons):
        ready = f"; without a network, --model {OFFLINE_MODEL} uses what is in the package"
        lines.append(
            f"While online, `posezoo fetch {cfg.name}` puts them into {cache_root(cache_dir)}"
            + ready * (cfg.task == "pose")
        )
    elif hint := by_hand(cfg):
        lines.append(hint)
    wrong = bool(failures) and all(isinstance(e, IntegrityError) for _, e in failures)
    return (IntegrityError if wrong else WeightsUnavailableError)("\n".join(lines))


def find_converted(cfg: PretrainedCfg, cache_dir: CacheDir = None) -> Located | None:
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
    return Located(path=path, sha256=expected)


def _fetch_original(cfg: PretrainedCfg, address: Address, cache_dir: CacheDir, web: Web) -> Located:
    """Fetch the authors' file from one address, convert it, keep the result.

    Several processes may ask at once: one works, the others wait and use its result.

    Raises:
        WeightsUnavailableError: the address does not have it, or may not be asked.
        IntegrityError, CheckpointError: what was fetched is not what it should be.
    """
    known = firstuse.known_hash(cfg, cache_dir)
    remembered = known if known != cfg.source.original_sha256 else None
    if why := trust.objection(address, cfg.source, remembered):
        raise WeightsUnavailableError(why)
    folder = converted_dir(cfg, cache_dir)
    try:
        with locked(folder):
            if found := find_converted(cfg, cache_dir):
                return found
            original = folder / (cfg.source.original_filename or "original.pth")
            if original.name == WEIGHTS_FILE:
                original = folder / f"original.{WEIGHTS_FILE}"
            try:
                fetch(address, original, sha256=known, cache_dir=cache_dir, web=web)
                report = convert_file(original, cfg, folder, cache_dir=cache_dir)
            finally:
                remove(original, cache_dir)
    except OSError as error:
        raise WeightsUnavailableError(
            f"{folder} cannot be written: {error.strerror or error}"
        ) from error
    return Located(path=folder / WEIGHTS_FILE, sha256=report.output_sha256)


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """`state` is "fine", "damaged" or "absent"; `detail` the file, or what is wrong with it."""

    name: str
    state: str
    detail: str


def verify_cached(patterns: list[str], cache_dir: CacheDir = None) -> Iterator[VerifyReport]:
    """Hash again what this machine has of every matching `architecture.tag`; nothing is fetched.

    Absent weights are reported only where the patterns name a single variant.

    Raises:
        UnknownModelError: a pattern that matches nothing.
    """
    names = matching(patterns)
    for name in names:
        present = list(_present(get_pretrained_cfg(name), cache_dir))
        for path, expected in present:
            try:
                check_hash(path, expected)
                yield VerifyReport(name=name, state="fine", detail=str(path))
            except IntegrityError as error:
                yield VerifyReport(name=name, state="damaged", detail=str(error))
        if not present and len(names) == 1:
            yield VerifyReport(name=name, state="absent", detail="nothing in the cache")


def _present(cfg: PretrainedCfg, cache_dir: CacheDir) -> Iterator[tuple[Path, str]]:
    """Yield weights files of a variant on this machine with the hash that they should have."""
    if cfg.source.packaged and cfg.source.sha256:
        yield ASSETS / cfg.source.packaged, cfg.source.sha256
    folder = converted_dir(cfg, cache_dir)
    if (folder / HASH_FILE).is_file() and (folder / WEIGHTS_FILE).is_file():
        yield folder / WEIGHTS_FILE, (folder / HASH_FILE).read_text().strip()
    if (copy := _copy_on_hub(cfg, packaged_pins())) is not None:
        yield from hub.cached(*copy, cache_dir=cache_dir)
