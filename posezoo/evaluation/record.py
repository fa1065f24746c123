"""The record of a run, as JSON and as the row of a table."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..datasets.descriptors import DATA_SETS
from ..version import __version__
from .provenance import NOT_PUBLISHED

__all__ = ["EvaluationRecord", "environment"]

_NO_FRACTIONS = ("loss", "loss_per_image")  # statistics that are not printed in percent


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One measured row: what was measured, on what, with what, and how long it took.

    Attributes:
        model, dataset: their names; whether they are what these names say is in `labels`.
        labels: why the numbers compare with no published row; empty where they do.
        notes: what else a reader of the numbers should know about the data.
        box_source: which boxes, "none" for whole images.
        statistics: as fractions.
        settings: what decides the numbers; `run` only how fast they come.
        images, results: how many.
        bad: images that could not be used, with the reason.
        seconds: wall time of this process by stage; images are decoded beside the network, and
            `wait for images` is the part of `predict` in which the network had none.
        environment: versions, device and memory.
        weights: where they came from.
        command: as it was given.
        date: when it ended.
    """

    model: str
    dataset: str
    labels: Sequence[str]
    notes: Sequence[str]
    box_source: str
    statistics: Mapping[str, Any]
    settings: Mapping[str, Any]
    run: Mapping[str, Any]
    images: int
    results: int
    bad: Mapping[str, str]
    seconds: Mapping[str, float]
    environment: Mapping[str, str]
    weights: Mapping[str, str]
    command: str
    date: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    def table(self) -> str:
        """Return one table row as text, with its header and the protocol."""
        numbers = {k: v for k, v in self.statistics.items() if isinstance(v, float)}
        widths = {name: max(8, len(name)) for name in numbers}
        lines = [
            "  ".join(self._protocol()),
            "  ".join(name.rjust(widths[name]) for name in numbers),
            "  ".join(_text(name, value).rjust(widths[name]) for name, value in numbers.items()),
        ]
        if self.dataset in DATA_SETS:
            lines.append(DATA_SETS[self.dataset].note)
        lines += [*self.labels, *self.notes]
        return "\n".join(line for line in lines if line)

    def _protocol(self) -> list[str]:
        own = any(label.startswith(NOT_PUBLISHED) for label in self.labels)
        words = [self.model + f", {NOT_PUBLISHED}" * own, self.dataset]
        if self.box_source != "none":
            chosen = self.settings["flip_test"]
            flip = "flip test" if chosen else "no flip test"
            note = " (not the recipe)" if chosen != self.settings["recipe_flip_test"] else ""
            words += [f"bbox={self.box_source}", flip + note]
        words.append(self.settings["dtype"])
        words += [name for name in ("tf32", "compile") if self.settings[name]]
        words += [self.settings["engine"]] * (self.settings["engine"] != "torch")
        return [*words, f"{self.images} images, {self.results} results"]


def _text(name: str, value: float) -> str:
    if value == -1:
        return "-"
    return f"{value:.3f}" if name in _NO_FRACTIONS else f"{100 * value:.1f}"


def environment(device: torch.device) -> dict[str, str]:
    """Return versions, device, threads and, where the system tells, peak memory."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.machine()
    values = {
        "posezoo": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"{device} {name}".strip(),
        "threads": str(torch.get_num_threads()),
    }
    if platform.system() == "Linux":
        import resource

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        values["peak_memory_mib"] = f"{kib / 1024:.0f}"
    if cuda:
        peak = torch.cuda.max_memory_allocated(device) / 2**20
        values["peak_device_memory_mib"] = f"{peak:.0f}"
    return values
