"""One folder per model family, named like the family's folder in posezoo/models.

Its `__init__.py` says what the tests of all families need:

    SMALL     architecture -> arguments of `smaller`, at least one architecture per builder
    FILL      whether small models get weights from `fill`, because fresh ones hide a branch
    GOLDENS   stored outputs in the folder `goldens`; what is quick comes first
    SLOW      those of them that take long in any precision
    IGNORED   parts of the names of stored tensors that nothing is compared with
    FLOAT64, FLOAT32  largest difference in either precision, in units of a tensor's spread
    name_of   a golden or a manifest -> `architecture[.tag]`
    run       model, golden -> the tensors to compare, by name

A family without published outputs has no goldens. What only one family promises is tested by
`test_*.py` in its folder.
"""

from __future__ import annotations

import dataclasses
import functools
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from goldens.fill import make_tensor, manifests
from torch import Tensor

import posezoo
from posezoo.zoo.catalog import build_model, find
from posezoo.zoo.config import SourceCfg
from posezoo.zoo.model import ZooModel
from posezoo.zoo.registry import ARCHITECTURES, Architecture

HERE = Path(__file__).parent
FAMILIES: dict[str, ModuleType] = {
    folder.name: import_module(f"families.{folder.name}")
    for folder in sorted(HERE.iterdir())
    if (folder / "__init__.py").is_file()
}
SMALL = {name: values for family in FAMILIES.values() for name, values in family.SMALL.items()}


def family_of(architecture: str) -> str:
    """The folder in posezoo/models of an architecture."""
    return find(architecture)[0].build.split(".")[-2]


def smaller(name: str, size: tuple[int, int] | None = None, **fixed: Any) -> Architecture:
    """An architecture like `name`, called `small_...`, with other fixed values and input size."""
    architecture, _ = find(name)
    unknown = set(fixed) - set(architecture.fixed)
    assert not unknown, f"{name} has no fixed {unknown}"
    if size and "input_size" in architecture.fixed:
        fixed["input_size"] = size
    cfgs = {}
    for tag, cfg in architecture.cfgs.items():
        given = dataclasses.replace(cfg.input, size=size or cfg.input.size)
        decode = cfg.decode
        if decode and decode.heatmap_size:
            height, width = given.size
            decode = dataclasses.replace(decode, heatmap_size=(height // 4, width // 4))
        cfgs[tag] = dataclasses.replace(
            cfg, architecture=f"small_{name}", input=given, decode=decode, params=None,
            source=SourceCfg(unavailable="a small model of the tests"),
        )  # fmt: skip
    return dataclasses.replace(
        architecture, name=f"small_{name}", fixed={**architecture.fixed, **fixed}, cfgs=cfgs
    )


@contextmanager
def registered(*architectures: Architecture) -> Iterator[None]:
    """Have the architectures in the table for a while."""
    before = dict(ARCHITECTURES)
    ARCHITECTURES.update({a.name: a for a in architectures})
    try:
        yield
    finally:
        ARCHITECTURES.clear()
        ARCHITECTURES.update(before)


@contextmanager
def example() -> Iterator[str]:
    """Have the example family registered for a while, whose one model is tiny; its name."""
    with registered():
        runpy.run_module("example_family.variants")
        yield "example_pose_64x48"


def small(name: str, **model_args: Any) -> Any:
    """The small model that stands for `name`, with random weights, in evaluation mode."""
    with registered(smaller(name, **SMALL[name])):
        torch.manual_seed(0)
        model = build_model(f"small_{name}", **model_args).eval()
    return fill(model) if FAMILIES[family_of(name)].FILL else model


def fill(module: Any, seed: int = 0) -> Any:
    """Give every tensor random values of ordinary size."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            noise *= tensor[0].numel() ** -0.5
        else:
            noise = 0.1 * noise + float(name.endswith(("weight", "running_var")))
        tensor.copy_(noise.abs() if name.endswith("running_var") else noise)
    return module


@functools.cache
def on_meta(name: str, **model_args: Any) -> ZooModel:
    """A model without memory; shared, so not to be changed."""
    with torch.device("meta"):
        return build_model(name, **model_args).eval()


def hollow(family: str, variant: str) -> dict[str, Tensor]:
    """The authors' file as tensors without memory."""
    return {
        key: torch.empty(spec["shape"], dtype=getattr(torch, spec["dtype"]), device="meta")
        for key, spec in manifests(family)[variant].items()
    }


@functools.lru_cache(maxsize=1)
def with_stand_in_weights(family: str, variant: str) -> Any:
    """A model with stand-in weights, of which only those are made that the model uses."""
    model = posezoo.create_model(FAMILIES[family].name_of(variant))
    state = hollow(family, variant)
    ignored = model.convert_state_dict(state).ignored
    weights = {
        key: make_tensor(key, tuple(value.shape))
        if value.is_floating_point()
        else torch.zeros(value.shape, dtype=value.dtype)
        for key, value in state.items()
        if key not in ignored
    }
    posezoo.load_checkpoint(model, weights)
    return model
