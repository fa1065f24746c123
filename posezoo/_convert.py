"""What `posezoo convert` does: an authors' checkpoint in, a verified folder of ours out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import _checkpoints, _factory, _hub, _registry

__all__ = ["ConversionReport", "convert_file"]


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion read and wrote. `ignored` counts tensors by reason."""

    directory: Path
    sha256: str
    output_sha256: str
    read: int
    used: int
    ignored: dict[str, int]


def convert_file(source: Path, name: str, directory: Path | None = None) -> ConversionReport:
    """Convert a checkpoint for the model `name` and write `model.safetensors`, `config.json`.

    Args:
        source: a `.pth` or `.safetensors` file of the authors', or of ours.
        name: registered `architecture[.tag]`.
        directory: where to write; default: the place where `pretrained=True` looks first.

    Raises:
        UnknownModelError: no such name.
        IntegrityError: the file name or the configuration promises another hash.
        CheckpointError: unreadable, damaged, or it does not fit the model.
    """
    cfg = _registry.get_pretrained_cfg(name)
    if not source.is_file():
        raise _checkpoints.CheckpointError(f"no weights file at {source}")
    digest = _checkpoints.sha256_of(source)
    _checkpoints.check_named_hash(source, digest)
    model, report = _factory.load_into_new(cfg, source)
    model.origin = _hub.origin_of(cfg, source.name, digest)  # type: ignore[assignment]
    directory = directory or _hub.converted_dir(cfg)
    _hub.save_pretrained(model, directory)
    return ConversionReport(
        directory=directory,
        sha256=digest,
        output_sha256=_checkpoints.sha256_of(directory / _hub.WEIGHTS_FILE),
        read=len(report.loaded) + len(report.ignored),
        used=len(report.loaded),
        ignored=dict(Counter(report.ignored.values())),
    )
