"""Pickles read without executing anything in them.

They go through torch's `weights_only` reader; objects of foreign packages that old mmcv files
carry beside the tensors become inert placeholders, so nothing is ever imported or run.
"""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError

__all__ = ["read_pickle"]

_FOREIGN_GLOBAL = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_MAX_FOREIGN_GLOBALS = 200


class _Inert:
    """Replaces an object of a foreign package inside a pickle; takes anything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def _nothing(self, *args: Any) -> None:
        pass

    append = extend = add = update = __setitem__ = _nothing


def read_pickle(path: Path, *, mapped: bool = False) -> Any:
    """Return what a PyTorch file holds, tensors on the CPU, foreign objects as placeholders.

    Args:
        path: the file.
        mapped: leave the tensors in the file until they are used.

    Raises:
        CheckpointError: damaged, or not to be read without executing code.
    """
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
