"""Copies between host and device that never wait for what the device is doing.

Only copies from and to page-locked memory run beside the device's work. On other devices than
CUDA both are plain copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Download", "upload"]


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
