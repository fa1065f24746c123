"""The people of some pictures: drawn, dressed, put on their floors, with furniture to match."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import wardrobe
from .devices import CPU, computing_on, sent
from .human import Body, Human, load_human
from .poses import is_possible, sample_poses
from .props import LOWEST_BED, Stance, furnish, hang_mirror
from .solids import Things

__all__ = ["People", "sample_people"]

Array = NDArray[np.float64]
_MIRRORS = 0.04  # of pictures


@dataclass(frozen=True, kw_only=True)
class People:
    """N dressed bodies, each in the world of its picture; the first B are the ones cut out.

    Attributes:
        picture: (N,) which one each is in.
        vertices, keypoints: (N, V, 3) and (N, K, 3), metres.
        is_reflection: (N,) whether it is what a mirror shows, so that triangles face inwards.
    """

    picture: NDArray[np.int64]
    vertices: Tensor
    keypoints: Tensor
    outfits: wardrobe.Outfits
    is_reflection: Tensor

    def part(self, first: int, last: int) -> People:
        """Return those in the pictures from `first` to before `last`, renumbered from 0."""
        chosen = np.flatnonzero((self.picture >= first) & (self.picture < last))
        index = sent(chosen)
        outfits = wardrobe.Outfits(
            settings=self.outfits.settings[index], colors=self.outfits.colors[index]
        )
        return People(
            picture=self.picture[chosen] - first, vertices=self.vertices[index],
            keypoints=self.keypoints[index], outfits=outfits,
            is_reflection=self.is_reflection[index],
        )  # fmt: skip


def sample_people(
    human: Human, rng: np.random.Generator, picture: NDArray[np.int64], count: int, textures: int,
    spread: float = 1.0,
) -> tuple[People, Things]:  # fmt: skip
    """Draw people and the things that they use.

    Args:
        human: on the default device.
        picture: (N,) which picture each is in; those after the first `count` stand beside them.
        textures: how many clothes can have.
        spread: how much farther than usual others may be.
    """
    with computing_on(CPU):  # many steps on little
        drawn = load_human()
        which, rotations, clusters = _possible(drawn, rng, len(picture))
    traits = drawn.traits[which].double().numpy()
    body = human.pose(sent(drawn.people[which]), sent(rotations))
    named = dict(zip(human.trait_names, traits.T))
    outfits = wardrobe.sample_outfits(rng, named, textures)
    phases = sent(rng.random((len(picture), 8))).float()
    body = replace(body, vertices=wardrobe.dress(human, body, outfits, phases))
    body = _put_down(human, rng, body, clusters)
    frames = np.stack([_frame(rng, i >= count, spread) for i in range(len(picture))])
    things = Things()
    for i, stance in enumerate(_stances(human, body, frames, clusters)):
        furnish(rng, things, int(picture[i]), stance)
    moves = sent(frames).float()
    turn, shift = moves[:, :, :3], moves[:, :, 3:]
    people = People(
        picture=picture, vertices=body.vertices @ turn.mT + shift.mT,
        keypoints=body.keypoints @ turn.mT + shift.mT, outfits=outfits,
        is_reflection=torch.zeros(len(picture), dtype=torch.bool),
    )  # fmt: skip
    return _before_mirrors(rng, people, count, things), things


def _before_mirrors(rng: np.random.Generator, people: People, count: int, things: Things) -> People:
    """Hang upright mirrors beside some of those who are alone, and add what is seen in them."""
    is_alone = np.bincount(people.picture, minlength=count) == 1
    chosen = np.flatnonzero((rng.random(count) < _MIRRORS) & is_alone)
    if not len(chosen):
        return people
    angle = rng.uniform(0, 2 * np.pi, len(chosen))
    across = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)  # unit normals
    index, normal = sent(chosen), sent(across).float()[:, None]
    vertices, keypoints = people.vertices[index], people.keypoints[index]
    distance = (vertices * normal).sum(2).amax(1) + sent(
        rng.uniform(0.05, 0.8, len(chosen))
    ).float()

    def reflected(points: Tensor) -> Tensor:
        return points - 2 * ((points * normal).sum(2) - distance[:, None])[..., None] * normal

    for i, n, d in zip(chosen, across, distance.tolist()):
        hang_mirror(rng, things, int(i), n, d)
    settings, colors = people.outfits.settings, people.outfits.colors
    return People(
        picture=np.concatenate([people.picture, chosen]),
        vertices=torch.cat([people.vertices, reflected(vertices)]),
        keypoints=torch.cat([people.keypoints, reflected(keypoints)]),
        outfits=wardrobe.Outfits(
            settings=torch.cat([settings, settings[index]]),
            colors=torch.cat([colors, colors[index]]),
        ),
        is_reflection=torch.cat([people.is_reflection, torch.ones(len(chosen), dtype=torch.bool)]),
    )  # fmt: skip


def _possible(
    human: Human, rng: np.random.Generator, needed: int
) -> tuple[Tensor, Tensor, list[str]]:
    """Draw poses and people until enough do not cut into themselves: which people (N,), rotations
    (N, J, 3, 3), and names of the clusters."""
    rotations: list[Tensor] = []
    people: list[Tensor] = []
    names: list[str] = []
    while len(names) < needed:
        which = torch.from_numpy(rng.integers(0, len(human.people), needed + 8))
        poses = sample_poses(human, rng, needed + 8)
        keypoints = human.keypoints(human.people[which], poses.rotations)
        good = is_possible(human, keypoints).nonzero()[:, 0]
        rotations.append(poses.rotations[good])
        people.append(which[good])
        names += [poses.clusters[i] for i in good.tolist()]
    return torch.cat(people)[:needed], torch.cat(rotations)[:needed], names[:needed]


def _put_down(human: Human, rng: np.random.Generator, body: Body, clusters: list[str]) -> Body:
    """Stand bodies on the floor, z = 0; jumping ones above it, half of those who lie in beds."""
    heights = {"jumping": 0.6, "cycling": 0.12, "lying": 0.6}
    lifted = np.array([rng.uniform(0, heights.get(cluster, 0)) for cluster in clusters])
    lifted[[c == "lying" and up < LOWEST_BED for c, up in zip(clusters, lifted)]] = 0
    lowest = body.vertices[:, : human.num_skin, 2].amin(1)
    up = torch.zeros(len(clusters), 1, 3)
    up[:, 0, 2] = sent(lifted).float() - lowest
    return replace(body, vertices=body.vertices + up, keypoints=body.keypoints + up)


def _frame(rng: np.random.Generator, is_beside: bool, spread: float) -> Array:
    """Return (3, 4) where somebody stands: at the origin, or near it and turned."""
    turn, at = 0.0, np.zeros(2)
    if is_beside:
        way = rng.uniform(0, 2 * np.pi)
        at = np.array([np.cos(way), 0.9 * np.sin(way)]) * rng.choice([0.34, 0.55, 0.9, 1.6])
        at *= rng.uniform(0.85, 1.5)
        if spread > 1:
            at *= rng.uniform(1, spread)
        turn = rng.normal(0, 0.6) if rng.random() < 0.6 else rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, -s, 0, at[0]], [s, c, 0, at[1]], [0, 0, 1, 0]])


def _stances(human: Human, body: Body, frames: Array, clusters: list[str]) -> list[Stance]:
    vertices = body.vertices
    ends = torch.stack(
        [
            vertices[..., 2].index_select(1, human.seat).amin(1),
            vertices[..., 1].index_select(1, human.trunk).amax(1),
        ]
    )
    seats, backs = ends.tolist()
    crowns = vertices.index_select(1, human.crown)[:, 0].cpu().double().numpy()
    stances = []
    for i, (cluster, points) in enumerate(zip(clusters, body.keypoints.cpu().double().numpy())):
        named = dict(zip(human.keypoint_names, points))
        length = float(np.linalg.norm(named["left_hip"] - named["left_knee"]))
        stances.append(Stance(
            cluster=cluster, frame=frames[i], seat=seats[i], back=backs[i],
            middle=(named["left_hip"][:2] + named["right_hip"][:2]) / 2,
            reach=float(min(named["left_knee"][1], named["right_knee"][1])), size=length / 0.42,
            keypoints=named, crown=crowns[i],
        ))  # fmt: skip
    return stances
