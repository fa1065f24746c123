"""Operators that torch.onnx lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["translations"]

Value = Any  # of onnxscript, which has no types for values in a traced function


def translations() -> dict[Callable[..., Any], Any]:
    """Return what `torch.onnx.export` takes as `custom_translation_table`.

    Raises:
        ImportError: onnxscript is missing.
    """
    aten = torch.ops.aten
    return {
        aten.sort.stable: _stable_sort,
    }


def _stable_sort(
    x: Value, stable: bool = True, dim: int = -1, descending: bool = False
) -> tuple[Value, Value]:
    """Sort (B, N) along its last axis; of equals the first index comes first."""
    from onnxscript import opset18 as op

    size = op.Shape(x, start=dim, end=dim + 1)
    values, order = op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)
    # equal values have one number, numbers rise along the sorted row: number * N + index is a key
    # without equals
    new = op.Cast(
        op.Not(op.Equal(values, _shifted(values, dim))), to=7
    )  # (B, N) int64, 1 where a larger value begins
    key = op.Add(op.Mul(op.CumSum(new, op.Constant(value_int=dim)), size), order)
    key, _ = op.TopK(key, size, axis=dim, largest=0, sorted=1)
    return values, op.Mod(key, size)


def _shifted(x: Value, dim: int) -> Value:
    """Return the element before each one along an axis; the first comes back itself."""
    from onnxscript import opset18 as op

    axis = op.Constant(value_ints=[dim])
    first = op.Slice(x, op.Constant(value_ints=[0]), op.Constant(value_ints=[1]), axis)
    rest = op.Slice(x, op.Constant(value_ints=[0]), op.Constant(value_ints=[-1]), axis)
    return op.Concat(first, rest, axis=dim)
