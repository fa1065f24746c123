"""The weights inside what a file holds: training states, averaged copies, wrapped modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .unpickle import Foreign

__all__ = ["TYPES", "check_type", "unwrap_state"]

TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""The types of tensors that are read and written, with their names in safetensors."""

_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "module",
    "objective",  # our own last.pt
    "state_dict_ema", "ema_state_dict", "model_ema", "ema",  # averages, where there is nothing else
)  # fmt: skip
_PREFIXES = ("module.", "model.")  # DataParallel and averaged copies; a module that trains a model
_DEPTH = 3


def unwrap_state(content: Any, where: str) -> dict[str, Tensor]:
    """Return the state dict of the model in `content` under the model's own keys.

    It may be bare or below one of the usual keys, the first of `state_dict`, `model_state_dict`,
    `model`, `module`, `objective` (our own `last.pt`), and averages only where there is nothing
    else. Names that torch.compile puts into keys are removed. Where keys begin with `module.` or
    `model.`, the model is what is below; tensors beside it, such as a loss's, are left out.

    Raises:
        CheckpointError: there is none, or tensors in it cannot be weights.
    """
    found = _find(content, _DEPTH)
    if found is None:
        raise CheckpointError(
            f"{where} holds no state dict, neither bare nor below {', '.join(_WRAPPERS)}; it "
            f"holds {_description(content)}"
        )
    state = {key.replace("_orig_mod.", ""): value for key, value in found.items()}
    if len(state) < len(found):
        raise CheckpointError(f"{where} holds keys twice, with and without '_orig_mod.'")
    prefix = ""
    while below := next((p for p in _PREFIXES if any(k.startswith(p) for k in state)), None):
        prefix += below
        state = {k.removeprefix(below): v for k, v in state.items() if k.startswith(below)}
    for key, value in state.items():
        _check(value, f"{prefix}{key}", where)
    return state


def _find(content: Any, depth: int) -> Mapping[str, Any] | None:
    """Return the first mapping of names to tensors."""
    if not isinstance(content, Mapping) or depth == 0:
        return None
    if content and all(isinstance(k, str) and _is_tensor(v) for k, v in content.items()):
        return content
    inside = (_find(content.get(name), depth - 1) for name in _WRAPPERS)
    return next((found for found in inside if found is not None), None)


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor, or one of a kind that is not built (quantised, sparse)."""
    return isinstance(value, Tensor) or (
        isinstance(value, Foreign) and value.name.startswith("torch.") and ".nn." not in value.name
    )


def _description(content: Any) -> str:
    if isinstance(content, Mapping) and content:
        parts = {str(key): _kind(value) for key, value in content.items()}
        odd_first = sorted(parts, key=lambda key: (parts[key] == "Tensor", key))
        text = ", ".join(f"{key} ({parts[key]})" for key in odd_first[:8])
        objects = any(isinstance(value, Foreign) for value in content.values())
    else:
        text, objects = _kind(content), isinstance(content, Foreign)
    return f"{text}; objects are not loaded: save the state_dict() of the model" * objects or text


def _kind(value: Any) -> str:
    return f"an object of {value.name}" if isinstance(value, Foreign) else type(value).__name__


def _check(value: Any, key: str, where: str) -> None:
    if isinstance(value, Foreign):
        check_type(value.name.split(".")[-1].removeprefix("_rebuild_"), key, where)
    elif value.is_meta or value.layout != torch.strided:
        check_type("meta" if value.is_meta else str(value.layout), key, where)
    elif value.dtype not in TYPES:
        check_type(str(value.dtype), key, where)


def check_type(kind: str, key: str, where: str) -> None:
    """Refuse a tensor of another kind than those that are read.

    Raises:
        CheckpointError: always, unless `kind` is a name in safetensors that is read.
    """
    if kind not in TYPES.values():
        raise CheckpointError(
            f"{where} holds {key!r} as {kind}: quantised, sparse or complex tensors, and tensors "
            "without data, are no weights for posezoo; give a file with plain floating-point "
            "tensors (float64, float32, float16 or bfloat16)"
        )
