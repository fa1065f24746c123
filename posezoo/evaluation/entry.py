"""What `posezoo eval` and `benchmarks/validate.py` do: a model and a folder to a record.

Every setting defaults to the recipe of the weights; whatever was chosen instead stands in the
record.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .. import PosePredictor
from ..datasets.samples import read_imagenet_flat, read_imagenet_folders
from ..device import choose_device
from ..errors import DataError, InputError
from ..zoo.config import PretrainedCfg
from ..zoo.model import ZooModel
from .runner import EvaluationRecord, Share, evaluate
from .tasks import CocoTask, ImagenetTask, MpiiTask, Task

__all__ = ["evaluate_model"]

_ANNOTATIONS = {
    "coco": ("person_keypoints_val2017.json",),
    "coco_wholebody": ("coco_wholebody_val_v1.0.json",),
    "mpii": ("valid.json", "mpii_val.json"),
}
_MPII_TRUTH = ("gt_valid.mat", "mpii_gt_val.mat")
_DETECTIONS = ("COCO_val2017_detections_AP_H_56_person.json",)
_FOLDERS = ("", "annotations", "annot", "person_detection_results")


def evaluate_model(
    model: nn.Module,
    data: Path,
    *,
    boxes: str = "det",
    annotations: Path | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    tf32: bool = False,
    compile: bool = False,
    batch_size: int = 64,
    flip_test: bool | None = None,
    workers: int = 4,
    limit: int | None = None,
    out: Path | None = None,
    share: Share | None = None,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
) -> EvaluationRecord | None:
    """Evaluate a model on the data set it was made for.

    Args:
        model: from `create_model`.
        data: the folder of the data set, laid out as it is published; as COCO is for a model
            with keypoints of its own.
        boxes: "gt", "det" for the common detection file (person AP 56.4) in the folder, or a
            detection file. COCO and COCO-WholeBody only.
        annotations: the annotation file, where it is not the usual one at the usual place.
        device: default CUDA if there is one (under torchrun the one of the local rank).
        dtype: bfloat16 and float16 run under autocast.
        tf32: let CUDA round float32 products and convolutions to TF32.
        compile: run the network through torch.compile.
        batch_size: crops or images per forward.
        flip_test: None is the recipe's choice.
        workers: threads that read images.
        limit: only the first so many images; such numbers compare with nothing.
        out, share, resume, progress, command: see `runner.evaluate`.

    Raises:
        DataError: files that are missing or malformed, or predictions that are not finite.
        InputError: a model without an evaluation, or an option out of range.
    """
    for option, value in (("batch_size", batch_size), ("workers", workers), ("limit", limit)):
        if value is not None and value < 1:
            raise InputError(f"{option} is {value}; valid: an integer from 1")
    cfg: PretrainedCfg = model.pretrained_cfg  # type: ignore[assignment]
    place = choose_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)  # page-locked memory and compiled code belong to it
    settings: dict[str, Any] = {
        "dtype": str(dtype).removeprefix("torch."),
        "tf32": tf32,
        "compile": compile,
        "input_size": list(cfg.input.size),
        "limit": limit,
    }
    reading: dict[str, Any] = {"workers": workers}
    if compile:
        model.compile()
    task: Task
    if cfg.task == "classification":
        samples = _imagenet_samples(data)[:limit]
        task = ImagenetTask(
            model, samples, device=place, dtype=dtype, batch_size=batch_size, **reading
        )
    elif cfg.task == "pose":
        predictor = PosePredictor(
            model, device=place, dtype=dtype, batch_size=batch_size, flip_test=flip_test
        )
        settings |= {
            "flip_test": predictor.flip_test,
            "recipe_flip_test": cfg.decode is not None and cfg.decode.flip_test,
            "geometry": cfg.input.geometry,
            "bbox_padding": cfg.input.bbox_padding,
            **(model.settings() if isinstance(model, ZooModel) else {}),
        }
        labels = annotations or _find(data, _ANNOTATIONS.get(cfg.dataset, _ANNOTATIONS["coco"]))
        reading["limit"] = limit
        if cfg.dataset == "mpii":
            task = MpiiTask(predictor, labels, data, _find(data, _MPII_TRUTH), **reading)
        else:
            task = CocoTask(predictor, labels, data, _boxes(data, boxes), **reading)
    else:
        raise InputError(f"{cfg.name} is a {cfg.task}; only poses and classes are evaluated")
    with _tf32(tf32):
        return evaluate(
            task,
            model=cfg.name,
            dataset=cfg.dataset,
            settings=settings,
            run={"batch_size": batch_size, "workers": workers},
            weights=dict(getattr(model, "origin", {})),
            device=place,
            command=command,
            out=out,
            share=share,
            resume=resume,
            progress=progress,
        )


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Set what float32 means on CUDA; PyTorch alone lets convolutions round to TF32."""
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = allowed
    try:
        yield
    finally:
        for place, value in zip(places, before):
            place.allow_tf32 = value


def _find(data: Path, names: tuple[str, ...]) -> Path:
    """Return the first of `names` at one of the usual places below the data folder."""
    places = [data / folder / name for name in names for folder in _FOLDERS]
    for place in places:
        if place.is_file():
            return place
    raise DataError(
        f"no {' or '.join(names)} below {data} (looked at {', '.join(map(str, places))})"
    )


def _boxes(data: Path, boxes: str) -> Literal["gt"] | Path:
    if boxes == "gt":
        return "gt"
    return _find(data, _DETECTIONS) if boxes == "det" else Path(boxes)


def _imagenet_samples(data: Path) -> Any:
    """Read class folders (here or in `val/`), or a flat folder with the list of the devkit."""
    truth = data / "ILSVRC2012_validation_ground_truth.txt"
    if truth.is_file():
        synsets = data / "meta.mat"
        if not synsets.is_file():
            synsets = data / "synsets.txt"
        images = data / "val" if (data / "val").is_dir() else data
        return read_imagenet_flat(images, truth, synsets)
    return read_imagenet_folders(data / "val" if (data / "val").is_dir() else data)
