"""Tensors into a model: under our keys, strictly, with a report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, PoseZooError
from ..zoo.catalog import build_model
from ..zoo.config import PretrainedCfg
from ..zoo.defaults import usual_torch
from ..zoo.model import DerivedBuffers, ZooModel
from ..zoo.wrapped import unwrap
from .keys import Conversion, Convertible
from .recognise import fits, looks_like
from .tensors import WeightsFile, read_checkpoint, read_weights
from .wrappers import unwrap_state

__all__ = ["LoadReport", "load_checkpoint", "load_new", "load_state", "new_model"]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What loading did.

    Attributes:
        loaded: our keys that were filled.
        missing: our keys that the file lacks.
        unexpected: keys of the file that the model lacks.
        mismatched: `key: file (shape), model (shape)` of our keys.
        converted_from: the file whose foreign keys were renamed; None where they were ours.
        ignored: for keys of the file that were left out on purpose the reason.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    converted_from: str | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)


def load_checkpoint(
    model: nn.Module, source: str | Path | Mapping[str, Tensor], *, strict: bool = True
) -> LoadReport:
    """Load a file or a state dict into `model`, converting the authors' keys where needed.

    Args:
        model: a posezoo model, or one in a wrapper (torch.compile, DataParallel, DDP, averaged
            copies); it keeps its device and dtype. It is changed only if everything fits.
        source: safetensors or PyTorch file, or a mapping of tensors, in any of the wrappers that
            `unwrap_state` knows.
        strict: raise unless every key and shape fits. Otherwise what fits is loaded and the
            rest is listed in the report.

    Raises:
        CheckpointError: unreadable file, non-finite values, or (strict) keys that do not fit;
            the message names the first five of each kind and what the file looks like.
    """
    if isinstance(source, (str, Path)):
        return load_state(model, read_checkpoint(source), str(source), strict=strict)
    where = "the given state dict"
    state = unwrap_state(source, where) if source else {}
    return load_state(model, state, where, strict=strict)


def load_new(
    cfg: PretrainedCfg, path: Path, model_args: Mapping[str, Any], *, sha256: str | None = None
) -> tuple[ZooModel, LoadReport]:
    """Read a file with `read_weights` and make a model of it with `new_model`."""
    return new_model(cfg, read_weights(path, sha256=sha256), model_args)


@usual_torch()
def new_model(
    cfg: PretrainedCfg, file: WeightsFile, model_args: Mapping[str, Any]
) -> tuple[ZooModel, LoadReport]:
    """Build a model without memory, load a file strictly, and compute its derived buffers.

    Nothing is initialised only to be overwritten, and there are no random weights by mistake.

    Args:
        cfg: the configuration that the model gets.
        file: the weights.
        model_args: arguments beside those of the configuration.

    Returns:
        The model in evaluation mode, and what loading did.

    Raises:
        TypeError, InputError: arguments that the architecture does not take.
        CheckpointError: the file does not fit.
    """
    with torch.device("meta"):
        model = build_model(cfg.architecture, **{**cfg.model_args, **model_args})
    model.pretrained_cfg = cfg
    report = load_state(model, file.tensors, str(file.path))
    for module in model.modules():
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(module, key, torch.zeros_like(buffer, device="cpu"))
    for module in model.modules():
        if isinstance(module, DerivedBuffers):
            module.init_non_persistent_buffers()
    model.origin = _origin(file, report)
    return model.eval(), report


def _origin(file: WeightsFile, report: LoadReport) -> dict[str, str]:
    """Return where the weights came from: our file's own record, or the file itself."""
    if report.converted_from is None and "origin_sha256" in file.metadata:
        return {k: v for k, v in file.metadata.items() if k not in ("format", "posezoo")}
    return {"origin_file": file.path.name, "origin_sha256": file.sha256}


