"""An authors' checkpoint in, a verified folder of ours out.

A conversion that `pretrained=True` may trust ends with a small file that holds the hash of the
weights; it is written last, so that whatever was interrupted is not looked at again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..version import __version__
from ..zoo.config import PretrainedCfg
from .cache import HASH_FILE, WEIGHTS_FILE, converted_dir
from .files import sha256_of, write_text
from .load import load_new
from .saved import save_pretrained
from .verify import check_named_hash

__all__ = ["ConversionReport", "convert_file"]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion read and wrote.

    Attributes:
        directory: the folder written.
        sha256: hash of the file read.
        output_sha256: hash of the weights written.
        read: tensors in the file.
        used: tensors that the model took.
        ignored: by reason, how many were left out on purpose.
    """

    directory: Path
    sha256: str
    output_sha256: str
    read: int
    used: int
    ignored: dict[str, int]


def convert_file(
    source: Path, cfg: PretrainedCfg, directory: Path | None = None, *, url: str = ""
) -> ConversionReport:
    """Write `model.safetensors` and `config.json` from a checkpoint.

    Args:
        source: a `.pth` or `.safetensors` file of the authors', or of ours.
        cfg: what it is to be.
        directory: where to write; None is the folder where `pretrained=True` looks first.
        url: where the file came from, for the record; empty is the first address known.

    Raises:
        IntegrityError: the file name promises another hash.
        CheckpointError: unreadable, damaged, or it does not fit the model.
    """
    if not source.is_file():
        raise CheckpointError(f"no weights file at {source}")
    digest = sha256_of(source)
    check_named_hash(source, digest)
    model, report = load_new(cfg, source, {}, sha256=digest)
    origin = {
        "origin_file": source.name,
        "origin_sha256": digest,
        "origin_url": url or next(iter(cfg.source.original_urls), ""),
        "license": cfg.source.license or "",
        "converter": f"posezoo {__version__}",
    }
    model.origin = {key: value for key, value in origin.items() if value}
    directory = directory or converted_dir(cfg)
    save_pretrained(model, directory)
    output_sha256 = sha256_of(directory / WEIGHTS_FILE)
    write_text(directory / HASH_FILE, output_sha256 + "\n")
    return ConversionReport(
        directory=directory,
        sha256=digest,
        output_sha256=output_sha256,
        read=len(report.loaded) + len(report.ignored),
        used=len(report.loaded),
        ignored=dict(Counter(report.ignored.values())),
    )
