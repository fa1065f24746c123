"""What is measured and how a run is carried out: `EvaluationSettings` and `RunOptions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..device import choose_dtype
from ..errors import InputError
from ..runs.shares import Share
from ..runs.stopping import never

__all__ = ["EvaluationSettings", "RunOptions"]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What decides the numbers. The defaults are the recipe of the weights.

    Attributes:
        boxes: "gt", "det" for the common detection file (person AP 56.4) in the folder, or a
            detection file. COCO and COCO-WholeBody only; for keypoints of one's own "det" is "gt".
        annotations: the annotation file, where it is not the usual one of the data set.
        dtype: torch's or its name; float32 and float64 run as such, bfloat16 and float16 under
            autocast.
        tf32: let CUDA round float32 products and convolutions to TF32.
        compile: run the network through torch.compile.
        engine: what runs the network, see `PosePredictor`.
        flip_test: average with the mirrored image; None is the recipe's choice.
        limit: only the first so many images; such numbers compare with nothing.
        images_subset: leave out the images that are missing; such numbers compare with nothing.
        category: name or id of the category of people, where it is neither named "person" nor
            the only one. COCO's form only.

    Raises:
        InputError: a value out of range.
    """

    boxes: str | Path = "det"
    annotations: Path | None = None
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    compile: bool = False
    engine: str | None = None
    flip_test: bool | None = None
    limit: int | None = None
    images_subset: bool = False
    category: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", choose_dtype(self.dtype))
        if self.limit is not None:
            _require_positive({"limit": self.limit})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out, which decides how fast the numbers come.

    Attributes:
        device: default CUDA if there is one (under torchrun the one of the local rank).
        batch_size: crops or images per forward.
        workers: threads that read images.
        out: folder for `results.json`, `record.json` and, while the run lasts, `blocks/`.
        share: which part to do, for a job array; without it the part of this torchrun process,
            or all.
        resume: use the blocks that an earlier run left in `out`. Shares always do.
        progress: show a bar.
        command: for the record.
        stop: asked after each block whether to end early.

    Raises:
        InputError: a number below 1, or a share without a folder.
    """

    device: str | None = None
    batch_size: int = 64
    workers: int = 4
    out: Path | None = None
    share: Share | None = None
    resume: bool = False
    progress: bool = False
    command: str = ""
    stop: Callable[[], bool] = never

    def __post_init__(self) -> None:
        _require_positive({"batch_size": self.batch_size, "workers": self.workers})


def _require_positive(values: Mapping[str, int]) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} is {value}; valid: an integer from 1")
