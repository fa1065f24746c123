"""Weight files: read without executing anything, convert, load strictly, report.

`.safetensors` files and pickles (`.pth`, `.pt`, `.bin`) are told apart by content, not by name.
Pickles go through torch's `weights_only` reader; objects of foreign packages that old mmcv
files carry beside the tensors become inert placeholders, so nothing is ever imported or run.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import struct
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, IntegrityError, PoseZooError
from ..zoo import catalog as _registry
from .keys import Conversion

__all__ = [
    "LoadReport",
    "check_named_hash",
    "convert",
    "load_checkpoint",
    "load_state",
    "looks_like",
    "read_checkpoint",
    "read_metadata",
    "sha256_of",
    "write_safetensors",
]

_NAMED_HASH = re.compile(r"-([0-9a-f]{8})(?:_\d{8})?\.pth$")
_FOREIGN_GLOBAL = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_MAX_FOREIGN_GLOBALS = 200
_WRAPPERS = ("state_dict", "model", "module")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What loading did, as lists of our keys (`unexpected`: keys of the file after renaming).

    `mismatched` entries read `key: file (shape), model (shape)`. `converted_from` names the
    file whose foreign keys were renamed, None where the keys were ours already. `ignored` maps
    keys of the file that were left out on purpose to the reason.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    converted_from: str | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def check_named_hash(path: str | Path, sha256: str) -> None:
    """Compare with the hash in an OpenMMLab file name (`name-<8 hex>[_date].pth`).

    Raises:
        IntegrityError: the name promises another hash.
    """
    promised = _NAMED_HASH.search(Path(path).name)
    if promised and not sha256.startswith(promised.group(1)):
        raise IntegrityError(
            f"{path} has sha256 {sha256[:8]}…, but its name promises {promised.group(1)}; "
            "the download is damaged or the file was renamed: fetch it again"
        )


# ------------------------------------------------------------------------------- reading


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
    kind = _kind_of(path)
    content = _read_safetensors(path) if kind == "safetensors" else _read_pickle(path, mapped)
    state = _unwrap(content, path)
    return {key.removeprefix("module."): value for key, value in state.items()}


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the text metadata of a safetensors file (origin, licence, converter version)."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise CheckpointError(f"cannot read {path} as safetensors: {error}") from error


def _kind_of(path: Path) -> str:
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
        return "safetensors"
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":  # zip archive, or a bare pickle
        return "pickle"
    raise CheckpointError(
        f"{path} is neither safetensors nor a PyTorch file (first bytes {head[:8]!r}); "
        "it is damaged or something else"
    )


_SAFETENSORS_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read tensors into memory of their own.

    The library checks the header but maps the file, which doubles the memory until it is copied
    and crashes a running model if somebody cuts the file.
    """
    from safetensors import safe_open

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
                kind = _SAFETENSORS_TYPES[header[key]["dtype"]]
                state[key] = tensor.view(kind).reshape(header[key]["shape"])
            return state
    except MemoryError:
        raise
    except Exception as error:  # the Rust reader raises its own type
        raise CheckpointError(
            f"cannot read {path} as safetensors ({error!r}); "
            "it is truncated or damaged: fetch it again"
        ) from error


