"""PyTorch files, of today (zip archives) and from before 1.6, read from memory.

The memory that a file was read into goes back page by page as its tensors are copied out, so
that no second copy is ever held. Nothing in a file is executed, and torch's own reader with its
list of allowed names, one for the whole process, is not used.
"""

from __future__ import annotations

import io
import math
import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .unpickle import Foreign, unpickle

__all__ = ["memory_of_size", "read_pickle"]

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of files from before 1.6
_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
    "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip


def memory_of_size(size: int) -> mmap.mmap:
    """Return memory of the process that can be read like a file; no file is mapped."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(data: mmap.mmap, start: int, size: int) -> None:
    """Return the whole pages in `size` bytes to the system; they are zero afterwards."""
    first, last = -(-start // mmap.PAGESIZE), (start + size) // mmap.PAGESIZE
    if sys.platform == "linux" and first < last:
        data.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def read_pickle(data: mmap.mmap, where: str) -> Any:
    """Return what a PyTorch file holds; objects that are no plain values are `Foreign`.

    Args:
        data: the content of the file, in `memory_of_size`; it is used up.
        where: its path, for messages.

    Raises:
        CheckpointError: damaged, or another kind of file.
    """
    with _damage(where):
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data, where)
        return _read_legacy(data, where)


@contextmanager
def _damage(where: str) -> Iterator[None]:
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # of zipfile, pickletools, struct, torch: any, where bytes are odd
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"cannot read {where} as a PyTorch file ({reason}); it is truncated or damaged: "
            "fetch it again"
        ) from error


def _read_zip(data: mmap.mmap, where: str) -> Any:
    archive: Any = data  # a file as far as zipfile is concerned
    members = {info.filename: info for info in zipfile.ZipFile(archive).infolist()}
    main = min((n for n in members if n.split("/")[-1] == "data.pkl"), key=len, default="")
    folder = main.removesuffix("data.pkl")
    _refuse_program(members, folder if main else None, where)
    storages: dict[str, Tensor] = {}

    def storage(identity: Any) -> Any:
        _, dtype, key, _, count = identity
        if isinstance(dtype, Foreign):
            return dtype
        if key not in storages:
            storages[key] = _member(data, members[f"{folder}data/{key}"])
        return _typed(storages[key], dtype, count)

    order = members.get(f"{folder}byteorder")
    if order is not None and _member(data, order).numpy().tobytes() != b"little":
        raise CheckpointError(f"{where} was written on a big-endian machine; ask for safetensors")
    pickled = _member(data, members[main]).numpy().tobytes()
    return unpickle(io.BytesIO(pickled), _known(), storage)


def _refuse_program(members: dict[str, Any], folder: str | None, where: str) -> None:
    """Name archives that are no weights."""
    weights = "posezoo loads weights: save the state_dict() of the model that it was made from"
    last = {name.split("/")[-1] for name in members}
    if {"archive_format", "serialized_exported_program.json"} & last:
        raise CheckpointError(
            f"{where} is a program of torch.export (.pt2), which runs by itself with "
            f"torch.export.load; {weights}"
        )
    if folder is None:
        names = ", ".join(sorted(members)[:4]) or "nothing"
        raise CheckpointError(
            f"{where} is a zip archive, not a PyTorch file: it holds {names}; unpack it, and give "
            "the weights file"
        )
    if f"{folder}constants.pkl" in members:
        raise CheckpointError(
            f"{where} is a TorchScript program, which runs by itself with torch.jit.load; {weights}"
        )


def _member(data: mmap.mmap, info: zipfile.ZipInfo) -> Tensor:
    """Return the bytes of a file in the archive."""
    start = info.header_offset
    if info.compress_type != zipfile.ZIP_STORED or data[start : start + 4] != b"PK\x03\x04":
        raise ValueError(f"{info.filename} is compressed, or its header is lost")
    start += 30 + sum(struct.unpack("<HH", data[start + 26 : start + 30]))  # name and extra field
    if start + info.file_size > len(data):
        raise ValueError(f"{info.filename} ends behind the end of the file")
    if not info.file_size:
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    part = torch.frombuffer(data, dtype=torch.uint8, count=info.file_size, offset=start)
    if info.CRC and zlib.crc32(part.numpy().data) != info.CRC:  # 0 where torch computed none
        raise ValueError(f"{info.filename} does not agree with its checksum")
    own = part.clone()
    _give_back(data, start, info.file_size)
    return own


def _typed(raw: Tensor, dtype: torch.dtype, count: int) -> Tensor:
    """Return the first `count` numbers in bytes."""
    raw = raw[: count * dtype.itemsize]
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"the data of {count} numbers ends early")
    return raw.view(dtype)


def _read_legacy(data: mmap.mmap, where: str) -> Any:
    """Read four pickles and a list of keys, then for each key its length and its bytes."""
    known: dict[str, Any] = {}
    if unpickle(data, known) != _MAGIC:  # type: ignore[arg-type]
        raise CheckpointError(
            f"{where} is a pickle, but not one of PyTorch; save weights with safetensors or "
            "torch.save"
        )
    _, system = unpickle(data, known), unpickle(data, known)  # type: ignore[arg-type]
    if not system["little_endian"]:
        raise CheckpointError(f"{where} was written on a big-endian machine; ask for safetensors")
    storages: dict[str, Tensor] = {}
    total = 0

    def storage(identity: Any) -> Any:
        nonlocal total
        if identity[0] == "module":  # the class of a pickled module, with its source
            return identity[1]
        _, dtype, key, _, count, *view = identity
        if isinstance(dtype, Foreign):
            return dtype
        if key not in storages:
            total += count * dtype.itemsize
            if count < 0 or total > len(data):
                raise ValueError("it names more data than it has")
            storages[key] = torch.empty(count, dtype=dtype, device="cpu")
        if not view or view[0] is None:
            return storages[key]
        _, start, size = view[0]
        return storages[key][start : start + size]

    content = unpickle(data, _known(), storage)  # type: ignore[arg-type]
    for key in unpickle(data, known):  # type: ignore[arg-type]
        (count,) = struct.unpack("<q", data.read(8))
        if count != len(storages[key]):
            raise ValueError(f"the data of {key} has another length")
        into, start = storages[key].view(torch.uint8), data.tell()
        if count:
            data.seek(start + len(into))
            into.copy_(torch.frombuffer(data, dtype=torch.uint8, count=len(into), offset=start))
            _give_back(data, start, len(into))
    return content


def _known() -> dict[str, Any]:
    """What names in a pickle mean; all others become `Foreign`."""
    known: dict[str, Any] = {"collections.OrderedDict": _dict}
    known["torch.storage.UntypedStorage"] = torch.uint8
    for name, dtype in _STORAGES.items():
        known[f"torch.{name}Storage"] = known[f"torch.cuda.{name}Storage"] = dtype
        known[str(dtype)] = dtype
    rebuilders: dict[str, Callable[..., Any]] = {
        "_rebuild_tensor": _strided,
        "_rebuild_tensor_v2": _strided,
        "_rebuild_tensor_v3": _strided_of_type,
        "_rebuild_parameter": _data,
        "_rebuild_parameter_with_state": _data,
    }
    return known | {f"torch._utils.{name}": function for name, function in rebuilders.items()}


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    return {key: value for key, value in pairs if isinstance(key, (str, int))}


def _data(data: Any, *_: Any) -> Any:
    """A parameter is its tensor."""
    return data


def _strided(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
    """Return a tensor of `size` and `stride` that begins `offset` numbers into a storage."""
    if isinstance(storage, Foreign):
        return storage
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= len(storage)):
        raise ValueError(f"a tensor of shape {tuple(size)} reaches outside its data")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _strided_of_type(
    storage: Any, offset: int, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    """Do what `_strided` does where the storage is bytes; types that torch lacks stay foreign."""
    if isinstance(dtype, Foreign):
        return dtype
    return _strided(_typed(storage, dtype, len(storage) // dtype.itemsize), offset, size, stride)
