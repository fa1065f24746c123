"""Stand-in weights and inputs, generated from names, so that no checkpoint is needed.

Two programs that agree on a tensor's name and shape hold the same values. The rule is that of
the stored reference outputs (seeded Philox noise keyed by the CRC-32 of the name):

    running_var            uniform in [0.5, 1.5)
    running_mean           0.1 n
    0-d and 1-d weight     1 + 0.1 n
    0-d and 1-d gamma      0.5 + 0.1 n
    other 0-d and 1-d      0.02 n
    2-d and more           n / sqrt(product of all sizes but the first)
    integers               zero
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FAMILIES = Path(__file__).parents[1] / "families"


def _noise(name: str, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[zlib.crc32(name.encode()), seed]))


def make_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Float32 stand-in for the checkpoint tensor `name`."""
    noise = _noise(name, seed)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return torch.from_numpy(noise.uniform(0.5, 1.5, size=shape).astype(np.float32))
    n = noise.standard_normal(size=shape)
    if leaf == "running_mean":
        n = 0.1 * n
    elif len(shape) >= 2:
        n = n / math.sqrt(math.prod(shape[1:]))
    elif leaf == "weight":
        n = 1.0 + 0.1 * n
    elif "gamma" in leaf:
        n = 0.5 + 0.1 * n
    else:
        n = 0.02 * n
    return torch.from_numpy(np.asarray(n, dtype=np.float32))


def make_input(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Standard normal float32 input called `name`."""
    n = _noise(f"input:{name}", seed).standard_normal(size=shape)
    return torch.from_numpy(n.astype(np.float32))


def golden_path(family: str, name: str) -> Path:
    """Where the stored file `name` of a family is."""
    return FAMILIES / family / "goldens" / name


def manifests(family: str) -> dict[str, dict[str, Any]]:
    """All manifests of a family: variant -> key -> {"shape", "dtype"[, "derived"]}."""
    with gzip.open(golden_path(family, "manifests.json.gz"), "rt") as file:
        return json.load(file)


def make_state(manifest: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """A whole stand-in checkpoint under the authors' keys."""
    return {
        key: make_tensor(key, tuple(spec["shape"]), seed)
        if spec["dtype"].startswith("float")
        else torch.zeros(spec["shape"], dtype=getattr(torch, spec["dtype"]))
        for key, spec in manifest.items()
    }
