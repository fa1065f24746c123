"""Rendered photographs of dressed people with exact keypoints, as the crops that networks take.

Whatever is random depends on (seed, number of the shoot) alone, so the same arguments give the same
bytes on the same machine and kind of device. NumPy draws on the CPU, where poses are tried and JPEG
is made; all else runs on the device. Light, rooms and lenses are drawn piece by piece of a shoot;
pieces are larger on CUDA, so shoots of more than `_PIECE` people differ from those of the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...device import choose_device
from ...files import replacing
from ...zoo.recipe import Augmentation
from . import camera, lens, light, rooms, wardrobe
from .backgrounds import Backgrounds
from .crowd import People, sample_people
from .devices import CPU, computing_on, sent
from .human import BODY, HAIR, SKIRT, load_human
from .mesh import Mesh, Mesher
from .props import scatter
from .raster import Hits, rasterise
from .solids import MATERIALS
from .textures import Atlas, Sheet, random_colors

__all__ = ["Photographer", "Shots"]

Array = NDArray[np.float64]
_LARGER = 1.25  # rendered this much larger, for smooth edges
_PIECE = 8  # people, few enough for the caches of a CPU
_LARGE_PIECE = 64  # on other devices, in about 1 GB of their memory
_ATLASES = 40  # sets of textures, of which a shoot uses one
_PEOPLE = 4  # most of them in a photo
_SPREAD = 2.5  # others are so much farther away in whole photos
_LEAST = 60  # pixels of somebody who counts as in sight
_FRAMED = 33  # keypoints of body, feet and fingertips; faces and hands are within them
_BELOW = ("shoulder", "shoulder", "hip", "hip", "knee")  # where photos of the upper body end


@dataclass(frozen=True, kw_only=True)
class Shots:
    """B crops of a person each, on the CPU.

    Attributes:
        images: uint8 RGB (B, 3, H, W); black outside the photo.
        keypoints: (B, K, 3) x, y in pixels and v: 2 in sight, 1 hidden, 0 outside the photo.
        boxes: (B, 4) xyxy around what is in sight of the person, and `areas (B,)`, its pixels.
        people: (B, 4, 4) such boxes of the person and of others, 0 where there is nobody.
        heads: (B, 4) xyxy around the head, hair aside, in sight or not; `crowns (B, 3)`, its top,
            like a keypoint.
    """

    images: Tensor
    keypoints: Tensor
    boxes: Tensor
    areas: Tensor
    people: Tensor
    heads: Tensor
    crowns: Tensor


class Photographer:
    """Makes shots of people. It can be sent to other processes, which make their own of what is on
    a device when they first need it; textures that one of them drew are in a temporary folder.

    Args:
        seed: of all that is random.
        size: (H, W) of the crops in pixels.
        padding: factor on a person's box, as a network's configuration has it.
        augmentation: how crops are moved; default not at all.
        device: what renders; default the CPU.
        backgrounds: a folder of photos that are behind half of the people.
        is_whole: photos as a whole instead of crops, with more around the person.

    Raises:
        InputError: no such device, or no photos in the folder.
    """

    def __init__(
        self, seed: int, size: tuple[int, int], padding: float = 1.25,
        augmentation: Augmentation | None = None, device: str | torch.device | None = None,
        backgrounds: Path | None = None, is_whole: bool = False,
    ) -> None:  # fmt: skip
        self.seed, self.size, self.padding, self.is_whole = seed, size, padding, is_whole
        self.augmentation = augmentation or Augmentation()
        self._larger = (round(size[0] * _LARGER), round(size[1] * _LARGER))
        self.device = choose_device(CPU if device is None else device)
        self.human = load_human()
        self.backgrounds = Backgrounds(backgrounds) if backgrounds else None
        self._folder = backgrounds
        self._atlases: dict[int, Atlas] = {}
        self._temporary: TemporaryDirectory[str] | None = None
        self._shared: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._shared is None:
            self._temporary = TemporaryDirectory(prefix="posezoo-")  # as long as this object
            self._shared = Path(self._temporary.name)
        given = (self.seed, self.size, self.padding, self.augmentation, self.device, self._folder,
                 self.is_whole)  # fmt: skip
        return Photographer, given, {"_shared": self._shared}

    @cached_property
    def _mesh(self) -> Mesher:
        return Mesher(load_human(self.device))

    def shoot(self, number: int, count: int) -> Shots:
        """Make `count` shots; `number` tells this call's from those of others."""
        rng = np.random.default_rng((self.seed, number))
        with computing_on(self.device):
            return self._shoot(rng, self._atlas(number % _ATLASES).opened(), count)

    def _shoot(self, rng: np.random.Generator, atlas: Sheet, count: int) -> Shots:
        extra = rng.choice(_PEOPLE, count, p=[0.52, 0.27, 0.14, 0.07])
        picture = np.concatenate([np.arange(count), np.repeat(np.arange(count), extra)])
        spread = _SPREAD if self.is_whole else 1.0
        people, things = sample_people(self._mesh.human, rng, picture, count, atlas.count, spread)
        close = rng.random(count) < 0.36
        eyes, axes = _cameras(rng, people, close)
        for i in range(count):
            scatter(rng, things, i, eyes[i])
        made = []
        piece = _PIECE if self.device == CPU else _LARGE_PIECE
        for first in range(0, count, piece):
            part = slice(first, min(first + piece, count))
            some = people.part(part.start, part.stop)
            mesh = self._mesh(some, things.part(part.start, part.stop))
            crops = self._crops(rng, some, eyes[part], axes[part], close[part])
            made.append(self._expose(rng, atlas, some, mesh, crops, eyes[part]))
        return Shots(**{
            field.name: torch.cat([getattr(m, field.name) for m in made]) for field in fields(Shots)
        })  # fmt: skip

    def _crops(
        self, rng: np.random.Generator, people: People, eyes: Array, axes: Tensor,
        close: NDArray[np.bool_],
    ) -> camera.Crops:  # fmt: skip
        count, names = len(eyes), self.human.keypoint_names
        points = people.keypoints[:count]
        cuts = [
            (points[:, names.index(f"left_{n}")] + points[:, names.index(f"right_{n}")]) / 2
            for n in _BELOW
        ]
        seen = (rng, sent(eyes).float(), axes, people.vertices[:count, : self.human.num_skin],
                torch.stack(cuts, 1), close, self._larger)  # fmt: skip
        if self.is_whole:
            return camera.whole(*seen)
        return camera.crop(*seen, self.padding, self.augmentation)

    def _atlas(self, number: int) -> Atlas:
        if number not in self._atlases:
            self._atlases[number] = self._known_atlas(number)
        return self._atlases[number]

    def _known_atlas(self, number: int) -> Atlas:
        file = self._shared / f"{number}.npy" if self._shared else None
        if file is not None and file.is_file():
            return Atlas(np.load(file, mmap_mode="c"))
        atlas = Atlas.draw(np.random.default_rng((self.seed, number, 1)))
        if file is not None and file.parent.is_dir():
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, atlas.stored)
        return atlas

    def _expose(
        self, rng: np.random.Generator, atlas: Sheet, people: People, mesh: Mesh,
        crops: camera.Crops, eyes: Array,
    ) -> Shots:  # fmt: skip
        size, count = self._larger, len(crops.eye)
        x, y, near = (value[mesh.faces] for value in _pixels(mesh, crops))  # (3, F)
        both = (mesh.part == SKIRT) | (mesh.part == HAIR)
        hits = rasterise(x, y, near, mesh.picture, (count, *size), both)
        lights = light.sample_lights(rng, count)
        main = people.vertices[:count, : self.human.num_skin]
        middle = (main.amin(1) + main.amax(1)) / 2
        maps = light.cast_shadows(
            lights, mesh.positions, mesh.faces, mesh.picture, middle, torch.full((count,), 1.5)
        )
        scenery = rooms.sample_rooms(rng, eyes.astype(np.float32).astype(np.float64), atlas)
        inside = crops.in_photo(size)
        pixel = inside.flatten().nonzero()[:, 0]
        picture = torch.div(pixel, size[0] * size[1], rounding_mode="floor")
        rays = crops.rays(size, pixel, picture)
        spot = (
            torch.div(pixel, size[1], rounding_mode="floor") % size[0] / size[0],
            pixel % size[1] / size[0],
        )
        canvas = torch.zeros(3, count * size[0] * size[1])
        canvas[:, pixel] = scenery.paint(atlas, crops.eye, rays, picture, spot, lights, maps)
        blur = np.where(rng.random(count) < 0.45, rng.uniform(0.3, 3.0, count), 0)
        behind = canvas.reshape(3, count, *size).transpose(0, 1)
        if self.backgrounds:
            self.backgrounds.put_behind(rng, behind, inside)
        canvas = lens.soften(behind, blur).transpose(0, 1).reshape(3, -1).contiguous()
        canvas[:, hits.pixel] = self._shade(
            rng, atlas, people, mesh, hits, crops, size, lights, maps, count
        )
        linear = canvas.reshape(3, count, *size).transpose(0, 1).contiguous()
        images = lens.compress(rng, lens.develop(rng, linear, self.size).cpu())
        images *= _resized(inside.cpu(), self.size)
        return self._annotate(people, mesh, hits, crops, inside, images)

    def _shade(
        self, rng: np.random.Generator, atlas: Sheet, people: People, mesh: Mesh, hits: Hits,
        crops: camera.Crops, size: tuple[int, int], lights: light.Lights, maps: light.ShadowMaps,
        count: int,
    ) -> Tensor:  # fmt: skip
        """Return the light (3, P) of the pixels hit."""
        corner = mesh.faces.index_select(1, hits.face)  # (3, P)
        part, owner, picture = (
            value.index_select(0, hits.face) for value in (mesh.part, mesh.owner, mesh.picture)
        )
        rays = crops.rays(size, hits.pixel, picture)
        points = crops.eye.T.contiguous().index_select(1, picture) + rays / hits.nearness
        normal = _mixed(mesh.normals, corner, hits.shares)
        is_thing = part == wardrobe.THING
        body, thing = (~is_thing).nonzero()[:, 0], is_thing.nonzero()[:, 0]
        color = torch.empty_like(points)
        gloss = torch.full_like(hits.nearness, 0.1)
        known = mesh.static[corner.index_select(1, body)]
        static = _mixed(self._mesh.static, known, hits.shares.index_select(1, body))
        owners = owner.index_select(0, body)
        waves, bumps = _waves(rng, static[:3], owners, people.outfits)
        painted = wardrobe.paint(static, part[body], owners, people.outfits, waves, atlas)
        color[:, body], rough, gloss[body] = painted
        known = mesh.static[corner.index_select(1, thing)]
        place = _mixed(self._mesh.static[:3], known, hits.shares.index_select(1, thing))
        color[:, thing] = _paint_things(rng, place, owner[thing], atlas, count)
        normal[:, body] += bumps * rough
        normal = light.unit(normal)
        away = ((normal * rays).sum(0) > 0) & (part != BODY)
        facing = torch.where(away, -normal, normal)
        return light.shade(lights, maps, picture, points, facing, crops.eye, color, gloss)

    def _annotate(
        self, people: People, mesh: Mesh, hits: Hits, crops: camera.Crops, inside: Tensor,
        images: Tensor,
    ) -> Shots:  # fmt: skip
        """Find what is in sight of the first body of each picture."""
        count, size = len(images), (inside.shape[1], inside.shape[2])
        human = self._mesh.human
        crown = people.vertices[:count].index_select(1, human.crown)
        points = torch.cat([people.keypoints[:count], crown], 1)
        plane, depth = camera.project(points, crops.eye, crops.axes)
        found = crops.to_pixels(plane)
        in_photo = ((plane > crops.photo[:, None, :2]) & (plane < crops.photo[:, None, 2:])).all(-1)
        in_photo &= depth > camera.NEAR
        own = (mesh.part[hits.face] != wardrobe.THING) & (
            mesh.owner[hits.face] == mesh.picture[hits.face]
        )
        who = torch.zeros(count * size[0] * size[1], dtype=torch.bool)
        near = torch.zeros(count * size[0] * size[1])
        who[hits.pixel], near[hits.pixel] = own, hits.nearness
        who, near = who.reshape(count, *size), near.reshape(count, *size)
        column = found[..., 0].round().long().clamp(0, size[1] - 1)
        row = found[..., 1].round().long().clamp(0, size[0] - 1)
        picture = torch.arange(count)[:, None]
        seen = who[picture, row, column] & (
            near[picture, row, column] < 1 / (depth - 0.16).clamp(min=0.05)
        )
        everyone = inside
        inside = inside & who
        factor = sent(np.array([self.size[1] / size[1], self.size[0] / size[0]], np.float32))
        keypoints = torch.cat(
            [(found + 0.5) * factor - 0.5, (in_photo * (1 + seen.long()))[..., None]], -1
        )
        keypoints = (keypoints * in_photo[..., None]).cpu()
        head = people.vertices[:count].index_select(1, human.head)
        around = crops.to_pixels(camera.project(head, crops.eye, crops.axes)[0]) * factor
        return Shots(
            images=images, keypoints=keypoints[:, :-1], crowns=keypoints[:, -1],
            heads=torch.cat([around.amin(1), around.amax(1)], 1).cpu(),
            boxes=(_boxes_of(inside) * factor.repeat(2)).cpu(),
            areas=(inside.flatten(1).sum(1) * factor.prod()).cpu(),
            people=(_boxes_of_all(people, mesh, hits, everyone) * factor.repeat(2)).cpu(),
        )  # fmt: skip


