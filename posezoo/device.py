"""The device to run on, and copies to and from it that do not wait for its work.

Only copies from and to page-locked memory run beside the device's work. On other devices than
CUDA both are plain copies.
"""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError

__all__ = [
    "DTYPES",
    "Download",
    "autocast",
    "choose_device",
    "choose_dtype",
    "has_bfloat16_tiles",
    "has_fast_bfloat16",
    "upload",
    "weight_dtype",
]

DTYPES = {
    "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}  # fmt: skip
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # in /proc/cpuinfo


def choose_device(device: str | int | torch.device | None) -> torch.device:
    """Return an available device; None is CUDA if there is one, else the CPU.

    CUDA without a number is the one of the local rank of torchrun; a number alone is that of CUDA.

    Raises:
        InputError: no such kind of device, or a number that this machine lacks.
    """
    try:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(default if device is None else device)
        if chosen.type != "cuda":
            return torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise InputError(
            f"device is {device!r}, which this machine lacks; valid: cpu, cuda, cuda:0 and so on"
        ) from error
    index = int(os.environ.get("LOCAL_RANK", "0")) if chosen.index is None else chosen.index
    count = torch.cuda.device_count()
    if index >= count:
        raise InputError(
            f"device {index} of CUDA was asked for, and there are {count}; use the CPU"
        )
    return torch.device("cuda", index)


def choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return a type that networks run in, given as torch's or by its name.

    Raises:
        InputError: another one.
    """
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise InputError(f"dtype is {dtype!r}; valid: a floating-point type, {', '.join(DTYPES)}")
    return chosen


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device computes products of bfloat16 itself, faster than those of float32.

    GPUs from compute capability 8.0 (A100) on do; x86 processors with AVX512-BF16 or AMX, and ARM
    processors with BF16, of which only Linux tells.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _BFLOAT16_FLAGS.isdisjoint(_cpu_flags())


@functools.cache
def has_bfloat16_tiles() -> bool:
    """Whether the processor multiplies matrices of bfloat16 by AMX."""
    return "amx_bf16" in _cpu_flags()


def _cpu_flags() -> list[str]:
    """Return the words of /proc/cpuinfo, of which some are features; none where there is none."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return []


def weight_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of weights and images where a network runs in `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Run what is inside in bfloat16 or float16 where it may; other types need nothing."""
    if dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(device.type, dtype)
    return nullcontext()


def upload(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Return an array or CPU tensor as a tensor on the device."""
    if not isinstance(array, Tensor):
        # torch wants to be able to write
        array = torch.from_numpy(np.require(array, requirements=("C", "W")))
    tensor = array
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # from torch's pool of such memory, kept until it is copied
    return tensor.to(device, non_blocking=True)


class Download:
    """A tensor on its way to the host; make it when the tensor's computation was started."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            # on the stream of the tensor's device, which need not be the current device
            self._event = torch.cuda.current_stream(tensor.device).record_event()

    def numpy(self) -> NDArray[Any]:
        """Wait for the copy and return it."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.cpu().numpy()
