"""The picture of a training: loss and metric over the steps."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import writing

__all__ = ["draw_curves"]


def draw_curves(log: Path, metric: str, target: Path) -> None:
    """Draw loss and metric over the steps of a log as PNG; without matplotlib, do nothing."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, left = pyplot.subplots(figsize=(7, 4), layout="constrained")
    right = left.twinx()
    for axis, key, color in ((left, "loss", "tab:blue"), (right, metric, "tab:orange")):
        found = [(row["step"], row[key]) for row in rows if key in row]
        axis.plot(*zip(*found), color=color, marker="." if key == metric else "") if found else None
        axis.set_ylabel(key, color=color)
    left.set_yscale("log")
    left.set_xlabel("step")
    try:
        with writing(target):
            figure.savefig(target, dpi=110)
    finally:
        pyplot.close(figure)