def load_state(
    model: nn.Module, state: Mapping[str, Tensor], where: str, *, strict: bool = True
) -> LoadReport:
    """Do what `load_checkpoint` does with tensors that were read from `where`.

    A model on the meta device takes the tensors themselves.
    """
    model = unwrap(model)
    conversion = _under_our_keys(model, state, where)
    target = model.state_dict()
    # BatchNorm's update counters carry no weight: files without them are complete
    missing = [k for k in target if k not in conversion.state and not k.endswith("_tracked")]
    unexpected = [k for k in conversion.state if k not in target]
    shared = [k for k in conversion.state if k in target]
    loaded = [k for k in shared if _matches(conversion.state[k], target[k])]
    mismatched = [k for k in shared if not _matches(conversion.state[k], target[k])]
    report = LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(conversion.sources[k] for k in unexpected),
        mismatched=tuple(
            f"{k}: file {_form(conversion.state[k])}, model {_form(target[k])}" for k in mismatched
        ),
        converted_from=where if conversion.is_foreign else None,
        ignored=conversion.ignored,
    )
    if strict and (missing or unexpected or mismatched):
        raise CheckpointError(_misfit(model, where, report, state))
    _check_finite(conversion, {key: target[key].dtype for key in loaded}, where)
    _fill(model, {k: conversion.state[k] for k in loaded}, target)
    return report


def _under_our_keys(model: nn.Module, state: Mapping[str, Tensor], where: str) -> Conversion:
    if not isinstance(model, Convertible):
        raise TypeError(
            f"{type(model).__name__} is not a posezoo model: it has no convert_state_dict"
        )
    try:
        return model.convert_state_dict(state)
    except ValueError as error:
        if isinstance(error, PoseZooError):
            raise
        guess = _guess(model, state)
        raise CheckpointError(f"{where} cannot be converted: {error}{guess}") from error


def _matches(tensor: Tensor, target: Tensor) -> bool:
    """Whether the shapes agree and there are no integers, quantised perhaps, for weights."""
    integers = not tensor.is_floating_point() and target.is_floating_point()
    return tensor.shape == target.shape and not integers


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}" + f" {tensor.dtype}" * (not tensor.is_floating_point())


def _check_finite(conversion: Conversion, types: Mapping[str, torch.dtype], where: str) -> None:
    """Refuse what is no number, or none any more in the type of the model."""
    for key, dtype in types.items():
        tensor = conversion.state[key]
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        extremes = torch.stack(torch.aminmax(tensor))  # both keep NaN
        if torch.isfinite(extremes.to(dtype)).all():
            continue
        name = conversion.sources[key]
        if torch.isfinite(extremes).all():
            raise CheckpointError(
                f"{where} holds {extremes.abs().max():.1e} in {name!r}, more than the model's "
                f"{dtype} can hold; the file is damaged, or convert the model to its type "
                f"({tensor.dtype}) first"
            )
        raise CheckpointError(
            f"{where} holds NaN or infinity in {name!r}; the file is damaged or the training "
            "diverged"
        )


def _fill(model: nn.Module, state: dict[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy into the model's tensors; tensors on the meta device are replaced instead."""
    for key, tensor in state.items():
        old = target[key]
        if old.is_meta:
            state[key] = tensor.to(old.dtype)
    model.load_state_dict(state, strict=False, assign=any(t.is_meta for t in target.values()))


def _misfit(model: nn.Module, where: str, report: LoadReport, state: Mapping[str, Tensor]) -> str:
    parts = [f"{where} does not fit {_name_of(model)}"]
    kinds = {
        "missing": report.missing,
        "unexpected": report.unexpected,
        "mismatched": report.mismatched,
    }
    for kind, keys in kinds.items():
        if keys:
            more = ", …" if len(keys) > 5 else ""
            parts.append(f"{len(keys)} {kind}: {', '.join(keys[:5])}{more}")
    first = os.path.commonprefix(list(state)).rpartition(".")[0]
    bare = {key.removeprefix(f"{first}."): value for key, value in state.items()}
    if first and fits(model, bare):
        parts.append(f"it fits without the {f'{first}.'!r} before its keys: remove that from each")
        return "; ".join(parts)
    return "; ".join(parts) + _guess(model, state)


def _name_of(model: nn.Module) -> str:
    """Return the architecture of a model that `create_model` made, else its class."""
    if isinstance(model, ZooModel) and "pretrained_cfg" in vars(model):
        return model.pretrained_cfg.architecture
    return type(model).__name__


def _guess(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Say which other architectures the tensors fit, as the end of a message."""
    guesses = [name for name in looks_like(state) if name != _name_of(model)]
    return f"; it looks like {' or '.join(guesses[:4])}" if guesses else ""
