"""What `posezoo predict` does: files of photos and boxes in, results and overlays out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ._checkpoints import replacing
from ._factory import create_model
from .errors import DataError, InputError
from .geometry import check_bboxes
from .predictor import PosePredictor
from .results import PoseResult
from .transforms import load_image

__all__ = ["draw_files", "predict_files", "read_boxes", "write_text"]

_CHUNK = 16  # images in memory at a time

Boxes = dict[str, tuple[np.ndarray, np.ndarray]]


def predict_files(
    images: Sequence[Path],
    model: str,
    *,
    checkpoint: Path | None = None,
    boxes: Path | None = None,
    box_threshold: float = 0.0,
    detector: str | None = "auto",
    device: str | None = None,
    batch_size: int = 64,
    flip_test: bool | None = None,
    progress: bool = False,
) -> Iterator[tuple[Path, PoseResult | InputError]]:
    """Yield the result of each photo in order, or the error of a photo that cannot be used.

    Raises:
        InputError, DataError, UnknownModelError, CheckpointError, WeightsUnavailableError:
            before the first photo, for what concerns all of them.
    """
    known = None if boxes is None else read_boxes(boxes, box_threshold)
    network = create_model(model, pretrained=checkpoint is None, checkpoint=checkpoint)
    predictor = PosePredictor(
        network, detector=detector, device=device, batch_size=batch_size, flip_test=flip_test
    )
    with tqdm(total=len(images), unit="image", disable=not progress) as bar:
        for first in range(0, len(images), _CHUNK):
            paths = images[first : first + _CHUNK]
            yield from zip(paths, _predict_chunk(predictor, paths, known))
            bar.update(len(paths))


def _predict_chunk(
    predictor: PosePredictor, paths: Sequence[Path], known: Boxes | None
) -> list[PoseResult | InputError]:
    outcome: dict[int, PoseResult | InputError] = {}
    good: list[tuple[int, np.ndarray, Any, Any]] = []
    for i, path in enumerate(paths):
        try:
            image = load_image(path)
            bboxes, scores = (None, None) if known is None else _boxes_of(path, known)
            if bboxes is not None:
                check_bboxes(bboxes, image.shape[:2])
            good.append((i, image, bboxes, scores))
        except InputError as error:
            outcome[i] = error
    results = predictor.predict_batch(*map(list, zip(*(g[1:] for g in good)))) if good else []
    outcome |= {g[0]: result for g, result in zip(good, results)}
    return [outcome[i] for i in range(len(paths))]


# ------------------------------------------------------------------------------- boxes


def read_boxes(path: Path, threshold: float = 0.0) -> Boxes:
    """Read person boxes by file name, or by image id where the file has no names.

    Three forms are understood: COCO annotations, a COCO detection list (the image id is taken
    from the digits of the photo's name), and `{"photo.jpg": [[x1, y1, x2, y2], …]}`.

    Raises:
        DataError: unreadable, or none of these.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and "annotations" in data:
            names = {image["id"]: Path(image["file_name"]).name for image in data["images"]}
            rows = [
                (names[a["image_id"]], a["bbox"], 1.0)
                for a in data["annotations"]
                if a.get("category_id", 1) == 1 and not a.get("iscrowd")
            ]
            found: Boxes = {name: _gather([], 0.0) for name in names.values()}
            return found | _by_name(rows, threshold)
        if isinstance(data, dict):
            return {
                name: (np.asarray(boxes, np.float64).reshape(-1, 4), np.ones(len(boxes)))
                for name, boxes in data.items()
            }
        return _by_name(
            [
                (str(row["image_id"]), row["bbox"], float(row["score"]))
                for row in data
                if row.get("category_id", 1) == 1
            ],
            threshold,
        )
    except OSError as error:
        raise DataError(f"cannot read boxes from {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} holds no boxes I understand ({type(error).__name__}: {error}); give COCO "
            "annotations, a COCO detection list, or {file name: [[x1, y1, x2, y2], …]}"
        ) from error


def _by_name(rows: list[tuple[str, list[float], float]], threshold: float) -> Boxes:
    groups: dict[str, list[tuple[list[float], float]]] = {}
    for name, xywh, score in rows:
        groups.setdefault(name, []).append((xywh, score))
    return {name: _gather(group, threshold) for name, group in groups.items()}


def _gather(group: list[tuple[list[float], float]], threshold: float) -> tuple[Any, Any]:
    kept = [(xywh, score) for xywh, score in group if score >= threshold]
    xywh = np.asarray([box for box, _ in kept], np.float64).reshape(-1, 4)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    return xyxy, np.asarray([score for _, score in kept])


def _boxes_of(path: Path, known: Boxes) -> tuple[np.ndarray, np.ndarray]:
    digits = path.stem.rpartition("_")[2]
    keys = [path.name, str(int(digits))] if digits.isdigit() else [path.name]
    for key in keys:
        if key in known:
            return known[key]
    raise InputError(
        f"the boxes file has no entry for {path.name} (looked for {' and '.join(keys)}); "
        "add one, or leave --boxes out to use a detector"
    )


# ------------------------------------------------------------------------------- output


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and move it into place."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def draw_files(
    results: Sequence[tuple[Path, PoseResult]], target: Path, *, threshold: float
) -> list[Path]:
    """Write one overlay PNG per photo: `target` itself for one, else a folder."""
    from .draw import draw_poses

    single = len(results) == 1 and target.suffix.lower() == ".png"
    written = []
    for path, result in results:
        place = target if single else target / f"{path.stem}.png"
        with replacing(place) as temporary:
            draw_poses(load_image(path), result, threshold=threshold).save(temporary, "PNG")
        written.append(place)
    return written
