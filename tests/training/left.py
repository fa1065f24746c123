"""What a run has left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]


def losses_of(folder: Path) -> list[float]:
    """The losses in the log."""
    return [row["loss"] for row in log_of(folder) if "loss" in row]


def weights_of(folder: Path, kind: str = "objective") -> dict[str, Tensor]:
    """The weights in the checkpoint, or their average."""
    found: dict[str, Tensor] = torch.load(folder / "last.pt", weights_only=True)[kind]
    return found


def are_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are, to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
