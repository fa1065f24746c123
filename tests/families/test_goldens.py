"""Every family against the stored outputs of the published implementations."""

from __future__ import annotations

import re

import pytest
import torch
from goldens.compare import Golden
from goldens.fill import golden_path, manifests

import posezoo
from families import FAMILIES, hollow, on_meta, with_stand_in_weights

WAYS = {
    "float64": (torch.float64, False),
    "float32": (torch.float32, False),
    "optimised-float32": (torch.float32, True),
    "optimised-float64": (torch.float64, True),
}


def _cases() -> list:
    """The first golden of each family is compared in float64 and optimised, the next ones in
    float32; in all other ways they are slow."""
    cases = []
    for family, module in FAMILIES.items():
        for i, golden in enumerate(module.GOLDENS):
            usual = ("float32",) if i else ("float64", "optimised-float32")
            for way in WAYS:
                is_slow = golden in module.SLOW or way not in usual
                marks = [pytest.mark.slow] if is_slow else []
                cases.append(pytest.param(family, golden, way, id=f"{golden}-{way}", marks=marks))
    return cases


@pytest.mark.parametrize(("family", "golden", "way"), _cases())
def test_every_stored_tensor_is_reproduced(family, golden, way):
    module, (dtype, is_optimised) = FAMILIES[family], WAYS[way]
    model = with_stand_in_weights(family, golden.removesuffix(".padded")).to(dtype)
    if is_optimised:
        model = posezoo.optimize(model, dtype=dtype)
    with torch.inference_mode():
        found = module.run(model, golden, dtype)
    tolerance = module.FLOAT64 if dtype == torch.float64 else module.FLOAT32
    stored = Golden(golden_path(family, f"{golden}.safetensors"))
    stored.check(found, tolerance, module.IGNORED)


BIG = {"large", "huge"}  # of the same form as their smaller ones
MANIFESTS = [
    pytest.param(family, variant, marks=[pytest.mark.slow] * bool(BIG & {*variant.split("_")}))
    for family in FAMILIES
    if golden_path(family, "manifests.json.gz").is_file()
    for variant in manifests(family)
]


@pytest.mark.parametrize(("family", "variant"), MANIFESTS)
def test_authors_file_converts_key_by_key_and_back(family, variant):
    """Every key is used, joined with others or ignored with a reason, every tensor of the model
    is filled, shapes agree, nothing maps twice, and the way back restores all."""
    state = hollow(family, variant)
    model = on_meta(FAMILIES[family].name_of(variant))
    conversion = model.convert_state_dict(state)
    shapes = {key: tuple(value.shape) for key, value in conversion.state.items()}
    assert shapes == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert all(re.fullmatch(r"\S.*", reason) for reason in conversion.ignored.values())
    assert set(conversion.sources) == set(conversion.state)
    used = list(conversion.sources.values())
    assert len(used) == len(set(used)) and not set(used) & set(conversion.ignored)
    joined = {
        key: conversion.state[key] for key, old in conversion.sources.items() if old not in state
    }
    parts = set(state) - set(used) - set(conversion.ignored)
    assert sum(state[key].numel() for key in parts) == sum(t.numel() for t in joined.values())
    assert all(
        conversion.state[key] is state[old]
        for key, old in conversion.sources.items()
        if key not in joined
    )
