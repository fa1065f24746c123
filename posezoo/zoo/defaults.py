"""The settings of torch under which models are built, whatever the process has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["usual_torch"]


@contextmanager
def usual_torch() -> Iterator[None]:
    """New tensors are float32, on the CPU, and can be trained; also a decorator.

    torch has one default type for all threads. It is touched only where it is another one.
    """
    before = torch.get_default_dtype()
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        if before != torch.float32:
            torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            if before != torch.float32:
                torch.set_default_dtype(before)
