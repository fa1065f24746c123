"""Person box to crop and back, in the conventions of the published tables: one object each.

A convention fixes together how annotated boxes are cleaned, how a box becomes a centre and a
size, the crop matrix, the way back, and what a codec does at the border of a heatmap. Mixing two
of them costs several AP without a word. Boxes, centres and sizes are in image pixels; pixel
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

__all__ = [
    "CONVENTIONS",
    "MMPOSE0",
    "MMPOSE0_16",
    "MMPOSE1",
    "TOKENPOSE",
    "UDP",
    "CropConvention",
    "bbox_problems",
    "boxes_to_center_size",
    "check_bboxes",
    "crop_matrices",
    "get_convention",
    "image_to_input",
    "input_to_image",
    "invert_matrices",
    "mpii_center_size",
]

Array = NDArray[Any]
Size = tuple[int, int]

_PIXEL_STD = np.float32(200)  # unit of a "scale" in mmpose 0.x, the HRNet lineage and MPII


def check_bboxes(bboxes: ArrayLike, image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return boxes as float64 `(N, 4)` xyxy; an empty list or `(0, 4)` is fine.

    Raises:
        InputError: wrong shape, NaN or infinity, no area, or no overlap with the image.
    """
    if isinstance(bboxes, Tensor):
        bboxes = bboxes.detach().cpu().numpy()
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
    for bad, what in bbox_problems(boxes, image_size):
        if bad.any():
            index = int(bad.argmax())
            raise InputError(f"bbox {index} {boxes[index].tolist()} {what}")
    return boxes


