"""Person box to crop matrix and back, in the three conventions of the published tables.

A `geometry` fixes three steps together: box to centre and size, the crop matrix, and the way
back. "mmpose0" and "mmpose1" map the box onto the whole input; "tokenpose" maps pixel centres,
so that both sides count one pixel less. Boxes, centres and sizes are in image pixels, pixel
centres have integer coordinates.

Quirk: roundings to float32 follow the original code, because they decide which 1/32 pixel
step a few rows of the crop fall into.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .errors import InputError
from .zoo.config import Geometry

__all__ = [
    "boxes_to_center_size",
    "check_bboxes",
    "crop_matrices",
    "image_to_input",
    "input_to_image",
    "invert_matrices",
    "mpii_center_size",
]

Array = NDArray[Any]

_PIXEL_STD = np.float32(200)  # unit of a "scale" in mmpose 0.x, the HRNet lineage and MPII


def check_bboxes(bboxes: ArrayLike, image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return boxes as float64 `(N, 4)` xyxy; an empty list or `(0, 4)` is fine.

    Raises:
        InputError: wrong shape, NaN or infinity, no area, or no overlap with the image.
    """
    try:
        boxes = np.asarray(bboxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"bboxes are not numbers ({error}); give an (N, 4) xyxy array") from error
    if boxes.size == 0 and boxes.shape in ((0,), (0, 4)):
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(
            f"bboxes have shape {boxes.shape}, expected (N, 4): one row (x1, y1, x2, y2) in image "
            "pixels per person"
        )
    height, width = image_size
    x1, y1, x2, y2 = boxes.T
    with np.errstate(invalid="ignore"):
        problems = (
            (~(np.abs(boxes) < 1e9).all(axis=1), "holds NaN, infinity or over 1e9; drop it"),
            (
                (x2 <= x1) | (y2 <= y1),
                "has no area; boxes are (x1, y1, x2, y2) with x1 < x2 and y1 < y2, not xywh",
            ),
            (
                (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
                f"lies outside the image of {width} x {height} pixels; drop it",
            ),
        )
    for bad, what in problems:
        if bad.any():
            index = int(bad.argmax())
            raise InputError(f"bbox {index} {boxes[index].tolist()} {what}")
    return boxes


def boxes_to_center_size(
    bboxes: ArrayLike, input_size: tuple[int, int], padding: float, geometry: Geometry
) -> tuple[Array, Array]:
    """Turn xyxy boxes `(N, 4)` into centres and box sizes, both float32 `(N, 2)`.

    The shorter side is enlarged to the aspect ratio of `input_size` (H, W), then both sides
    are multiplied by `padding`. Centres are (x, y), sizes (w, h).
    """
    boxes = np.asarray(bboxes, dtype=np.float64).reshape(-1, 4)
    aspect = input_size[1] / input_size[0]
    sides = boxes[:, 2:] - boxes[:, :2]
    pad = np.float32(padding)
    if geometry == "mmpose1":  # reads (x, y, w, h) as float32, then works on corners
        near = boxes[:, :2].astype(np.float32)
        far = near + sides.astype(np.float32)
        return (near + far) * np.float32(0.5), _fix_aspect((far - near) * pad, aspect)
    less = 1.0 if geometry == "tokenpose" else 0.0
    centers = (boxes[:, :2] + (sides - less) * 0.5).astype(np.float32)
    fixed = _fix_aspect(sides, aspect)
    if geometry == "tokenpose":
        scales = (fixed / 200.0).astype(np.float32)
    else:
        scales = fixed.astype(np.float32) / _PIXEL_STD
    return centers, scales * pad * _PIXEL_STD


def _fix_aspect(sides: Array, aspect: float) -> Array:
    """Enlarge the shorter of (w, h) in `(N, 2)` until w / h is `aspect`."""
    width, height = sides.T
    return np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], 1)


def mpii_center_size(center: ArrayLike, scale: ArrayLike) -> tuple[Array, Array]:
    """Turn MPII centres `(N, 2)` and scales `(N,)` into 0-based centres and sizes, `(N, 2)`.

    MPII gives 1-based centres and the person's height in units of 200 pixels. The box is moved
    down by 15 scales and enlarged by 1.25, except where the centre is marked unknown (x = -1).
    """
    centers = np.array(center, dtype=np.float64).reshape(-1, 2)
    scales = np.array(scale, dtype=np.float64).reshape(-1)
    known = centers[:, 0] != -1
    centers[:, 1] += np.where(known, 15.0 * scales, 0.0)
    sides = np.where(known, 1.25 * scales, scales) * 200.0
    return centers - 1.0, np.stack([sides, sides], axis=1)


def crop_matrices(
    centers: Array, box_sizes: Array, input_size: tuple[int, int], geometry: Geometry
) -> NDArray[np.float64]:
    """Return the maps from image to input pixels, float64 `(N, 2, 3)`.

    Each map is solved from three point pairs: the centre, the middle of one side, and the
    corner beside it. The closed form differs in the last bits, see the module's quirk.

    Raises:
        InputError: a box too small for the geometry; its index and size are given.
    """
    source, target = _three_points(centers, box_sizes, input_size, geometry)
    system = np.zeros((len(source), 3, 2, 6))  # unknowns: the six entries of the map
    system[:, :, 0, :2] = system[:, :, 1, 3:5] = source
    system[:, :, 0, 2] = system[:, :, 1, 5] = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        matrices = _solve(system.reshape(-1, 6, 6), target.reshape(-1, 6)).reshape(-1, 2, 3)
    usable = (matrices[:, 0, 0] > 0) & np.isfinite(matrices).all(axis=(1, 2))
    if not usable.all():
        index = int(usable.argmin())
        limit = " (it needs more than 1)" if geometry == "tokenpose" else ""
        raise InputError(
            f"box {index} is {box_sizes[index][0]} pixels wide after padding, too small for "
            f"geometry {geometry!r}{limit}; drop it"
        )
    return matrices


