"""Draw poses onto an image, with Pillow alone.

The person's left side is warm, the right side cold, the middle pale; each person gets the next
pair of colours. Thickness follows the size of the person, and for hands and faces the size of
the part, so that small and large photos look alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .errors import InputError
from .results import PoseResult
from .skeletons import Skeleton
from .transforms import ImageSource, load_image

__all__ = ["draw_poses"]

Color = tuple[int, int, int]
Points = NDArray[np.float64]

_PALETTE: Sequence[dict[str, Color]] = (  # one per person, in turn
    {"left": (255, 140, 0), "right": (0, 155, 255), "middle": (255, 244, 214)},
    {"left": (255, 62, 92), "right": (0, 214, 170), "middle": (255, 226, 232)},
    {"left": (255, 221, 26), "right": (158, 118, 255), "middle": (238, 230, 255)},
    {"left": (255, 105, 210), "right": (134, 220, 40), "middle": (232, 255, 214)},
)
_OUTLINE = (16, 18, 24)
_LAYER_SIDE = 3000  # pixels; larger drawings are smoothed less
_CHAINS = {  # lines through the 68 face points; a closed one returns to its start
    "jaw": [*range(17)],
    "brows": [*range(17, 22), *range(22, 27)],
}
