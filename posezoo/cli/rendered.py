"""A rendered scene and a photo: find the people and their poses, draw them, score a small data set.

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
from ..results import PoseResult
from ..synthetic.bodies import Photographer, write_people
from ..zoo.catalog import OFFLINE_MODEL
from ..zoo.factory import create_model

__all__ = ["DemoReport", "beside", "load_photo", "render_scene", "run_demo"]

_SEED = 20_260_101  # not one of the training's
_SCENE_SEED, _CHOSEN = 2026, (1, 4)  # a shoot, and which of it is shown


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What was found.

    Attributes:
        picture: the file written.
        params: parameters of the model.
        found: people in scene and photo.
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
    """Find poses in a rendered scene and in a photo, and score `images` other rendered pictures.

    Args:
        picture: PNG to write, scene and photo on the left, and with their poses on the right.
        images: how many others.
    """
    start = time.monotonic()
    model = create_model(OFFLINE_MODEL, pretrained=True)
    predictor = PosePredictor(model, device="cpu")
    pictures = [render_scene(), load_photo()]
    before = time.monotonic()
    found = [predictor(pixels) for pixels in pictures]
    pose_seconds = time.monotonic() - before
    rows = [beside(pixels, result) for pixels, result in zip(pictures, found)]
    with replacing(picture) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary, "PNG")
    with tempfile.TemporaryDirectory(prefix="posezoo-demo-") as folder:
        write_people(Path(folder), images, _SEED)
        record = evaluate_model(
            model, Path(folder), EvaluationSettings(boxes="gt"), RunOptions(device="cpu")
        )
    if record is None:
        raise RuntimeError("a demo runs in one process; start it without torchrun")
    return DemoReport(
        picture=picture,
        params=sum(p.numel() for p in model.parameters()),
        found=sum(map(len, found)),
        images=record.images,
        people=record.results,
        statistics=dict(record.statistics),
        pose_seconds=pose_seconds,
        seconds=time.monotonic() - start,
    )


def render_scene() -> NDArray[np.uint8]:
    """Render the scene of the demo, two people in a room, (320, 480, 3)."""
    shoot, chosen = _CHOSEN
    shots = Photographer(_SCENE_SEED, (320, 480), is_whole=True).shoot(shoot, 16)
    return np.ascontiguousarray(shots.images[chosen].permute(1, 2, 0).numpy())


def load_photo() -> NDArray[np.uint8]:
    """Return the photo in the package, (320, 480, 3)."""
    with resources.as_file(resources.files("posezoo") / "assets" / "cameraman.jpg") as file:
        return load_image(file)


def beside(pixels: NDArray[np.uint8], found: PoseResult) -> NDArray[np.uint8]:
    """Return an image (H, 2 W, 3), plain and with the poses found in it."""
    return np.hstack([pixels, np.asarray(draw_poses(pixels, found))])
