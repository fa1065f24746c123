"""Things made of boxes, cylinders and balls: furniture under and around a person, what hands hold.

World axes are those of the bodies: x to the left, y to the back, z up, metres. A solid is a unit
shape (from -0.5 to 0.5 on each axis) moved by a matrix (3, 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["BALL", "BOX", "SHAPES", "TUBE", "Things", "place", "random_turn", "turn_z"]

Array = NDArray[np.float64]

BOX, TUBE, BALL = range(3)
MATERIALS = 64  # of the things in a picture; those of picture i are numbered from 64 i on


@dataclass
class Things:
    """The solids of many pictures, growing: shape, matrix (3, 4), picture, and a number of the
    material, which things of one piece of furniture share."""

    shapes: list[int] = field(default_factory=list)
    matrices: list[Array] = field(default_factory=list)
    pictures: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)

    def add(self, picture: int, material: int, shape: int, matrix: Array) -> None:
        self.shapes.append(shape)
        self.matrices.append(matrix)
        self.pictures.append(picture)
        self.materials.append(material)

    def part(self, first: int, last: int) -> Things:
        """Return those in the pictures from `first` to before `last`, all renumbered from 0."""
        chosen = [i for i, picture in enumerate(self.pictures) if first <= picture < last]
        return Things(
            [self.shapes[i] for i in chosen], [self.matrices[i] for i in chosen],
            [self.pictures[i] - first for i in chosen],
            [self.materials[i] - first * MATERIALS for i in chosen],
        )  # fmt: skip

    def of_shape(self, shape: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return matrices (n, 3, 4), pictures and materials (n,) of those of a shape (CPU)."""
        chosen = [i for i, other in enumerate(self.shapes) if other == shape]
        matrices = np.array([self.matrices[i] for i in chosen]).reshape(-1, 3, 4)
        numbers = [[values[i] for i in chosen] for values in (self.pictures, self.materials)]
        pictures, materials = torch.from_numpy(np.array(numbers, np.int64))
        return torch.from_numpy(matrices).float(), pictures, materials

    def box(
        self, picture: int, material: int, low: tuple[float, ...], high: tuple[float, ...],
        frame: Array,
    ) -> None:  # fmt: skip
        """Add a box between two corners in a frame (3, 4)."""
        lower, upper = np.array(low), np.array(high)
        self.add(picture, material, BOX, place((lower + upper) / 2, upper - lower, frame=frame))


def place(
    center: Array, size: Array, turn: Array | None = None, frame: Array | None = None
) -> Array:
    """Return the matrix (3, 4) of a solid of a size, turned (3, 3), at a centre, in a frame."""
    matrix = np.concatenate([(np.eye(3) if turn is None else turn) * size, center[:, None]], 1)
    if frame is None:
        return matrix
    inside: Array = frame[:, :3] @ matrix
    inside[:, 3] += frame[:, 3]
    return inside


def turn_z(angle: float) -> Array:
    """Return a turn (3, 3) about the vertical by radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def random_turn(rng: np.random.Generator) -> Array:
    """Return any turn (3, 3)."""
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned: Array = q if np.linalg.det(q) > 0 else -q
    return turned


def _sheet(rows: int, columns: int) -> NDArray[np.int64]:
    """Return the triangles (2 * rows * columns, 3) of a grid of vertices."""
    index = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)


def _round(profile: Array, sides: int) -> tuple[Array, NDArray[np.int64]]:
    """Turn a profile (n, 2) of radius and height about the vertical."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    x, y = profile[:, :1] * np.cos(angle), profile[:, :1] * np.sin(angle)
    z = np.broadcast_to(profile[:, 1:], x.shape)
    return np.stack([x, y, z], -1).reshape(-1, 3), _sheet(len(profile) - 1, sides)


def _box(cuts: int = 3) -> tuple[Array, NDArray[np.int64]]:
    step = np.linspace(-0.5, 0.5, cuts + 1)
    u, v = (grid.ravel() for grid in np.meshgrid(step, step))
    sheet, count = _sheet(cuts, cuts), len(u)
    sides = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            rows = [u, v]
            rows.insert(axis, np.full_like(u, side))
            sides.append(np.stack(rows, 1))
    return np.concatenate(sides), np.concatenate([sheet + count * i for i in range(6)])


def _shape(made: tuple[Array, NDArray[np.int64]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return vertices, triangles and unit normals, triangles facing outwards."""
    vertices, faces = made
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    inwards = (normal * (a + b + c)).sum(1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    normal[inwards] *= -1
    summed = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(summed, faces[:, corner], normal)
    summed /= np.linalg.norm(summed, axis=1, keepdims=True) + 1e-9
    return (
        torch.from_numpy(vertices).float(),
        torch.from_numpy(faces),
        torch.from_numpy(summed).float(),
    )


_ARC = np.linspace(-np.pi / 2, np.pi / 2, 9)
SHAPES = (
    _shape(_box()),
    _shape(_round(np.array([(0.01, 0.5), (0.5, 0.5), (0.5, 0), (0.5, -0.5), (0.01, -0.5)]), 14)),
    _shape(_round(np.stack([0.5 * np.cos(_ARC) + 1e-3, 0.5 * np.sin(_ARC)], 1), 12)),
)
"""Vertices (v, 3), triangles (t, 3) and normals (v, 3) of the unit box, tube and ball."""
