"""Which registered model do tensors belong to?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..zoo.catalog import build_model, get_pretrained_cfg, list_models
from .keys import Convertible

__all__ = ["fits", "looks_like"]


def looks_like(state: Mapping[str, Tensor]) -> list[str]:
    """List the registered architectures that the tensors fit exactly, by keys and shapes.

    Where they fit none, the answer may be one "the backbone of" an architecture.
    """
    found: list[str] = []
    backbones: list[str] = []
    state = {key: torch.empty_like(tensor, device="meta") for key, tensor in state.items()}
    count = sum(t.numel() for t in state.values() if t.is_floating_point())
    for name in list_models():
        params = get_pretrained_cfg(name).params
        # files hold a model once; with averages or a second backbone at most thrice; less a head
        if params is not None and not 0.9 * params <= count <= 3 * params:
            continue
        with torch.device("meta"):
            model = build_model(name)
        if fits(model, state):
            found.append(name)
        elif not backbones and fits(dict(model.named_children()).get("backbone"), state):
            backbones.append(f"the backbone of {name}")
    return found or backbones


def fits(model: nn.Module | None, state: Mapping[str, Tensor]) -> bool:
    """Whether the model takes exactly these tensors, by keys (the authors' or ours) and shapes."""
    if not isinstance(model, Convertible):
        return False
    try:
        converted = model.convert_state_dict(state).state
    except ValueError:
        return False
    return _shapes(model.state_dict()) == _shapes(converted)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in state.items() if not k.endswith("_tracked")}
