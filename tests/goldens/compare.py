"""Compare outputs with stored goldens, and manifests with models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from posezoo.zoo.catalog import build_model

from .fill import GOLDENS


class Golden:
    """One golden file, cut down by slim.py."""

    def __init__(self, family: str, variant: str) -> None:
        with safe_open(GOLDENS / family / f"{variant}.safetensors", "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.metadata = dict(file.metadata() or {})

    @property
    def names(self) -> set[str]:
        return {n for n in self.tensors if not n.endswith((".mean", ".std"))}

    def distance(self, name: str, ours: Tensor) -> float:
        """Largest difference to the stored values, relative to the tensor's spread."""
        stored = self.tensors[name].double()
        spread = (
            float(self.tensors[f"{name}.std"])
            if f"{name}.std" in self.tensors
            else (float(stored.std()))
        )
        flat = self._cut(name, ours.detach().double())
        return float((flat - stored).abs().max()) / spread

    def _cut(self, name: str, ours: Tensor) -> Tensor:
        """Apply the reference file's slicing (told by its shape), then slim.py's."""
        shape = tuple(json.loads(self.metadata[f"shape:{name}"]))
        if ours.ndim == 4 and tuple(ours.shape) != shape:
            cuts = [ours[:, :, ::k, ::k] for k in (2, 4, 8, 16)]
            cuts += [ours[:, ::4, ::4, ::4]]  # of maps stored as (B, H, W, C)
            ours = next((cut for cut in cuts if tuple(cut.shape) == shape), ours)
        assert tuple(ours.shape) == shape, f"{name}: {tuple(ours.shape)}, stored {shape}"
        return ours.reshape(-1)[:: int(self.metadata[f"stride:{name}"])]

    def check(self, found: Mapping[str, Tensor], tolerance: float) -> None:
        """Demand every stored tensor, each within `tolerance` of its spread."""
        assert self.names <= set(found), f"missing: {self.names - set(found)}"
        far = {n: d for n in self.names if (d := self.distance(n, found[n])) > tolerance}
        assert not far, far
        for name in self.names:
            if f"{name}.mean" in self.tensors:
                mean, std = float(self.tensors[f"{name}.mean"]), float(self.tensors[f"{name}.std"])
                assert abs(float(found[name].double().mean()) - mean) < 2 * tolerance * std, name


def check_conversion(name: str, manifest: Mapping[str, Mapping[str, Any]]) -> None:
    """Every key of the manifest is used or ignored with a reason, every tensor of the model is
    filled, shapes agree, nothing maps twice, our own keys stay, and the way back restores all."""
    with torch.device("meta"):
        model = build_model(name)
        state = {
            key: torch.empty(spec["shape"], dtype=getattr(torch, spec["dtype"]))
            for key, spec in manifest.items()
        }
    conversion = model.convert_state_dict(state)
    ours = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in conversion.state.items()}
    assert shapes == {key: tuple(value.shape) for key, value in ours.items()}
    assert all(re.fullmatch(r"\S.*", reason) for reason in conversion.ignored.values())
    back = {theirs: conversion.state[key] for key, theirs in conversion.sources.items()}
    assert set(back) | set(conversion.ignored) == set(manifest)
    assert not set(back) & set(conversion.ignored)
    again = model.convert_state_dict(ours)
    assert set(again.state) == set(ours) and not again.is_foreign
