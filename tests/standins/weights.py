"""A small model with random weights, saved; and configurations that look for it elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import torch

import posezoo
from posezoo.weights.pins import Pin
from posezoo.zoo.config import PretrainedCfg, SourceCfg

SMALL = "hrnet_xs_128x96"  # 3 MB


def small_files(folder: Path) -> dict[str, bytes]:
    """What `save_pretrained` writes of the small model, by file name."""
    torch.manual_seed(1)
    posezoo.save_pretrained(posezoo.create_model(SMALL), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def small_cfg(**source: Any) -> PretrainedCfg:
    """The small model as if its weights were not in the package but at other addresses."""
    cfg = posezoo.get_pretrained_cfg(SMALL)
    return dataclasses.replace(cfg, source=SourceCfg(license="mit", **source))


def pickled(name: str, seed: int = 4) -> bytes:
    """A file as authors publish it: random weights of a model, as a pickle."""
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    torch.save({"model": posezoo.create_model(name).state_dict()}, buffer)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pin_of(repository: str, revision: str, data: bytes) -> Pin:
    """The pin of weights that a repository has."""
    return Pin(repository=repository, revision=revision, sha256=sha256(data), size=len(data))
