"""An authors' checkpoint in, a verified folder of ours out.

A conversion that `pretrained=True` may trust ends with a small file that holds the hash of the
weights; it is written last, so that whatever was interrupted is not looked at again. Only the
published file becomes the default of a name: one with another hash, or one of which no hash is
known and that did not come from its publisher, goes to a folder of the user's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, InputError, IntegrityError
from ..files import sha256_of, write_text
from ..version import __version__
from ..zoo.catalog import get_pretrained_cfg, list_models
from ..zoo.config import PretrainedCfg
from . import firstuse
from .cache import HASH_FILE, WEIGHTS_FILE, CacheDir, converted_dir
from .load import load_new
from .recognise import looks_like
from .saved import save_pretrained
from .tensors import read_checkpoint
from .verify import check_named_hash

__all__ = ["ConversionReport", "convert_file", "convert_own", "recognise"]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion read and wrote.

    Attributes:
        name: the set of weights that it is to be.
        directory: the folder written.
        sha256: hash of the file read.
        checked: how it was compared with the published file.
        output_sha256: hash of the weights written.
        read: tensors in the file.
        used: tensors that the model took.
        ignored: by reason, how many were left out on purpose.
    """

    name: str
    directory: Path
    sha256: str
    checked: str
    output_sha256: str
    read: int
    used: int
    ignored: dict[str, int]


def convert_own(
    source: Path, name: str | None, directory: Path | None = None, cache_dir: CacheDir = None
) -> ConversionReport:
    """Convert a file that the user has.

    Args:
        source: a `.pth` or `.safetensors` file.
        name: `architecture[.tag]`; None recognises it, see `recognise`.
        directory: where to write; None is the folder where `pretrained=True` looks first, which
            only takes the published file.
        cache_dir: as in `create_model`.

    Raises:
        IntegrityError: not the published file, and no `directory` was given.
        InputError: it fits several sets of weights, or none.
        CheckpointError: unreadable, damaged, or it does not fit the model.
    """
    digest = _hash_of(source)
    cfg = get_pretrained_cfg(name or recognise(source, digest, cache_dir))
    known = firstuse.known_hash(cfg, cache_dir)
    is_published = known is not None and digest.startswith(known)
    if not is_published and directory is None:
        what = f"its sha256 is {digest[:16]}…, the published one {known[:16]}…" if known else (
            f"no hash of it was published, to compare sha256 {digest} with"
        )  # fmt: skip
        raise IntegrityError(
            f"{source} is not known to be the published file of {cfg.name} ({what}). Give "
            "--out FOLDER and use it as local-dir:FOLDER"
        )
    return convert_file(source, cfg, directory, cache_dir=cache_dir, is_published=is_published)


def convert_file(
    source: Path,
    cfg: PretrainedCfg,
    directory: Path | None = None,
    *,
    cache_dir: CacheDir = None,
    is_published: bool = True,
) -> ConversionReport:
    """Write `model.safetensors` and `config.json` from a checkpoint.

    Args:
        source: a `.pth` or `.safetensors` file of the authors', or of ours.
        cfg: what it is to be.
        directory: where to write; None is the folder where `pretrained=True` looks first.
        cache_dir: as in `create_model`.
        is_published: the hash is the published one, or the publisher's address had the file.
            Then it is remembered; otherwise the metadata say that it is another.

    Raises:
        IntegrityError: the file name promises another hash.
        CheckpointError: unreadable, damaged, or it does not fit the model.
    """
    digest = _hash_of(source)
    check_named_hash(source, digest)
    model, report = load_new(cfg, source, {}, sha256=digest)
    address = next((str(a) for a in cfg.source.addresses), cfg.source.original_page or "")
    checked = _checked(cfg, digest, is_published=is_published)
    origin = {
        "origin_file": source.name if not is_published else cfg.source.original_filename or "",
        "origin_sha256": digest,
        "origin_check": checked,
        "origin_url": address if is_published else "",
        "license": cfg.source.license or "" if is_published else "",
        "converter": f"posezoo {__version__}",
    }
    model.origin = {key: value for key, value in origin.items() if value}
    directory = directory or converted_dir(cfg, cache_dir)
    save_pretrained(model, directory)
    output_sha256 = sha256_of(directory / WEIGHTS_FILE)
    write_text(directory / HASH_FILE, output_sha256 + "\n")
    if is_published:
        firstuse.remember(cfg, digest, cache_dir)
    return ConversionReport(
        name=cfg.name,
        directory=directory,
        sha256=digest,
        checked=checked,
        output_sha256=output_sha256,
        read=len(report.loaded) + len(report.ignored),
        used=len(report.loaded),
        ignored=dict(Counter(report.ignored.values())),
    )


def _checked(cfg: PretrainedCfg, digest: str, *, is_published: bool) -> str:
    """Say, for the metadata, how a file compares with the published one."""
    known = cfg.source.original_sha256
    if not is_published:
        return "not the published file" if known else "no published hash to compare with"
    if known is None:
        return "no published hash, as first fetched from the publisher"
    return "sha256 as published" if known == digest else "first 8 digits of sha256 as published"


def _hash_of(source: Path) -> str:
    if not source.is_file():
        raise CheckpointError(f"no weights file at {source}")
    return sha256_of(source)


def recognise(source: Path, digest: str, cache_dir: CacheDir = None) -> str:
    """Return the set of weights that a file is, by its hash, or else by its keys and shapes.

    Raises:
        InputError: it fits several sets of weights, or none.
        CheckpointError: it cannot be read.
    """
    cfgs = [get_pretrained_cfg(name) for name in list_models(tags=True)]
    for cfg in cfgs:
        known = firstuse.known_hash(cfg, cache_dir)
        if known and digest.startswith(known):
            return cfg.name
    fitting = looks_like(read_checkpoint(source))
    names = [cfg.name for cfg in cfgs if cfg.architecture in fitting and cfg.has_weights]
    if len(names) == 1:
        return names[0]
    if not fitting:
        raise InputError(f"{source} fits no registered model; say which with --model NAME")
    raise InputError(
        f"{source} has no known hash, and its keys and shapes fit {', '.join(names or fitting)}; "
        "say which with --model NAME"
    )
