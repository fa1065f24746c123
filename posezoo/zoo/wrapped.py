"""Models inside the wrappers of torch and timm, and copies that share their weights."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from .config import PretrainedCfg
from .model import ZooModel

__all__ = ["copy_sharing_weights", "unwrap", "zoo_model"]

M = TypeVar("M", bound=nn.Module)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DataParallel, DDP or an averaged copy.

    What is no module comes back as it is, for the caller to name.
    """
    if not isinstance(model, nn.Module):
        return model
    children = dict(model.named_children())
    for name in ("_orig_mod", "module"):
        if set(children) == {name}:
            return unwrap(children[name])
    return model


def zoo_model(model: nn.Module) -> ZooModel:
    """Return the model of the zoo in whatever wrapper.

    Raises:
        TypeError: it was not made by `create_model`.
    """
    model = unwrap(model)
    if isinstance(model, ZooModel) and isinstance(vars(model).get("pretrained_cfg"), PretrainedCfg):
        return model
    raise TypeError(f"{type(model).__name__} has no pretrained_cfg; make it with create_model")


def copy_sharing_weights(model: M) -> M:
    """Return a copy in evaluation mode whose weights are the same memory.

    Moving the copy or changing its type leaves the original as it is. Training the original in
    place changes the copy's weights too, unless the copy was moved or converted.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor):  # what a hook made of weights, as pruning does
                memo[id(value)] = value.detach()
    return copy.deepcopy(model, memo).eval()