def _three_points(
    centers: Array, box_sizes: Array, input_size: tuple[int, int], geometry: Geometry
) -> tuple[Array, Array]:
    """Return the float32 points `(N, 3, 2)` in the image and in the input, as float64."""
    less = 1 if geometry == "tokenpose" else 0
    half = (np.asarray(box_sizes)[:, 0] - less) * -0.5
    zero = np.zeros_like(half)
    arms = np.stack([half, zero] if geometry == "mmpose1" else [zero, half], axis=1)
    size = np.array(input_size[::-1]) - less
    middle = np.broadcast_to(size * 0.5, arms.shape)
    reach = size[0] * -0.5
    arm = np.broadcast_to([reach, 0.0] if geometry == "mmpose1" else [0.0, reach], arms.shape)
    return _with_corner(np.asarray(centers), arms), _with_corner(middle, arm)


def _with_corner(middle: Array, arm: Array) -> NDArray[np.float64]:
    """Return the middle, middle + arm, and the arm turned by 90 degrees about its end."""
    first = middle.astype(np.float32)
    second = (middle + arm).astype(np.float32)
    back = first - second
    third = second + np.stack([-back[:, 1], back[:, 0]], axis=1)
    return np.stack([first, second, third], axis=1).astype(np.float64)


def _solve(a: Array, b: Array) -> Array:
    """Solve `a @ x = b` for matrices `(N, 6, 6)` by elimination with row pivoting.

    The order of operations is OpenCV's, so that the last bit is the same and does not depend
    on which linear algebra library numpy was built with.
    """
    size = b.shape[1]
    system = np.concatenate([a, b[:, :, None]], axis=2)
    rows = np.arange(len(system))
    for i in range(size):
        pivot = np.abs(system[:, i:, i]).argmax(axis=1) + i
        system[rows, pivot], system[:, i] = system[:, i].copy(), system[rows, pivot]
        factors = system[:, i + 1 :, i] * (-1.0 / system[:, i, i])[:, None]
        system[:, i + 1 :] += factors[:, :, None] * system[:, None, i]
    x = system[:, :, size]
    for i in reversed(range(size)):
        for k in range(i + 1, size):
            x[:, i] -= system[:, i, k] * x[:, k]
        x[:, i] /= system[:, i, i]
    return x


def invert_matrices(matrices: Array) -> NDArray[np.float64]:
    """Invert affine maps `(N, 2, 3)`."""
    m = np.asarray(matrices, dtype=np.float64)
    determinant = 1.0 / (m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] * m[:, 1, 0])
    a = m[:, 1, 1] * determinant
    b = -m[:, 0, 1] * determinant
    c = -m[:, 1, 0] * determinant
    d = m[:, 0, 0] * determinant
    x = -(a * m[:, 0, 2] + b * m[:, 1, 2])
    y = -(c * m[:, 0, 2] + d * m[:, 1, 2])
    return np.stack([a, b, x, c, d, y], axis=1).reshape(-1, 2, 3)


def input_to_image(
    points: Tensor,
    centers: Array | Tensor,
    box_sizes: Array | Tensor,
    input_size: tuple[int, int],
    geometry: Geometry,
) -> Tensor:
    """Map points `(N, K, 2)` from input pixels to image pixels, on their device.

    `centers` and `box_sizes` `(N, 2)` are those of the crops; as tensors on the same device
    they cost no transfer.

    Quirk: "tokenpose" uses the factor of the width for both axes, as its crops do.
    """
    center = torch.as_tensor(centers, dtype=points.dtype, device=points.device)[:, None]
    box = torch.as_tensor(box_sizes, dtype=points.dtype, device=points.device)[:, None]
    x, y = points.unbind(-1)  # (N, K)
    (center_x, center_y), (w, h) = center.unbind(-1), box.unbind(-1)  # (N, 1)
    height, width = input_size
    if geometry == "tokenpose":
        factor = (w - 1) / (width - 1)
        x = (x - (width - 1) / 2) * factor + center_x
        y = (y - (height - 1) / 2) * factor + center_y
    else:
        x = x * (w / width) + center_x - w * 0.5
        y = y * (h / height) + center_y - h * 0.5
    return torch.stack([x, y], dim=-1)


def image_to_input(
    points: Tensor,
    centers: Array | Tensor,
    box_sizes: Array | Tensor,
    input_size: tuple[int, int],
    geometry: Geometry,
) -> Tensor:
    """Map points `(N, K, 2)` from image pixels to input pixels: the inverse of `input_to_image`."""
    center = torch.as_tensor(centers, dtype=points.dtype, device=points.device)[:, None]
    box = torch.as_tensor(box_sizes, dtype=points.dtype, device=points.device)[:, None]
    height, width = input_size
    if geometry == "tokenpose":
        middle = points.new_tensor([(width - 1) / 2, (height - 1) / 2])
        return (points - center) * ((width - 1) / (box[..., :1] - 1)) + middle
    return (points - center + box * 0.5) * (points.new_tensor([width, height]) / box)
