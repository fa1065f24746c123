"""What copies of `posezoo.optimize` refuse to do, because it would give wrong numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError

__all__ = ["Guard", "shared_tensors"]


def shared_tensors(copy: nn.Module, model: nn.Module) -> list[Tensor]:
    """Return the tensors of a copy that are those of the model, too."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    places = {(tensor.device, tensor.data_ptr()) for tensor in tensors if tensor.numel()}
    return [
        tensor
        for tensor in itertools.chain(copy.parameters(), copy.buffers())
        if (tensor.device, tensor.data_ptr()) in places
        if tensor.is_floating_point() and not tensor.is_inference()
    ]


class Guard:
    """Refuses to run a copy whose weights are in part new, or on images that require a gradient.

    It is asked before each forward, not before other methods, and knows of changes that torch
    counts, which it does not for `weight.data`, fused optimizers and running statistics.

    Args:
        shared: tensors that are those of the model, too.
        is_packed: whether layers are packed, through which gradients do not pass.
    """

    def __init__(self, shared: Sequence[Tensor], is_packed: bool) -> None:
        self.shared = [(tensor, tensor._version, tensor.data_ptr()) for tensor in shared]
        self.is_packed = is_packed

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return Guard((), self.is_packed)  # copies have their own weights

    def __reduce__(self) -> tuple[Any, ...]:
        return Guard, ((), self.is_packed)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Check the inputs of a forward.

        Raises:
            InputError: weights have changed, or an image requires a gradient.
        """
        if torch.compiler.is_compiling():
            return
        changed = [(t, place) for t, version, place in self.shared if t._version != version]
        if changed and _uses(module, changed):
            raise InputError(
                "weights of the model have changed since posezoo.optimize made this copy, which "
                "shares them; make a new copy"
            )
        if self.is_packed and torch.is_grad_enabled():
            inputs = (*args, *options.values())
            if any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
                raise InputError(
                    "an input requires a gradient, and copies of posezoo.optimize give none on "
                    "this processor; use the model itself, or torch.no_grad()"
                )


def _uses(copy: nn.Module, tensors: Sequence[tuple[Tensor, int]]) -> bool:
    """Whether a copy still has one of these, at its address; moved or converted, it has not."""
    used = {id(tensor) for tensor in itertools.chain(copy.parameters(), copy.buffers())}
    return any(id(tensor) in used and tensor.data_ptr() == place for tensor, place in tensors)
