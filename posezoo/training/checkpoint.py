"""`last.pt` and the log of a run: written, read, and compared with what is asked for now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError, DataError, InputError
from ..files import replacing, writing
from .objectives import Objective

__all__ = ["CHECKPOINT", "Given", "read_state", "require_space", "trim_log", "write_state"]

CHECKPOINT = "last.pt"
Given = Mapping[str, Any]
"""What a run was given beside its recipe: what it starts from, and hashes over its data."""

_WORDS = {
    "init": "start (--init)",
    "data": "training data (--data: its annotations or images)",
    "validation": "validation data (--data: its annotations or images)",
}
_KEYS = {"recipe", "given", "objective", "optimizer", "average", "step", "evaluated", "since"}
_COPIES = 2.2  # of what is written: the old file stays until the new one is complete


def write_state(file: Path, state: Mapping[str, Any], objective: Objective) -> None:
    """Write the state of a run with its settings, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with writing(file, "make room; the same command goes on from the file that is there"):
        with replacing(file) as temporary:
            torch.save({"recipe": _settings(objective), **state}, temporary)


def read_state(
    out: Path, objective: Objective, given: Given, device: torch.device, more_epochs: bool
) -> dict[str, Any] | None:
    """Return the state in a folder, None where there is none.

    Raises:
        CheckpointError: it is damaged.
        InputError: it is that of another run.
    """
    file = out / CHECKPOINT
    if not file.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        if not _KEYS <= set(state):
            raise ValueError(f"it lacks {', '.join(sorted(_KEYS - set(state)))}")
    except Exception as error:  # unpickling a damaged file raises almost anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{file} is damaged, or was written by another version ({first}); delete it to begin "
            f"again, or give another --out; {out / 'best'} has the best weights so far"
        ) from error
    wanted, found = _settings(objective), state["recipe"]
    different = [key for key in wanted if wanted[key] != found.get(key)]
    if different == ["epochs"] and more_epochs and wanted["epochs"] >= found["epochs"]:
        different = []
    different += [_WORDS[key] for key in _WORDS if not _is_same(key, given, state["given"])]
    if different:
        raise InputError(
            f"{out} holds a run with another {', '.join(different)}; give the same, or another "
            "--out" + "; for more epochs --set epochs=N" * (different == ["epochs"])
        )
    return state


def _is_same(key: str, given: Given, found: Given) -> bool:
    if key == "init" and given.get("init_sha256") and found.get("init_sha256"):
        return bool(given["init_sha256"] == found["init_sha256"])
    return bool(given.get(key) == found.get(key))


def _settings(objective: Objective) -> dict[str, Any]:
    """Return what must be the same when a run goes on."""
    own = objective.cfg.own_skeleton
    return asdict(objective.recipe) | {
        "skeleton": None if own is None else asdict(own), "category": objective.category,
    }  # fmt: skip


def require_space(out: Path, objective: nn.Module, *, averaged: bool) -> None:
    """Refuse a folder without room for what a run writes.

    Raises:
        DataError: there is too little.
    """
    tensors = sum(t.numel() * t.element_size() for t in objective.state_dict().values())
    trained = sum(
        p.numel() * p.element_size() for p in objective.parameters() if p.requires_grad
    )  # fmt: skip
    needed = int(_COPIES * (tensors * (2 if averaged else 1) + 2 * trained))  # Adam keeps two
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    with writing(out):
        free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{out} has {free / 1e6:.0f} MB free, and the run needs {needed / 1e6:.0f}; make "
            "room, or give another --out"
        )


def trim_log(log: Path, step: int) -> None:
    """Keep the lines of a log up to a step; a killed run may have written more, or half a line."""
    if not log.is_file():
        return
    text = log.read_text(encoding="utf-8", errors="replace")
    kept = [line for line in text.splitlines() if _step_of(line) <= step]
    with writing(log), replacing(log) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
