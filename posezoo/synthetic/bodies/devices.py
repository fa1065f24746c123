"""Where pictures are computed: the functions here make their tensors on torch's default device,
which `computing_on` sets. Random numbers are drawn by NumPy and sent there.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ...device import upload

__all__ = ["CPU", "computing_on", "sent"]

CPU = torch.device("cpu")


def computing_on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the default one; where it is so already, calls of torch cost no more."""
    return nullcontext() if device == _default() else device


def sent(values: NDArray[Any] | Tensor) -> Tensor:
    """Return an array as a tensor on the default device, without waiting for that."""
    return upload(values, _default())


def _default() -> torch.device:
    """Return the default device, of the innermost context in all releases of torch."""
    return torch.empty(0).device
