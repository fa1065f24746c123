"""What `posezoo predict` does: files of photos and boxes in, results and overlays out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..draw import draw_poses, draw_tokens
from ..errors import DataError, InputError
from ..geometry import check_bboxes
from ..predictor import PosePredictor
from ..results import PoseResult
from ..transforms import load_image
from ..weights.files import replacing
from ..zoo.catalog import list_models

__all__ = [
    "check_regions",
    "draw_files",
    "draw_token_files",
    "predict_files",
    "read_boxes",
    "write_text",
]

_CHUNK = 16  # images in memory at a time

Boxes = dict[str, tuple[np.ndarray, np.ndarray]]


def predict_files(
    predictor: PosePredictor,
    images: Sequence[Path],
    boxes: Boxes | None = None,
    *,
    progress: bool = False,
) -> Iterator[tuple[Path, PoseResult | InputError]]:
    """Yield the result of each photo in order, or the error of a photo that cannot be used.

    Args:
        boxes: see `read_boxes`; None asks the predictor's detector.

    Raises:
        InputError, WeightsUnavailableError: the detector cannot be had.
    """
    with tqdm(total=len(images), unit="image", disable=not progress) as bar:
        for first in range(0, len(images), _CHUNK):
            paths = images[first : first + _CHUNK]
            yield from zip(paths, _predict_chunk(predictor, paths, boxes))
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
) -> Iterator[Path]:
    """Write one overlay per photo, see `_write_pictures`."""
    pictures = ((p, draw_poses(load_image(p), r, threshold=threshold)) for p, r in results)
    return _write_pictures(pictures, target, len(results))


def check_regions(predictor: PosePredictor) -> None:
    """Refuse a model whose tokens are no regions of the image.

    Raises:
        InputError: it is one; those that are not are named.
    """
    if not predictor.model.has_token_regions:
        raise InputError(
            f"{predictor.cfg.name} has no tokens that are regions of the image; models that have: "
            + ", ".join(list_models("tcformer*", task="pose"))
        )


def draw_token_files(
    predictor: PosePredictor, results: Sequence[tuple[Path, PoseResult]], target: Path
) -> Iterator[Path]:
    """Write for each photo a row per person: the crop, and its tokens in stages 2, 3 and 4.

    Raises:
        InputError: see `check_regions`.
    """
    check_regions(predictor)
    model: Any = predictor.model

    def paint(path: Path, result: PoseResult) -> Image.Image:
        crops = predictor.crops(load_image(path), result.bboxes)  # (N, 3, H, W)
        with torch.inference_mode():
            stages = model.token_regions(predictor.crop.normalise(crops))
        cells = [cells.cpu().numpy() for cells in stages[1:]]  # (N, H0, W0) each
        rows = []
        for i, crop in enumerate(crops.permute(0, 2, 3, 1).cpu().numpy()):  # (H, W, 3)
            large = crop.repeat(2, 0).repeat(2, 1)
            rows.append(np.hstack([large, *(np.asarray(draw_tokens(large, c[i])) for c in cells)]))
        return Image.fromarray(np.vstack(rows))

    people = [(path, result) for path, result in results if len(result)]
    return _write_pictures(((p, paint(p, r)) for p, r in people), target, len(people))


def _write_pictures(
    pictures: Iterable[tuple[Path, Image.Image]], target: Path, count: int
) -> Iterator[Path]:
    """Write PNGs, to `target` itself if it is a PNG and `count` is 1, else into that folder."""
    single = count == 1 and target.suffix.lower() == ".png"
    for path, picture in pictures:
        place = target if single else target / f"{path.stem}.png"
        with replacing(place) as temporary:
            picture.save(temporary, "PNG")
        yield place
