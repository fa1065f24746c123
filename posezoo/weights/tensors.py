"""Weights files: read once, in one pass, and hashed on the way; safetensors are also written.

A file is opened once, and what is hashed is what is used, so a file that is replaced or cut
while it is read gives an error and never a mixture. Formats are told apart by content.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, IntegrityError
from ..files import replacing, sha256_of
from ..zoo.defaults import usual_torch
from .pickles import memory_of_size, read_pickle
from .wrappers import TYPES, check_type, unwrap_state

__all__ = ["WeightsFile", "read_checkpoint", "read_metadata", "read_weights", "write_safetensors"]

_KINDS = {name: dtype for dtype, name in TYPES.items()}
_LONGEST_HEADER = 100_000_000  # of the format


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What a weights file held when it was read.

    Attributes:
        path: the file.
        sha256: of all its bytes, 64 hex digits.
        tensors: under the model's own keys.
        metadata: the text of a safetensors file (origin, licence, converter version).
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


@usual_torch()
def read_weights(path: str | Path, *, sha256: str | None = None) -> WeightsFile:
    """Read a weights file, out of whatever wrapper the tensors are in.

    Accepts safetensors and PyTorch files; `unwrap_state` says where tensors are looked for.
    Nothing in the file is executed.

    Args:
        path: the file.
        sha256: its hash, 64 hex digits or the first 8, if it is known.

    Raises:
        IntegrityError: the bytes that were read have another hash.
        CheckpointError: the file is missing, truncated, changed while it was read, not a weights
            file, or holds no state dict; the message says what it looks like.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; give a weights file, or name it local-dir:{path}"
        )
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            is_safetensors = _is_safetensors(file, before.st_size, path)
            read = _read_safetensors if is_safetensors else _read_pytorch
            found = read(file, before.st_size, path, sha256)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CheckpointError(f"{path} was changed while it was read; wait, and load it again")
    return found


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file; see `read_weights`."""
    return read_weights(path).tensors


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text metadata of a safetensors file (origin, licence, converter version).

    Raises:
        CheckpointError: it is none.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if _is_safetensors(file, size, Path(path)):
                return _read_header(file, size, Path(path)).metadata
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    raise CheckpointError(f"{path} is a PyTorch file, not safetensors")


def _is_safetensors(file: io.BufferedReader, size: int, path: Path) -> bool:
    """Tell safetensors from PyTorch files by the first bytes; name what is neither."""
    head = file.read(512)
    file.seek(0)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes); fetch it again")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(
            f"{path} is an HTML page, not weights (a download page or an error page was saved); "
            "fetch the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer of {size} bytes, not the weights; run `git lfs pull`"
        )
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 9 else 0
    if head[8:9] == b"{" and length < _LONGEST_HEADER:
        if 8 + length > size:
            raise CheckpointError(
                f"{path} is truncated: its safetensors header needs {8 + length} bytes, "
                f"the file has {size}; fetch it again"
            )
        return True
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":  # zip archive, or a bare pickle
        if path.suffix == ".safetensors":
            raise CheckpointError(
                f"{path} is called safetensors but holds a PyTorch file; somebody may have "
                "replaced it: fetch it again, or name it .pth if you trust it"
            )
        return False
    raise CheckpointError(
        f"{path} is neither safetensors nor a PyTorch file (first bytes {head[:8]!r}); "
        "it is damaged or something else"
    )


def _read_pytorch(
    file: io.BufferedReader, size: int, path: Path, sha256: str | None
) -> WeightsFile:
    """Read a PyTorch file into memory, then take it apart."""
    data = memory_of_size(size)
    with memoryview(data) as view:
        file.readinto(view)
        digest = hashlib.sha256(view).hexdigest()
    _compare(digest, sha256, path)
    state = unwrap_state(read_pickle(data, str(path)), str(path))
    return WeightsFile(path=path, sha256=digest, tensors=state)


def _compare(found: str, expected: str | None, path: Path) -> None:
    if expected is not None and not found.startswith(expected):
        raise IntegrityError(
            f"{path} has hash {found[:16]}… but {expected[:16]}… is expected; the file is damaged "
            "or was replaced: delete it and fetch it again"
        )


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The beginning of a safetensors file: its bytes, and for each key (in the order of the
    data) the type and shape; the data have no gaps."""

    raw: bytes
    tensors: dict[str, tuple[torch.dtype, list[int]]]
    metadata: dict[str, str]