def bbox_problems(
    boxes: NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[tuple[NDArray[np.bool_], str], ...]:
    """Return what can be wrong with boxes `(N, 4)` xyxy, each as a mask `(N,)` and words."""
    height, width = image_size
    x1, y1, x2, y2 = boxes.T
    with np.errstate(invalid="ignore"):
        is_finite = np.asarray((np.abs(boxes) < 1e9).all(axis=1))
        return (
            (~is_finite, "holds NaN, infinity or over 1e9; drop it"),
            (
                (x2 <= x1) | (y2 <= y1),
                "has no area; boxes are (x1, y1, x2, y2) with x1 < x2 and y1 < y2, not xywh",
            ),
            (
                (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
                f"is outside the image of {width} x {height} pixels; drop it",
            ),
        )


class CropConvention:
    """mmpose 0.x, and what the other conventions change about it.

    The box is mapped onto the whole input: its sides count pixels, not steps between centres.

    Attributes:
        name: in configurations.
        smallest_box: a padded width must be above it, in image pixels.
        empty_cell: the cell (x, y) of a heatmap without a positive value.
        results_have_boxes: whether result rows carry the box, from which COCO's scorer then takes
            the area of a detection.
        quarter_step_per_axis: whether, next to the border, one axis may take its quarter step
            without the other.
    """

    name = "mmpose0"
    smallest_box = 0.0
    empty_cell = -1.0
    results_have_boxes = False
    quarter_step_per_axis = False

    def clean_boxes(
        self, bboxes_xywh: Array, areas: Array, sizes: Array
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Clip annotated boxes to their images as this code base does (mmpose: 0.29).

        Args:
            bboxes_xywh: `(N, 4)` boxes of the annotation file.
            areas: `(N,)` areas of the segments.
            sizes: `(N, 2)` image sizes (H, W).

        Returns:
            Boxes xyxy `(N, 4)` and, `(N,)`, whether the code base keeps them.
        """
        first, end = self._clipped(bboxes_xywh, sizes)
        return np.concatenate([first, end], axis=1), (areas > 0) & (end > first).all(axis=1)

    _width_less = 0.0  # 1 where the last pixel is inside the box

    def _clipped(self, bboxes_xywh: Array, sizes: Array) -> tuple[Array, Array]:
        """Return the corners (N, 2) inside the image."""
        first = np.maximum(bboxes_xywh[:, :2], 0)
        last = sizes[:, ::-1] - 1.0  # (N, 2) as x, y
        return first, np.minimum(last, first + np.maximum(bboxes_xywh[:, 2:] - self._width_less, 0))

    def center_size(
        self, bboxes: ArrayLike, input_size: Size, padding: float
    ) -> tuple[Array, Array]:
        """Turn xyxy boxes `(N, 4)` into centres (x, y) and box sizes (w, h), float32 `(N, 2)`.

        The shorter side is enlarged to the aspect ratio of `input_size` (H, W), then both sides
        are multiplied by `padding`.
        """
        boxes = _as_boxes(bboxes)
        sides = boxes[:, 2:] - boxes[:, :2]
        centers = (boxes[:, :2] + sides * 0.5).astype(np.float32)
        scales = _fix_aspect(sides, input_size).astype(np.float32) / _PIXEL_STD
        return centers, scales * np.float32(padding) * _PIXEL_STD

    def crop_matrices(
        self, centers: Array, box_sizes: Array, input_size: Size
    ) -> NDArray[np.float64]:
        """Return the maps from image to input pixels, float64 `(N, 2, 3)`.

        Each map is solved from three point pairs: the centre, the middle of one side, and the
        corner beside it. The closed form differs in the last bits, see the module's quirk.

        Raises:
            InputError: a box too small for the convention; its index and size are given.
        """
        source = _with_corner(np.asarray(centers), self._arms(np.asarray(box_sizes)))
        size = np.array([input_size[::-1]]) - self._steps_less  # (1, 2)
        middle = np.broadcast_to(size * 0.5, np.shape(centers))
        target = _with_corner(middle, np.broadcast_to(self._arms(size, less=0), np.shape(centers)))
        system = np.zeros((len(source), 3, 2, 6))  # unknowns: the six entries of the map
        system[:, :, 0, :2] = system[:, :, 1, 3:5] = source
        system[:, :, 0, 2] = system[:, :, 1, 5] = 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            matrices = _solve(system.reshape(-1, 6, 6), target.reshape(-1, 6)).reshape(-1, 2, 3)
        return self._checked(matrices, box_sizes)

    _steps_less = 0  # pixels that both ends of a side leave out together

    def _arms(self, sizes: Array, less: int | None = None) -> Array:
        """Return the step from the middle of a box (w, h) to its upper side, `(N, 2)`."""
        half = (sizes[:, 0] - (self._steps_less if less is None else less)) * -0.5
        return np.stack([np.zeros_like(half), half], axis=1)

    def _checked(self, matrices: Array, box_sizes: Array) -> NDArray[np.float64]:
        usable = (matrices[:, 0, 0] > 0) & np.isfinite(matrices).all(axis=(1, 2))
        if not usable.all():
            index = int(usable.argmin())
            limit = f" (it needs more than {self.smallest_box:g})" if self.smallest_box else ""
            raise InputError(
                f"box {index} is {box_sizes[index][0]} pixels wide after padding, too small for "
                f"geometry {self.name!r}{limit}; drop it"
            )
        return matrices

    def input_to_image(
        self,
        points: Tensor,
        centers: Array | Tensor,
        box_sizes: Array | Tensor,
        input_size: Size,
    ) -> Tensor:
        """Map points `(N, K, 2)` from input pixels to image pixels, on their device.

        `centers` and `box_sizes` `(N, 2)` are those of the crops; as tensors on the same device
        they cost no transfer.
        """
        (center_x, center_y), (w, h) = _columns(points, centers, box_sizes)  # (N, 1) each
        x, y = points.unbind(-1)  # (N, K)
        height, width = (side - self._last_less for side in input_size)
        x = x * (w / width) + center_x - w * 0.5
        y = y * (h / height) + center_y - h * 0.5
        return torch.stack([x, y], dim=-1)

    _last_less = 0  # 1 where the last pixel centre of the input is on the edge of the box

    def image_to_input(
        self,
        points: Tensor,
        centers: Array | Tensor,
        box_sizes: Array | Tensor,
        input_size: Size,
    ) -> Tensor:
        """Map points `(N, K, 2)` from image to input pixels: the inverse of `input_to_image`."""
        center = torch.as_tensor(centers, dtype=points.dtype, device=points.device)[:, None]
        box = torch.as_tensor(box_sizes, dtype=points.dtype, device=points.device)[:, None]
        size = points.new_tensor(input_size[::-1]) - self._last_less
        return (points - center + box * 0.5) * (size / box)

    def rescale(self, points: Tensor, size: Size, new_size: Size) -> Tensor:
        """Map points (x, y) `(..., 2)` of a map of one size (H, W) onto one of another size.

        It leads from heatmap cells to input pixels and back.
        """
        less = self._last_less
        fy, fx = ((new - less) / (old - less) for new, old in zip(new_size, size))
        x, y = points.unbind(-1)
        return torch.stack([x * fx, y * fy], dim=-1)


class _Mmpose0_16(CropConvention):
    """mmpose 0.16, which counts pixels when it cleans: a width of 50 ends 49 further right."""

    name = "mmpose0_16"
    _width_less = 1.0


class _Mmpose1(CropConvention):
    """mmpose 1.x: boxes are read as float32 and worked on by their corners."""

    name = "mmpose1"
    results_have_boxes = True
    quarter_step_per_axis = True

    def clean_boxes(
        self, bboxes_xywh: Array, areas: Array, sizes: Array
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        start, wh = bboxes_xywh[:, :2], bboxes_xywh[:, 2:]
        last = sizes[:, ::-1] - 1.0  # (N, 2) as x, y
        corners = [np.clip(point, 0, last) for point in (start, start + wh)]
        boxes = np.concatenate(corners, axis=1)  # (N, 4)
        return boxes, np.all(boxes[:, 2:] > boxes[:, :2], axis=1)

    def center_size(
        self, bboxes: ArrayLike, input_size: Size, padding: float
    ) -> tuple[Array, Array]:
        boxes = _as_boxes(bboxes)
        near = boxes[:, :2].astype(np.float32)
        far = near + (boxes[:, 2:] - boxes[:, :2]).astype(np.float32)
        sizes = _fix_aspect((far - near) * np.float32(padding), input_size)
        return (near + far) * np.float32(0.5), sizes

    def _arms(self, sizes: Array, less: int | None = None) -> Array:
        return super()._arms(sizes, less)[:, ::-1]  # to the left side


class _TokenPose(CropConvention):
    """The HRNet lineage: pixel centres are mapped, so that both sides count one pixel less.

    Quirk: the factor of the width serves both axes, as in the crops.
    """

    name = "tokenpose"
    smallest_box = 1.0
    empty_cell = 0.0
    _steps_less = 1
    _width_less = 1.0

    def clean_boxes(
        self, bboxes_xywh: Array, areas: Array, sizes: Array
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        first, end = self._clipped(bboxes_xywh, sizes)
        keep = (areas > 0) & (end >= first).all(axis=1)
        return np.concatenate([first, end + 1], axis=1), keep

    def center_size(
        self, bboxes: ArrayLike, input_size: Size, padding: float
    ) -> tuple[Array, Array]:
        boxes = _as_boxes(bboxes)
        sides = boxes[:, 2:] - boxes[:, :2]
        centers = (boxes[:, :2] + (sides - 1.0) * 0.5).astype(np.float32)
        scales = (_fix_aspect(sides, input_size) / 200.0).astype(np.float32)
        return centers, scales * np.float32(padding) * _PIXEL_STD

    def input_to_image(
        self,
        points: Tensor,
        centers: Array | Tensor,
        box_sizes: Array | Tensor,
        input_size: Size,
    ) -> Tensor:
        (center_x, center_y), (w, _) = _columns(points, centers, box_sizes)
        x, y = points.unbind(-1)  # (N, K)
        height, width = input_size
        factor = (w - 1) / (width - 1)
        x = (x - (width - 1) / 2) * factor + center_x
        y = (y - (height - 1) / 2) * factor + center_y
        return torch.stack([x, y], dim=-1)

    def image_to_input(
        self,
        points: Tensor,
        centers: Array | Tensor,
        box_sizes: Array | Tensor,
        input_size: Size,
    ) -> Tensor:
        center = torch.as_tensor(centers, dtype=points.dtype, device=points.device)[:, None]
        box = torch.as_tensor(box_sizes, dtype=points.dtype, device=points.device)[:, None]
        height, width = input_size
        middle = points.new_tensor([(width - 1) / 2, (height - 1) / 2])
        return (points - center) * ((width - 1) / (box[..., :1] - 1)) + middle

    def rescale(self, points: Tensor, size: Size, new_size: Size) -> Tensor:
        (height, width), (new_height, new_width) = size, new_size
        x, y = points.unbind(-1)
        factor = (new_width - 1) / (width - 1)
        y = (y - (height - 1) / 2) * factor + (new_height - 1) / 2  # about the middle
        return torch.stack([x * factor, y], dim=-1)


class _Udp(CropConvention):
    """Unbiased data processing (arXiv 1911.07524): sizes count steps between pixel centres.

    The first and last pixel centres of the input fall on the edges of the box, and each axis has
    a factor of its own.
    """

    name = "udp"
    _last_less = 1

    def crop_matrices(
        self, centers: Array, box_sizes: Array, input_size: Size
    ) -> NDArray[np.float64]:
        boxes = np.asarray(box_sizes, dtype=np.float64)
        last = np.array(input_size[::-1]) - 1.0  # x, y
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = last / boxes  # (N, 2)
            shifts = factors * (0.5 * boxes - np.asarray(centers, dtype=np.float64))
        zero = np.zeros(len(boxes))
        rows = [factors[:, 0], zero, shifts[:, 0], zero, factors[:, 1], shifts[:, 1]]
        matrices = np.stack(rows, axis=1).reshape(-1, 2, 3)
        return self._checked(matrices.astype(np.float32).astype(np.float64), boxes)


MMPOSE0, MMPOSE1, TOKENPOSE, UDP = CropConvention(), _Mmpose1(), _TokenPose(), _Udp()
MMPOSE0_16 = _Mmpose0_16()  # for cleaning annotated boxes only; no weights name it
CONVENTIONS = {c.name: c for c in (MMPOSE0, MMPOSE1, TOKENPOSE, UDP, MMPOSE0_16)}


def get_convention(geometry: str | CropConvention) -> CropConvention:
    """Return the convention of a name.

    Raises:
        InputError: no such convention; the valid names are listed.
    """
    if isinstance(geometry, CropConvention):
        return geometry
    if geometry not in CONVENTIONS:
        raise InputError(f"geometry is {geometry!r}, expected one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[geometry]


def boxes_to_center_size(
    bboxes: ArrayLike, input_size: Size, padding: float, geometry: str | CropConvention
) -> tuple[Array, Array]:
    """Call `CropConvention.center_size`."""
    return get_convention(geometry).center_size(bboxes, input_size, padding)


def crop_matrices(
    centers: Array, box_sizes: Array, input_size: Size, geometry: str | CropConvention
) -> NDArray[np.float64]:
    """Call `CropConvention.crop_matrices`."""
    return get_convention(geometry).crop_matrices(centers, box_sizes, input_size)


def input_to_image(
    points: Tensor,
    centers: Array | Tensor,
    box_sizes: Array | Tensor,
    input_size: Size,
    geometry: str | CropConvention,
) -> Tensor:
    """Call `CropConvention.input_to_image`."""
    return get_convention(geometry).input_to_image(points, centers, box_sizes, input_size)


def image_to_input(
    points: Tensor,
    centers: Array | Tensor,
    box_sizes: Array | Tensor,
    input_size: Size,
    geometry: str | CropConvention,
) -> Tensor:
    """Call `CropConvention.image_to_input`."""
    return get_convention(geometry).image_to_input(points, centers, box_sizes, input_size)


def _as_boxes(bboxes: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(bboxes, dtype=np.float64).reshape(-1, 4)


def _fix_aspect(sides: Array, input_size: Size) -> Array:
    """Enlarge the shorter of (w, h) in `(N, 2)` until w / h is that of `input_size` (H, W)."""
    aspect = input_size[1] / input_size[0]
    width, height = sides.T
    return np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], 1)


def _columns(
    points: Tensor, centers: Array | Tensor, box_sizes: Array | Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return x and y of the centres and w and h of the boxes, `(N, 1)`, like `points`."""
    center = torch.as_tensor(centers, dtype=points.dtype, device=points.device)[:, None]
    box = torch.as_tensor(box_sizes, dtype=points.dtype, device=points.device)[:, None]
    return center.unbind(-1), box.unbind(-1)


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
