"""Rendered people, and data sets of them: `python -m posezoo.synthetic FOLDER`."""

from .scene import Scene, render_scene
from .writing import coco_annotations, write_coco, write_mpii

__all__ = ["Scene", "coco_annotations", "render_scene", "write_coco", "write_mpii"]