class _Inert:
    """Stands for an object of a foreign package inside a pickle; takes anything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def _nothing(self, *args: Any) -> None:
        pass

    append = extend = add = update = __setitem__ = _nothing


def _read_pickle(path: Path, mapped: bool) -> Any:
    """Load a pickle with torch's restricted reader, foreign objects replaced by `_Inert`."""
    placeholders: dict[str, type] = {}
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    # torch maps files by name only, and trusts the suffix .safetensors, which we do not
    by_name = mapped and is_zip and path.suffix != ".safetensors"
    while True:
        allowed: Any = [(cls, name) for name, cls in placeholders.items()]
        try:
            with (
                torch.serialization.safe_globals(allowed),
                warnings.catch_warnings(),
                open(path, "rb") as file,
            ):
                warnings.simplefilter("ignore")
                return torch.load(
                    path if by_name else file,
                    map_location="cpu",
                    weights_only=True,
                    mmap=by_name or None,
                )
        except pickle.UnpicklingError as error:
            found = _FOREIGN_GLOBAL.search(str(error))
            name = found.group(1) if found else ""
            if not name or name in placeholders or len(placeholders) >= _MAX_FOREIGN_GLOBALS:
                raise CheckpointError(
                    f"{path} is not a plain checkpoint: {_first_line(error)}. posezoo never "
                    "executes code from a weights file; ask for a safetensors copy"
                ) from error
            placeholders[name] = type("Inert", (_Inert,), {})
        except MemoryError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"cannot read {path} as a PyTorch file ({_first_line(error)}); "
                "it is truncated or damaged: fetch it again"
            ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().replace("Weights only load failed.", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "nsupported" in line]
    return (named or lines or [type(error).__name__])[0][:200].rstrip(".")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _unwrap(content: Any, path: Path) -> Mapping[str, Tensor]:
    if _is_state(content):
        return content
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if _is_state(content.get(wrapper)):
                return content[wrapper]
        found = ", ".join(sorted(map(str, content))[:8]) or "nothing"
    else:
        found = f"a {type(content).__name__}"
    raise CheckpointError(
        f"{path} holds no state dict, neither bare nor below {', '.join(_WRAPPERS)}; "
        f"it holds {found}"
    )


# ------------------------------------------------------------------------------- writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; move it there if the block succeeds, else remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_safetensors(
    state: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors atomically; the same input gives the same bytes.

    The library's own writer orders metadata by a random hash and holds a second copy of all
    tensors. This one writes one after the other, widest type first (alignment), then by key.
    """
    kinds = {dtype: name for name, dtype in _SAFETENSORS_TYPES.items()}
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


# ------------------------------------------------------------------------------- loading


def load_checkpoint(
    model: nn.Module, source: str | Path | Mapping[str, Tensor], *, strict: bool = True
) -> LoadReport:
    """Load a file or a state dict into `model`, converting the authors' keys where needed.

    Args:
        model: a posezoo model; it keeps its device and dtype. It is changed only if
            everything fits.
        source: safetensors or pickle file, or a mapping of tensors.
        strict: raise unless every key and shape fits. Otherwise what fits is loaded and the
            rest is listed in the report.

    Raises:
        CheckpointError: unreadable file, non-finite values, or (strict) keys that do not fit;
            the message names the first five of each kind and what the file looks like.
    """
    where = str(source) if isinstance(source, (str, Path)) else "the given state dict"
    state = read_checkpoint(source) if isinstance(source, (str, Path)) else dict(source)
    return load_state(model, state, where, strict=strict)


def load_state(
    model: nn.Module, state: Mapping[str, Tensor], where: str, *, strict: bool = True
) -> LoadReport:
    """Do what `load_checkpoint` does with tensors that were read from `where`.

    A model on the meta device takes the tensors themselves.
    """
    conversion = convert(model, state, where)
    target = model.state_dict()
    # BatchNorm's update counters carry no weight: files without them are complete
    missing = [k for k in target if k not in conversion.state and not k.endswith("_tracked")]
    unexpected = [k for k in conversion.state if k not in target]
    shared = [k for k in conversion.state if k in target]
    loaded = [k for k in shared if _matches(conversion.state[k], target[k])]
    mismatched = [k for k in shared if not _matches(conversion.state[k], target[k])]
    report = LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(conversion.sources[k] for k in unexpected),
        mismatched=tuple(
            f"{k}: file {_form(conversion.state[k])}, model {_form(target[k])}" for k in mismatched
        ),
        converted_from=where if conversion.is_foreign else None,
        ignored=conversion.ignored,
    )
    if strict and (missing or unexpected or mismatched):
        raise CheckpointError(_misfit(model, where, report, state))
    _check_finite(conversion, loaded, where)
    _fill(model, {k: conversion.state[k] for k in loaded}, target)
    return report


def _matches(tensor: Tensor, target: Tensor) -> bool:
    """Whether the shapes agree and no integers, quantised perhaps, stand for weights."""
    integers = not tensor.is_floating_point() and target.is_floating_point()
    return tensor.shape == target.shape and not integers


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}" + f" {tensor.dtype}" * (not tensor.is_floating_point())


def convert(model: nn.Module, state: Mapping[str, Tensor], where: str) -> Conversion:
    """Bring `state` under the keys of `model`'s family."""
    if not hasattr(model, "convert_state_dict"):
        raise TypeError(
            f"{type(model).__name__} is not a posezoo model: it has no convert_state_dict"
        )
    try:
        return model.convert_state_dict(state)  # type: ignore[operator]
    except ValueError as error:
        if isinstance(error, PoseZooError):
            raise
        guess = _guess(model, state)
        raise CheckpointError(f"{where} cannot be converted: {error}{guess}") from error


