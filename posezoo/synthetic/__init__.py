"""Rendered people, and data sets of them: `python -m posezoo.synthetic FOLDER`."""

from .film import FilmFrame, noisy_poses, render_film
from .scene import Scene, render_scene
from .writing import coco_annotations, write_coco, write_mpii

__all__ = [
    "FilmFrame",
    "Scene",
    "coco_annotations",
    "noisy_poses",
    "render_film",
    "render_scene",
    "write_coco",
    "write_mpii",
]
