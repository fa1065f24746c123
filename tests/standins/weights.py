"""Weights that stand in for published ones: of a small model, and in the authors' own files."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens.fill import make_state, manifests

import posezoo
from posezoo.weights.convert import convert_file
from posezoo.weights.pins import Pin
from posezoo.zoo import registry
from posezoo.zoo.config import PretrainedCfg, SourceCfg

SMALL = "hrnet_xs_128x96"  # 3 MB
TINY = "example_pose_64x48"  # 9 kB; where `families.example` registers it

# weights of each kind, the smallest first -> the family that has the keys of the authors' file
ORIGINALS = {
    "pct_tokenizer_swin_base_woimgguide.coco": "pct",
    "uniformer_small.in1k": "uniformer",
    "tcformer_mta_256x192.coco_wholebody": "tcformer",
    "vitpose_plus_s_256x192.coco": "vitpose",
    "pct_swin_base.coco": "pct",
}
ORIGINAL_CASES = [
    pytest.param(name, marks=[pytest.mark.slow] * (i > 0)) for i, name in enumerate(ORIGINALS)
]


def converted(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_hash_known: bool = True
) -> PretrainedCfg:
    """Convert a stand-in for the authors' file into the cache, as if it was what they published."""
    cfg, original = posezoo.get_pretrained_cfg(name), folder / "original.pth"
    state = make_state(manifests(ORIGINALS[name])[cfg.architecture])
    torch.save({"state_dict": state}, original)
    digest = sha256(original.read_bytes()) if is_hash_known else None
    cfg = replace(cfg, source=replace(cfg.source, unavailable=None, original_sha256=digest))
    monkeypatch.setitem(registry.ARCHITECTURES[cfg.architecture].cfgs, cfg.tag, cfg)
    convert_file(original, cfg)
    return cfg


def small_files(folder: Path) -> dict[str, bytes]:
    """What `save_pretrained` writes of the small model, by file name."""
    torch.manual_seed(1)
    posezoo.save_pretrained(posezoo.create_model(SMALL), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def small_cfg(name: str = SMALL, **source: Any) -> PretrainedCfg:
    """A small model as if its weights were not in the package but at other addresses."""
    cfg = posezoo.get_pretrained_cfg(name)
    return replace(cfg, source=SourceCfg(license="mit", **source))


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