def _check_finite(conversion: Conversion, keys: list[str], where: str) -> None:
    for key in keys:
        tensor = conversion.state[key]
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        if not all(torch.isfinite(v) for v in torch.aminmax(tensor)):  # both keep NaN
            raise CheckpointError(
                f"{where} holds NaN or infinity in {conversion.sources[key]!r}; "
                "the file is damaged or the training diverged"
            )


def _fill(model: nn.Module, state: dict[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy into the model's tensors; tensors on the meta device are replaced instead."""
    for key, tensor in state.items():
        old = target[key]
        if old.is_meta:
            state[key] = tensor.to(old.dtype)
    model.load_state_dict(state, strict=False, assign=any(t.is_meta for t in target.values()))


def _misfit(model: nn.Module, where: str, report: LoadReport, state: Mapping[str, Tensor]) -> str:
    parts = [f"{where} does not fit {_name_of(model)}"]
    for kind in ("missing", "unexpected", "mismatched"):
        keys = getattr(report, kind)
        if keys:
            more = ", …" if len(keys) > 5 else ""
            parts.append(f"{len(keys)} {kind}: {', '.join(keys[:5])}{more}")
    return "; ".join(parts) + _guess(model, state)


def _name_of(model: nn.Module) -> str:
    cfg = getattr(model, "pretrained_cfg", None)
    return cfg.architecture if cfg else type(model).__name__


def _guess(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Say which other architectures the tensors fit, as the end of a message."""
    guesses = [name for name in looks_like(state) if name != _name_of(model)]
    return f"; it looks like {' or '.join(guesses[:4])}" if guesses else ""


def looks_like(state: Mapping[str, Tensor]) -> list[str]:
    """List the registered architectures that the tensors fit exactly, by keys and shapes.

    Where they fit none, the answer may be one "backbone of" an architecture.
    """
    found: list[str] = []
    backbones: list[str] = []
    state = {key: torch.empty_like(tensor, device="meta") for key, tensor in state.items()}
    count = sum(t.numel() for t in state.values() if t.is_floating_point())
    for name in _registry.list_models():
        params = _registry.get_pretrained_cfg(name).params
        # files hold a model once; with averages or a second backbone at most thrice; less a head
        if params is not None and not 0.9 * params <= count <= 3 * params:
            continue
        with torch.device("meta"):
            model = _registry.build_model(name)
        if _fits(model, state):
            found.append(name)
        elif not backbones and _fits(getattr(model, "backbone", None), state):
            backbones.append(f"the backbone of {name}")
    return found or backbones


def _fits(model: Any, state: Mapping[str, Tensor]) -> bool:
    if not hasattr(model, "convert_state_dict"):
        return False
    try:
        converted = model.convert_state_dict(state).state
    except ValueError:
        return False
    want = {k: v.shape for k, v in model.state_dict().items() if not k.endswith("_tracked")}
    have = {k: v.shape for k, v in converted.items() if not k.endswith("_tracked")}
    return want == have
