"""Rendered people and a photo: find their poses, draw them, score a small data set.

Nothing is downloaded.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..draw import draw_poses
from ..evaluation import EvaluationSettings, RunOptions, evaluate_model
from ..files import replacing
from ..images import load_image
from ..predictor import PosePredictor
from ..synthetic import render_scene, write_coco
from ..synthetic.bodies import Photographer
from ..zoo.catalog import OFFLINE_MODEL
from ..zoo.factory import create_model

__all__ = ["MODEL", "DemoReport", "load_photo", "photo_row", "run_demo"]

MODEL = "hrnet_xs_192x144.rendered"
_CROPS = (4, 7)  # which of a shoot are shown
_SEED = 20_260_101  # not one of the training's
_SCENE = (360, 480)


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What was found.

    Attributes:
        picture: the file written.
        params: parameters of the model.
        found: people in the picture.
        images, people: size of the data set that was scored.
        statistics: COCO's, as fractions.
        pose_seconds: what the picture's poses took.
        seconds: what everything took.
    """

    picture: Path
    params: int
    found: int
    images: int
    people: int
    statistics: dict[str, float]
    pose_seconds: float
    seconds: float


def run_demo(picture: Path, images: int = 150) -> DemoReport:
    """Draw one rendered scene with the poses found in it, and score `images` others.

    Args:
        picture: PNG to write, painted people, rendered bodies and a photo on the left, and with
            their poses on the right.
        images: how many others.
    """
    start = time.monotonic()
    model = create_model(MODEL, pretrained=True)
    scene = render_scene((_SEED, 1009), _SCENE, people=3)
    predictor = PosePredictor(model, device="cpu")
    before = time.monotonic()
    result = predictor(scene.image, scene.bboxes)
    pose_seconds = time.monotonic() - before
    drawn = np.asarray(draw_poses(scene.image, result))
    bodies = PosePredictor(create_model(OFFLINE_MODEL, pretrained=True), device="cpu")
    rows = [np.hstack([scene.image, drawn]), _bodies_row(bodies, _SCENE[1] // len(_CROPS))]
    with replacing(picture) as temporary:
        Image.fromarray(np.vstack([*rows, photo_row(bodies)])).save(temporary, "PNG")
    with tempfile.TemporaryDirectory(prefix="posezoo-demo-") as folder:
        write_coco(Path(folder), images, _SEED)
        record = evaluate_model(
            model, Path(folder), EvaluationSettings(boxes="gt"), RunOptions(device="cpu")
        )
    if record is None:
        raise RuntimeError("a demo runs in one process; start it without torchrun")
    return DemoReport(
        picture=picture,
        params=sum(p.numel() for p in model.parameters()),
        found=len(result),
        images=record.images,
        people=record.results,
        statistics=dict(record.statistics),
        pose_seconds=pose_seconds,
        seconds=time.monotonic() - start,
    )


def _bodies_row(predictor: PosePredictor, width: int) -> NDArray[np.uint8]:
    """Return crops of rendered bodies, plain on the left and with the poses found on the right."""
    shots = Photographer(_SEED, (width * 4 // 3, width)).shoot(0, 8)
    plain, drawn = [], []
    for i in _CROPS:
        pixels = shots.images[i].permute(1, 2, 0).numpy().copy()
        plain.append(pixels)
        found = predictor(pixels, shots.boxes[i : i + 1].numpy())
        drawn.append(np.asarray(draw_poses(pixels, found)))
    return np.hstack(plain + drawn)


def load_photo() -> NDArray[np.uint8]:
    """Return the photo in the package, (320, 480, 3)."""
    with resources.as_file(resources.files("posezoo") / "assets" / "cameraman.jpg") as file:
        return load_image(file)


def photo_row(predictor: PosePredictor) -> NDArray[np.uint8]:
    """Return the photo in the package, and with what detector and model find in it, (320, 960,
    3)."""
    photo = load_photo()
    return np.hstack([photo, np.asarray(draw_poses(photo, predictor(photo)))])
