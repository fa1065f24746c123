"""A device for machines without one: its tensors are in memory, but do not mix with others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

__all__ = ["FAR", "StandInDevice"]

FAR = torch.device("meta")  # whose name it takes


class _Far(Tensor):
    """A tensor on the device."""


class StandInDevice(TorchFunctionMode):
    """While it is active, tensors made on or sent to `FAR` are there: an operation on them and on
    others with axes raises an error, and NumPy has no access to them. `waits` counts what would
    make the host wait for the device, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = list(_tensors([args, kwargs]))
        far = [tensor for tensor in tensors if isinstance(tensor, _Far)]
        if func == Tensor.device.__get__ and far:
            return FAR
        if name in ("numpy", "__array__", "data_ptr") and far:
            raise TypeError(f"{name} of a tensor on the device")
        if func is Tensor.to and FAR in args:
            return args[0] if args[0].is_sparse_csr else args[0].as_subclass(_Far)
        if name in ("col_indices", "crow_indices", "values"):  # those have no subclasses
            return func(*args, **kwargs).as_subclass(_Far)
        if func in _device_constructors() and not far:
            if (kwargs.get("device") or torch.get_default_device()) != FAR:
                return func(*args, **kwargs)
            return func(*args, **{**kwargs, "device": "cpu"}).as_subclass(_Far)
        if far and any(tensor.ndim and not isinstance(tensor, _Far) for tensor in tensors):
            raise TypeError(f"{name} of tensors on the device and on the CPU")
        if far and _waits(name, args):
            self.waits[name] = self.waits.get(name, 0) + 1
        if name == "cpu" and far:
            return args[0].as_subclass(Tensor)
        if "device" in kwargs and far:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def _waits(name: str, args: tuple[Any, ...]) -> bool:
    if name == "__getitem__" or name == "__setitem__":
        return any(tensor.dtype == torch.bool for tensor in _tensors(args[1:2]))
    if name == "repeat_interleave":
        return isinstance(args[1], Tensor)
    return name in ("cpu", "nonzero", "item", "tolist", "__bool__", "unique")


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple, dict)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors(value)
