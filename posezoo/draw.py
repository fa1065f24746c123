"""Draw poses onto an image, with Pillow alone.

The person's left side is warm, the right side cold, the middle pale; each person gets the next
triple of colours, which a tracked person keeps. Thickness follows the size of the person, and for
hands and face the size of the part, so that small and large photos look alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .errors import InputError
from .skeletons import Skeleton
from .transforms import ImageSource, load_image

if TYPE_CHECKING:
    from .results import PoseResult

__all__ = ["draw_poses", "draw_tokens"]

Color = tuple[int, int, int]
Point = tuple[float, float]

_PALETTE: tuple[dict[str, Color], ...] = (  # of one person after the other
    {"left": (255, 140, 0), "right": (0, 155, 255), "middle": (255, 246, 224)},
    {"left": (255, 62, 92), "right": (0, 214, 170), "middle": (255, 232, 236)},
    {"left": (255, 221, 26), "right": (158, 118, 255), "middle": (241, 235, 255)},
    {"left": (255, 105, 210), "right": (134, 220, 40), "middle": (236, 255, 222)},
)
_OUTLINE: Color = (18, 20, 26)
_FACE_LINES = (  # first and last of the 68 face points, and whether the line closes
    (0, 16, False),  # jaw
    (17, 21, False),  # brows
    (22, 26, False),
    (27, 30, False),  # nose
    (31, 35, False),
    (36, 41, True),  # eyes
    (42, 47, True),
    (48, 59, True),  # lips
    (60, 67, True),
)
_HEAD = ("nose", "eye", "ear")
_FINEST = 0.6  # pixels
_MAX_LAYER = 3000  # pixels along a side; larger drawings are smoothed less
_MAX_LAYERS = 40  # per picture; more people share them, and the rims between them are less soft


def draw_poses(
    image: ImageSource, result: PoseResult, *, threshold: float = 0.3, boxes: bool = False
) -> Image.Image:
    """Return a copy of the image with the poses drawn onto it.

    Args:
        image: what `load_image` takes; the image the result belongs to.
        result: the persons to draw.
        threshold: keypoints with a lower score, and limbs that end in one, are left out.
        boxes: also draw the boxes.

    Raises:
        InputError: the image cannot be read, or has another size than the result says.
    """
    canvas = Image.fromarray(load_image(image))
    if canvas.size != tuple(result.image_size[::-1]):
        raise InputError(
            f"the image has {canvas.height} x {canvas.width} pixels (H x W), the result belongs to "
            f"one of {result.image_size[0]} x {result.image_size[1]}; give the same image"
        )
    widths, heights = (result.bboxes[:, 2:] - result.bboxes[:, :2]).T
    order = np.argsort(-widths * heights, kind="stable")  # small persons stay on top
    numbers = np.arange(len(result)) if result.ids is None else result.ids
    people = [
        _strokes(result[i], _PALETTE[numbers[i] % len(_PALETTE)], canvas.size, threshold, boxes)
        for i in order
    ]
    group = -(-len(people) // _MAX_LAYERS) or 1
    for first in range(0, len(people), group):
        _paint(canvas, people[first : first + group])
    return canvas


@dataclass
class _Strokes:
    """Lines (ends, width, colour) and discs (centre, radius, colour), in image pixels."""

    lines: list[tuple[list[Point], float, Color]] = field(default_factory=list)
    discs: list[tuple[Point, float, Color]] = field(default_factory=list)


def _strokes(
    person: PoseResult,
    colors: dict[str, Color],
    size: tuple[int, int],
    threshold: float,
    boxes: bool,
) -> _Strokes:
    """Return what is drawn of one person on a canvas of `size` (W, H)."""
    points = person.keypoints[0].astype(np.float64)
    far = 2 * max(size)  # a stray point must not blow up the drawing
    with np.errstate(invalid="ignore"):
        shown = (person.keypoint_scores[0] >= threshold) & (np.abs(points) < far).all(axis=1)
    x1, y1, x2, y2 = person.bboxes[0].tolist()
    extent = math.sqrt(max(x2 - x1, 1.0) * max(y2 - y1, 1.0))
    width = max(extent * 0.017, min(0.8 + max(size) * 0.0006, extent * 0.05))
    strokes = _Strokes()
    if boxes:
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        strokes.lines.append((corners, max(1.0, width * 0.5), colors["middle"]))
    _add_limbs(strokes, person.skeleton, points, shown, width, colors)
    return strokes


def _side(name: str) -> str:
    side = name.partition("_")[0]
    return side if side in ("left", "right") else "middle"


def _add_limbs(
    strokes: _Strokes,
    skeleton: Skeleton,
    points: NDArray[np.float64],
    shown: NDArray[np.bool_],
    width: float,
    colors: dict[str, Color],
) -> None:
    """Add the limbs and keypoints that are shown."""
    names = skeleton.keypoint_names
    widths = _widths(skeleton, points, shown, width)
    sides = [_side(name) for name in names]
    lines = [(a, b, 1.0) for a, b in skeleton.limbs]
    start, stop = skeleton.parts.get("face", (0, 0))
    for first, last, closed in _FACE_LINES if stop else ():
        chain = [start + i for i in (*range(first, last + 1), *((first,) if closed else ()))]
        lines += [(a, b, 0.7) for a, b in zip(chain, chain[1:])]
    for a, b, factor in lines:
        if shown[a] and shown[b]:
            pair = {sides[a], sides[b]} - {"middle"}
            side = pair.pop() if len(pair) == 1 else "middle"
            ends: list[Point] = [tuple(points[a]), tuple(points[b])]
            strokes.lines.append((ends, factor * min(widths[a], widths[b]), colors[side]))
    for i in np.flatnonzero(shown):
        strokes.discs.append((tuple(points[i]), widths[i] * 0.85, colors[sides[i]]))


def _widths(
    skeleton: Skeleton, points: NDArray[np.float64], shown: NDArray[np.bool_], width: float
) -> NDArray[np.float64]:
    """Return the line width at each keypoint: fine parts get a share of their own extent."""
    head = [i for i, name in enumerate(skeleton.keypoint_names) if name.split("_")[-1] in _HEAD]
    parts = {part: list(range(*span)) for part, span in skeleton.parts.items()}
    widths = np.full(len(points), width)
    for indices, share, least in (
        (head, 0.09, 0.4 * width),
        (parts.get("face", []), 0.02, _FINEST),
        (parts.get("left_hand", []), 0.05, _FINEST),
        (parts.get("right_hand", []), 0.05, _FINEST),
    ):
        seen = points[[i for i in indices if shown[i]]]
        extent = float(np.ptp(seen, axis=0).max()) if len(seen) else 0.0
        widths[indices] = min(width, max(extent * share, least))
    return widths


def _paint(canvas: Image.Image, people: list[_Strokes]) -> None:
    """Paint people on an enlarged transparent layer, shrink it, lay it over the canvas."""
    reach = [(p, w) for strokes in people for line, w, _ in strokes.lines for p in line]
    reach += [(p, r * 2) for strokes in people for p, r, _ in strokes.discs]
    if not reach:
        return
    margin = max(w for _, w in reach) * 2 + 2
    xy = np.array([p for p, _ in reach])
    left, top = np.maximum(np.floor(xy.min(axis=0) - margin), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(xy.max(axis=0) + margin), canvas.size).astype(int).tolist()
    if right <= left or bottom <= top:
        return
    zoom = max(1, min(4, _MAX_LAYER // max(right - left, bottom - top)))
    layer = Image.new("RGBA", ((right - left) * zoom, (bottom - top) * zoom), (*_OUTLINE, 0))
    pen = ImageDraw.Draw(layer)

    def move(point: Point) -> Point:  # pixel centres are integers
        return (point[0] + 0.5 - left) * zoom - 0.5, (point[1] + 0.5 - top) * zoom - 0.5

    def disc(point: Point, radius: float, color: tuple[int, ...]) -> None:
        x, y = move(point)
        r = radius * zoom
        pen.ellipse((round(x - r), round(y - r), round(x + r), round(y + r)), fill=color)

    def line(ends: list[Point], width: float, color: tuple[int, ...]) -> None:
        pen.line([move(p) for p in ends], fill=color, width=max(1, round(width * zoom)))
        for point in ends:
            disc(point, width / 2, color)

    def rim(width: float) -> float:
        return min(1.2, 0.35 * width)

    for strokes in people:
        for ends, width, _ in strokes.lines:
            line(ends, width + 2 * rim(width), (*_OUTLINE, 170))
        for ends, width, color in strokes.lines:
            line(ends, width, (*color, 255))
        for point, radius, color in strokes.discs:
            disc(point, radius + rim(radius), (*_OUTLINE, 255))
            disc(point, radius, (*color, 255))
    layer = layer.reduce(zoom)
    canvas.paste(layer, (left, top), layer)


def draw_tokens(
    image: ImageSource, cell_token: NDArray[np.integer], *, outline: bool = True
) -> Image.Image:
    """Return a picture of the regions that tokens stand for, each in its mean colour.

    Args:
        image: the crop that the network saw, of any size.
        cell_token: (H0, W0) integers, the token of each cell of the initial grid; for TCFormer
            `model.forward_intermediates(x, tokens=True)[stage].cell_token[0]`.
        outline: draw the borders between regions.

    Raises:
        InputError: `cell_token` is no map of integers from 0.
    """
    pixels = load_image(image)
    cells = np.asarray(cell_token)
    if cells.ndim != 2 or not cells.size or cells.dtype.kind not in "iu" or cells.min() < 0:
        raise InputError(
            f"cell_token must be (H0, W0) integers from 0, got {cells.dtype} of shape {cells.shape}"
        )
    rows, columns = (
        np.arange(size) * count // size for size, count in zip(pixels.shape[:2], cells.shape)
    )
    token = np.unique(cells, return_inverse=True)[1].reshape(cells.shape)[np.ix_(rows, columns)]
    counts = np.bincount(token.ravel())
    means = np.stack(
        [np.bincount(token.ravel(), pixels[..., c].ravel()) / counts for c in range(3)], axis=1
    )
    painted = np.rint(means)[token]  # (H, W, 3)
    if outline:
        border = np.zeros(token.shape, dtype=bool)
        border[:, 1:] |= token[:, 1:] != token[:, :-1]
        border[1:] |= token[1:] != token[:-1]
        is_dark = painted.mean() < 128
        painted[border] = 0.35 * painted[border] + 0.65 * 255 * is_dark
    return Image.fromarray(painted.astype(np.uint8))
