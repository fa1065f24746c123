"""All triangles of some pictures in one list: bodies, what they wear, and things."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import wardrobe
from .crowd import People
from .devices import sent
from .human import BODY, HAIR, SKIRT, Human
from .solids import SHAPES, Things

__all__ = ["Mesh", "Mesher"]


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Triangles. What is said of vertices is in columns (…, T), so that arithmetic runs along
    memory.

    Attributes:
        positions, normals: (3, T) in the world of their picture.
        static: (T,) column of what is known of the vertex, see `Mesher`.
        in_picture: (T,).
        faces: (3, F) vertices of triangles; `picture (F,)` of each, its `owner (F,)`, a body or the
            material of a thing, and its `part (F,)`: BODY, SKIRT, HAIR or THING.
    """

    positions: Tensor
    normals: Tensor
    static: Tensor
    in_picture: Tensor
    faces: Tensor
    picture: Tensor
    owner: Tensor
    part: Tensor


class Mesher:
    """Collects triangles, on the default device.

    Attributes:
        static: (14, …) what is known of vertices whatever their pose: template position, position
            on the head and attributes of bodies; position in the unit shape for things.
    """

    def __init__(self, human: Human) -> None:
        self.human = human
        self._shapes = [tuple(sent(tensor) for tensor in shape) for shape in SHAPES]
        things = torch.cat([vertices for vertices, _, _ in self._shapes])
        columns = torch.cat([human.template, human.on_head, human.attributes], 1)
        padded = F.pad(things, (0, columns.shape[1] - 3))
        self.static = torch.cat([columns, padded]).T.contiguous()
        corner = human.faces[:, 0]
        x, y, z = human.on_head[corner].unbind(1)
        over_face = (y < -0.35) & (x.abs() < 0.75) & (z < 0.75)
        self._height = human.template[corner, 2]
        self._on_head = torch.where(over_face, -torch.inf, z)  # hair is not worn there

    def __call__(self, people: People, things: Things) -> Mesh:
        """Build the mesh; pictures are numbered alike in both."""
        pieces = [self._bodies(people)]
        vertices = pieces[0].positions.shape[1]
        known = self.human.num_vertices
        for number, shape in enumerate(self._shapes):
            piece = _solids(shape, things.of_shape(number), known, vertices)
            pieces.append(piece)
            known += len(shape[0])
            vertices += piece.positions.shape[1]
        names = Mesh.__dataclass_fields__
        return Mesh(**{n: torch.cat([getattr(p, n) for p in pieces], -1) for n in names})

    def _bodies(self, people: People) -> Mesh:
        """Return bodies with the skirts and the hair that they wear."""
        h, part = self.human, self.human.part_of_face
        settings = people.outfits.settings

        def of(name: str) -> Tensor:
            return settings[:, wardrobe.SETTINGS.index(name), None]

        skirt = (part == SKIRT) & (of("skirt") > 0) & (self._height > of("hem"))
        hair = (part == HAIR) & (of("long_hair") > 0) & (self._on_head > of("hair_end"))
        owner, face = ((part == BODY) | skirt | hair).nonzero().unbind(1)
        picture, turned = sent(people.picture), people.is_reflection
        corners = torch.where(turned[owner, None], h.faces[face].flip(1), h.faces[face])
        normals = (
            wardrobe.normals(h, people.vertices) * torch.where(turned, -1.0, 1.0)[:, None, None]
        )
        return Mesh(
            positions=people.vertices.reshape(-1, 3).T.contiguous(),
            normals=normals.reshape(-1, 3).T.contiguous(),
            static=torch.arange(h.num_vertices).repeat(len(picture)),
            in_picture=picture.repeat_interleave(h.num_vertices),
            faces=(corners + (owner * h.num_vertices)[:, None]).T.contiguous(),
            picture=picture[owner], owner=owner, part=part[face],
        )  # fmt: skip


def _solids(
    shape: tuple[Tensor, ...], things: tuple[Tensor, Tensor, Tensor], known: int, start: int
) -> Mesh:
    """Return the things of a shape.

    Args:
        shape: one of `SHAPES`, and `things` those of it, on the CPU.
        known: first column of the shape in `Mesher.static`.
        start: how many vertices come before.
    """
    vertices, triangles, normals = shape
    matrices, pictures, materials = (sent(tensor) for tensor in things)
    count, linear = len(matrices), matrices[:, :, :3]
    positions = vertices @ linear.mT + matrices[:, None, :, 3]
    inverse = torch.linalg.pinv(things[0][:, :, :3])  # on the CPU: CUDA would wait for errors
    turned = F.normalize(normals @ sent(inverse), dim=-1)
    faces = triangles + (start + len(vertices) * torch.arange(count))[:, None, None]
    return Mesh(
        positions=positions.reshape(-1, 3).T, normals=turned.reshape(-1, 3).T,
        static=known + torch.arange(len(vertices)).repeat(count),
        in_picture=pictures.repeat_interleave(len(vertices)), faces=faces.reshape(-1, 3).T,
        picture=pictures.repeat_interleave(len(triangles)),
        owner=materials.repeat_interleave(len(triangles)),
        part=torch.full((count * len(triangles),), wardrobe.THING),
    )  # fmt: skip
