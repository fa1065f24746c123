"""Files of tensors: safetensors and pickles are read, safetensors are written.

The two kinds are told apart by content, not by name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import CheckpointError
from .files import replacing
from .pickles import read_pickle

__all__ = ["read_checkpoint", "read_metadata", "write_safetensors"]

_WRAPPERS = ("state_dict", "model", "module")
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_checkpoint(path: str | Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a weights file, out of whatever wrapper they are in.

    Accepts safetensors and pickles that hold a state dict, bare or below `state_dict`, `model`
    or `module`. A leading `module.` of the keys is removed. Nothing in the file is executed.

    Args:
        path: the file.
        mapped: leave the tensors of a pickle in the file until they are used, which saves
            memory where they are only written down again.

    Raises:
        CheckpointError: the file is missing, truncated, not a weights file, or holds no
            state dict; the message says what it looks like.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder; give a weights file, or name it local-dir:{path}"
        )
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    if _is_safetensors(path):
        state: Mapping[str, Tensor] = _read_safetensors(path)
    else:
        state = _unwrap(read_pickle(path, mapped=mapped), path)
    return {key.removeprefix("module."): value for key, value in state.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text metadata of a safetensors file (origin, licence, converter version).

    Raises:
        CheckpointError: it is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise CheckpointError(f"cannot read {path} as safetensors: {error}") from error


def _is_safetensors(path: Path) -> bool:
    """Tell safetensors from pickle by the first bytes; name what is neither."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
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
    if head[8:9] == b"{" and length < 100_000_000:
        if 8 + length > size:
            raise CheckpointError(
                f"{path} is truncated: its safetensors header needs {8 + length} bytes, "
                f"the file has {size}; fetch it again"
            )
        return True
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":  # zip archive, or a bare pickle
        return False
    raise CheckpointError(
        f"{path} is neither safetensors nor a PyTorch file (first bytes {head[:8]!r}); "
        "it is damaged or something else"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read tensors into memory of their own.

    The library checks the header but maps the file, which doubles the memory until it is copied
    and crashes a running model if somebody cuts the file.
    """
    try:
        with safe_open(path, framework="pt") as checked, open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            state = {}
            for key in checked.keys():
                start, end = header[key]["data_offsets"]
                tensor = torch.empty(end - start, dtype=torch.uint8)
                file.seek(8 + length + start)
                if file.readinto(tensor.numpy().data) != end - start:
                    raise ValueError(f"the data of {key!r} ends early")
                kind = _TYPES[header[key]["dtype"]]
                state[key] = tensor.view(kind).reshape(header[key]["shape"])
            return state
    except MemoryError:
        raise
    except Exception as error:  # the Rust reader raises its own type
        raise CheckpointError(
            f"cannot read {path} as safetensors ({error!r}); "
            "it is truncated or damaged: fetch it again"
        ) from error


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _unwrap(content: Any, path: Path) -> Mapping[str, Tensor]:
    inside = [content.get(w) for w in _WRAPPERS] if isinstance(content, Mapping) else []
    for candidate in (content, *inside):
        if _is_state(candidate):
            state: Mapping[str, Tensor] = candidate
            return state
    found = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        found = ", ".join(sorted(map(str, content))[:8]) or "nothing"
    raise CheckpointError(
        f"{path} holds no state dict, neither bare nor below {', '.join(_WRAPPERS)}; "
        f"it holds {found}"
    )


def write_safetensors(
    state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors, whole or not at all; the same input gives the same bytes.

    The library's own writer orders metadata by a random hash and holds a second copy of all
    tensors. This one writes one after the other, widest type first (alignment), then by key.
    """
    kinds = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    order = sorted(state, key=lambda key: (-state[key].element_size(), key))
    for key in order:
        tensor = state[key]
        end = offset + tensor.numel() * tensor.element_size()
        header[key] = {
            "dtype": kinds[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            flat = state[key].detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
