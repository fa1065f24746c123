"""An authors' checkpoint in, a verified folder of ours out.

A conversion that `pretrained=True` may trust ends with a small file that holds the hash of the
weights; it is written last, so that whatever was interrupted is not looked at again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from ..errors import IntegrityError, WeightsUnavailableError
from ..zoo import catalog as _registry
from ..zoo.config import PretrainedCfg
from . import download as _origins
from . import files as _checkpoints
from . import hub as _hub

__all__ = [
    "ConversionReport",
    "convert_file",
    "fetch_and_convert",
    "find_converted",
    "load_into_new",
]

HASH_FILE = _hub.WEIGHTS_FILE + ".sha256"


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion read and wrote. `ignored` counts tensors by reason."""

    directory: Path
    sha256: str
    output_sha256: str
    read: int
    used: int
    ignored: dict[str, int]


def convert_file(
    source: Path, name: str, directory: Path | None = None, *, url: str = ""
) -> ConversionReport:
    """Convert a checkpoint for the model `name` and write `model.safetensors`, `config.json`.

    Args:
        source: a `.pth` or `.safetensors` file of the authors', or of ours.
        name: registered `architecture[.tag]`.
        directory: where to write; default: the place where `pretrained=True` looks first.
        url: where the file came from, for the record.

    Raises:
        UnknownModelError: no such name.
        IntegrityError: the file name promises another hash.
        CheckpointError: unreadable, damaged, or it does not fit the model.
    """
    cfg = _registry.get_pretrained_cfg(name)
    if not source.is_file():
        raise _checkpoints.CheckpointError(f"no weights file at {source}")
    digest = _checkpoints.sha256_of(source)
    _checkpoints.check_named_hash(source, digest)
    model, report = load_into_new(cfg, source, mapped=True)
    model.origin = _hub.origin_of(cfg, source.name, digest, url)  # type: ignore[assignment]
    directory = directory or _hub.converted_dir(cfg)
    _hub.save_pretrained(model, directory)
    output_sha256 = _checkpoints.sha256_of(directory / _hub.WEIGHTS_FILE)
    with _checkpoints.replacing(directory / HASH_FILE) as temporary:
        temporary.write_text(output_sha256 + "\n")
    return ConversionReport(
        directory=directory,
        sha256=digest,
        output_sha256=output_sha256,
        read=len(report.loaded) + len(report.ignored),
        used=len(report.loaded),
        ignored=dict(Counter(report.ignored.values())),
    )


def find_converted(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path | None:
    """Return the converted weights of a variant if they are there and whole.

    Raises:
        IntegrityError: they were changed after the conversion.
    """
    folder = _hub.converted_dir(cfg, cache_dir)
    try:
        expected = (folder / HASH_FILE).read_text().strip()
    except OSError:
        return None
    path = folder / _hub.WEIGHTS_FILE
    if not path.is_file():
        return None
    try:
        _hub.verify_file(path, expected, cache_dir=cache_dir)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; delete {folder} to fetch the weights again") from error
    return path


def fetch_and_convert(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """Fetch the authors' file from the first place that has it, convert it, and keep the result.

    Several processes may ask at once: one works, the others wait and use its result.

    Raises:
        WeightsUnavailableError: no place has it; all are named.
        IntegrityError, CheckpointError: what was fetched is not what it should be.
    """
    folder = _hub.converted_dir(cfg, cache_dir)
    if not cfg.source.original_urls:
        raise WeightsUnavailableError("the authors' file can only be had with a browser")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            return find_converted(cfg, cache_dir) or _fetch_first(cfg, folder, cache_dir)
    except OSError as error:
        raise WeightsUnavailableError(f"{folder} cannot be written: {error}") from error


def _fetch_first(cfg: PretrainedCfg, folder: Path, cache_dir: str | Path | None) -> Path:
    failures = []
    for url in cfg.source.original_urls:
        download = folder / (cfg.source.original_filename or "original.pth")
        try:
            original = _origins.fetch_original(
                url, download, sha256=cfg.source.original_sha256, cache_dir=cache_dir
            )
        except WeightsUnavailableError as error:
            failures.append(str(error))
            continue
        convert_file(original, cfg.name, folder, url=url)
        download.unlink(missing_ok=True)
        return folder / _hub.WEIGHTS_FILE
    raise WeightsUnavailableError("; ".join(failures))


# ------------------------------------------------------------------------------- loading


def load_into_new(
    cfg: PretrainedCfg, path: Path, /, *, mapped: bool = False, **args: Any
) -> tuple[nn.Module, _checkpoints.LoadReport]:
    """Build without memory, load a file strictly, and give the derived buffers memory.

    With `mapped` the weights of a pickle stay in the file: enough to write them down again.
    """
    with torch.device("meta"):
        model = _registry.build_model(cfg.architecture, **{**cfg.model_args, **args})
    model.pretrained_cfg = cfg
    state = _checkpoints.read_checkpoint(path, mapped=mapped)
    report = _checkpoints.load_state(model, state, str(path))
    for module in model.modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[key] = torch.zeros_like(buffer, device="cpu")
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    model.origin = _origin(path, report)
    return model.eval(), report


def _origin(path: Path, report: _checkpoints.LoadReport) -> dict[str, str]:
    """Return where the weights came from: our file's own record, or the file itself."""
    if report.converted_from is None and path.suffix == ".safetensors":
        metadata = _checkpoints.read_metadata(path)
        return {k: v for k, v in metadata.items() if k not in ("format", "posezoo")}
    return {"origin_file": path.name, "origin_sha256": _checkpoints.sha256_of(path)}