def _read_header(file: io.BufferedReader, size: int, path: Path) -> _Header:
    """Read and check the header; the file stays at the first byte of the data.

    Raises:
        CheckpointError: it contradicts itself or the size of the file.
    """
    raw = file.read(8)
    raw += file.read(struct.unpack("<Q", raw)[0])
    try:
        entries = json.loads(raw[8:])
        metadata = {str(k): str(v) for k, v in entries.pop("__metadata__", {}).items()}
        position, tensors = 0, {}
        for key in sorted(entries, key=lambda key: list(entries[key]["data_offsets"])):
            (start, end), shape = entries[key]["data_offsets"], entries[key]["shape"]
            check_type(str(entries[key]["dtype"]), key, str(path))
            dtype = _KINDS[entries[key]["dtype"]]
            if start != position or not _is_shape(shape):
                raise ValueError(f"the data or the shape of {key!r} is impossible")
            position += math.prod(shape) * dtype.itemsize
            if end != position:
                raise ValueError(f"{key!r} of shape {shape} is said to end at {end}")
            tensors[key] = dtype, shape
        if len(raw) + position != size:
            raise ValueError(f"{len(raw) + position} bytes are announced, the file has {size}")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path} as safetensors ({str(error)[:200]}); "
            "it is truncated or damaged: fetch it again"
        ) from error
    return _Header(raw=raw, tensors=tensors, metadata=metadata)


def _is_shape(shape: list[int]) -> bool:
    return all(type(n) is int and n >= 0 for n in shape) and math.prod(filter(None, shape)) < 2**60


def _read_safetensors(
    file: io.BufferedReader, size: int, path: Path, sha256: str | None
) -> WeightsFile:
    """Read each tensor into memory of its own, so that no second copy is ever held."""
    header = _read_header(file, size, path)
    digest = hashlib.sha256(header.raw)
    state = {}
    for key, (dtype, shape) in header.tensors.items():
        tensor = torch.empty(shape, dtype=dtype, device="cpu")
        view = _bytes_of(tensor)
        if len(view) and file.readinto(view) != len(view):
            raise CheckpointError(f"{path} was cut while it was read; load it again")
        digest.update(view)
        state[key] = tensor
    _compare(digest.hexdigest(), sha256, path)
    return WeightsFile(
        path=path,
        sha256=digest.hexdigest(),
        tensors=unwrap_state(state, str(path)),
        metadata=header.metadata,
    )


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a tensor without gaps."""
    flat = tensor.reshape(-1)
    return flat.view(torch.uint8).numpy().data if len(flat) else memoryview(b"")


def write_safetensors(
    state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors, whole or not at all; the same input gives the same bytes.

    The library's own writer orders metadata by a random hash and holds a second copy of all
    tensors. This one writes one after the other, widest type first (alignment), then by key,
    and reads what is on the disk before it counts as written.

    Raises:
        CheckpointError: a tensor of a kind that is not written, or the disk holds other bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    order = sorted(state, key=lambda key: (-state[key].element_size(), key))
    for key in order:
        tensor = state[key]
        check_type(TYPES.get(tensor.dtype, str(tensor.dtype)), key, str(path))
        end = offset + tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with replacing(Path(path)) as temporary:
        with open(temporary, "wb") as file:
            for part in _parts(text, [state[key] for key in order]):
                digest.update(part)
                file.write(part)
        with open(temporary, "rb") as file:
            keys = _read_header(file, temporary.stat().st_size, temporary).tensors
        if set(keys) != set(state) or sha256_of(temporary) != digest.hexdigest():
            raise CheckpointError(
                f"{path} was not written: the disk gives other bytes than it was given"
            )


def _parts(text: bytes, tensors: list[Tensor]) -> Iterator[bytes | memoryview]:
    """Yield a file in pieces: the header with its length, then the data of each tensor."""
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors:
        yield _bytes_of(tensor.detach().cpu().contiguous())