def _cameras(
    rng: np.random.Generator, people: People, close: NDArray[np.bool_]
) -> tuple[Array, Tensor]:
    """Return eyes (B, 3) and axes (B, 3, 3)."""
    count = len(close)
    keypoints = people.keypoints[:count, :_FRAMED].cpu().double().numpy()
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    upper = keypoints[:, [0, 5, 6, 11, 12]].mean(axis=1)
    target = np.where(close[:, None], upper, (low + high) / 2)
    size = np.where(
        close,
        0.9 * np.linalg.norm(keypoints[:, 0] - keypoints[:, 11:13].mean(axis=1), axis=1),
        np.linalg.norm(high - low, axis=1) / 2,
    )
    eyes = camera.sample_eyes(rng, target, size, close)
    return eyes, camera.aim(rng, eyes, target + rng.normal(0, 0.08, (count, 3)))


def _resized(inside: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask (B, H, W) at another size, uint8 (B, 1, h, w)."""
    return torch.nn.functional.interpolate(inside[:, None].to(torch.uint8), size)


def _boxes_of(masks: Tensor) -> Tensor:
    """Return boxes (B, 4), xyxy, around what is set in masks (B, H, W); 0 where nothing is."""
    low, high = [], []
    for dim in (1, 2):
        used = masks.any(dim)
        index = torch.arange(used.shape[1])
        low.append(torch.where(used, index, used.shape[1]).amin(1))
        high.append(torch.where(used, index + 1, 0).amax(1))
    found: Tensor = torch.stack(low + high, 1) * masks.flatten(1).any(1, keepdim=True)
    return found.float()


def _boxes_of_all(people: People, mesh: Mesh, hits: Hits, inside: Tensor) -> Tensor:
    """Return boxes (B, 4, 4) around what is in sight of each person of each picture.

    Args:
        inside: (B, H, W) what is in the photos.
    """
    count, height, width = inside.shape
    is_body = (mesh.part[hits.face] != wardrobe.THING) & inside.flatten()[hits.pixel]
    chosen = is_body.nonzero()[:, 0]
    owner, pixel = mesh.owner[hits.face[chosen]], hits.pixel[chosen]
    x = pixel % width
    y = torch.div(pixel, width, rounding_mode="floor") % height
    total = len(people.picture)
    low, high = (
        torch.zeros(total, 2, dtype=torch.long).scatter_reduce(
            0, owner[:, None].expand(-1, 2), torch.stack([x, y], 1), kind, include_self=False
        )
        for kind in ("amin", "amax")
    )
    boxes = torch.cat([low, high + 1], 1).float()
    boxes = boxes * (torch.bincount(owner, minlength=total) >= _LEAST)[:, None]
    picture = people.picture
    order = np.argsort(picture, kind="stable")
    first = np.searchsorted(picture[order], picture[order])
    found = torch.zeros(count * _PEOPLE, 4)
    found[sent(picture[order] * _PEOPLE + np.arange(total) - first)] = boxes[sent(order)]
    return found.reshape(count, _PEOPLE, 4)


def _pixels(mesh: Mesh, crops: camera.Crops) -> tuple[Tensor, Tensor, Tensor]:
    """Return x and y in pixels of the crops and the nearness of vertices, (T,) each."""

    def of(value: Tensor) -> Tensor:
        return value.contiguous().index_select(0, mesh.in_picture)

    local = [mesh.positions[i] - of(crops.eye[:, i]) for i in range(3)]
    axes = crops.axes
    x, y, depth = (
        of(axes[:, i, 0]) * local[0] + of(axes[:, i, 1]) * local[1] + of(axes[:, i, 2]) * local[2]
        for i in range(3)
    )
    safe = depth.clamp(min=camera.NEAR)
    u, v = x / safe, y / safe
    m = crops.matrix
    px, py = (of(m[:, i, 0]) * u + of(m[:, i, 1]) * v + of(m[:, i, 2]) for i in (0, 1))
    return px, py, torch.where(depth > camera.NEAR, 1 / safe, 0.0)


def _mixed(values: Tensor, corner: Tensor, shares: Tensor) -> Tensor:
    """Return the means of values (n, T) at corners (3, P) of triangles: (n, P)."""
    found = values.index_select(1, corner[0]) * shares[0]
    for i in (1, 2):
        found.addcmul_(values.index_select(1, corner[i]), shares[i])
    return found


def _waves(
    rng: np.random.Generator, rest: Tensor, owner: Tensor, outfits: wardrobe.Outfits
) -> tuple[Tensor, Tensor]:
    """Return smooth noise (P,), and what it adds to normals (3, P), over the bodies.

    Args:
        rest: (3, P) where on the template.
        owner: (P,) whose.
    """
    ripple = outfits.settings[:, wardrobe.SETTINGS.index("ripple")]
    n = len(ripple)
    drawn = [(rng.normal(size=(3, n)), rng.uniform(0, 6.28, (1, n))) for _ in range(12)]
    waves = sent(np.concatenate([rows for pair in drawn for rows in pair])).float().split(4)
    total = torch.zeros(4, rest.shape[1])
    for k, (factor, height) in enumerate(((1.2, 0.5), (2.4, 0.4), (4.5, 0.3))):
        for i in range(4):
            wave = waves[4 * k + i]  # 3 directions and a start
            directions = (wave[:3] * factor * ripple).index_select(1, owner)
            angle = wave[3].index_select(0, owner)
            for j in range(3):
                angle.addcmul_(directions[j], rest[j])
            total[i].add_(torch.sin(angle), alpha=height)
    return total[3], total[:3]


def _paint_things(
    rng: np.random.Generator, rest: Tensor, material: Tensor, atlas: Sheet, count: int
) -> Tensor:
    """Colour things (3, P) by their materials: plain, or a texture around them."""
    total = count * MATERIALS
    colors = sent(random_colors(rng, total)).T.contiguous()
    texture = sent(rng.integers(0, atlas.count, total))
    scale = sent(np.exp(rng.normal(0, 0.6, total))).float().index_select(0, material)
    plain = sent(rng.random(total) < 0.55).index_select(0, material)
    u, v = (rest[0] + rest[1]) * scale, -rest[2] * scale
    printed = atlas.look_up(texture.index_select(0, material), u, v)
    return torch.where(plain, colors.index_select(1, material), printed)
