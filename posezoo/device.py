"""The device to run on, and copies to and from it that do not wait for its work.

Only copies from and to page-locked memory run beside the device's work. On other devices than
CUDA both are plain copies.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError

__all__ = ["Download", "choose_device", "upload"]


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


def upload(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Return an array or CPU tensor as a tensor on the device."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
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
