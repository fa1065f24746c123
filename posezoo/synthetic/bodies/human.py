"""The baked body: shapes of people, poses, and where vertices and keypoints go.

Metres; x to the body's left, y to its back, z up. A bone's rotation turns it about its head, in
axes that lie along the world's when all bones are at rest; the rest pose has the arms half down.
Letters in shapes: N bodies, V vertices, J bones.
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .bake import UNIT
from .devices import CPU, computing_on

__all__ = ["Body", "Human", "gathered", "load_human", "rotation"]

BODY, SKIRT, HAIR = 0, 1, 2  # parts of the mesh
# what is known of each vertex, see `Human.attributes`
HEAD, ARM, LEG, ALONG_ARM, ALONG_LEG, UP_TRUNK, HAND, EYE = range(8)


@dataclass(frozen=True, kw_only=True)
class Body:
    """Posed bodies: `vertices (N, V, 3)`, `keypoints (N, K, 3)`, `rest (N, V, 3)` before posing,
    and `bones (N, J, 3, 4)`, which move points at rest."""

    vertices: Tensor
    keypoints: Tensor
    rest: Tensor
    bones: Tensor


class Human:
    """What the file holds, as tensors.

    Attributes:
        people: (people, components) shapes to draw from; `traits (people, 11)` what they were
            made of, in the order of `trait_names`.
        faces: (F, 3) and `part_of_face (F,)`: BODY, SKIRT or HAIR.
        part: (V,) the same of vertices; the first `num_skin` are BODY.
        template: (V, 3) mean shape at rest, `heads (J, 3)` of its bones.
        attributes: (V, 8) shares of head, arm and leg; how far along the arm (shoulder 0, elbow 1,
            wrist 2) and the leg (hip 0, knee 1, ankle 2); up the trunk (pelvis 0, neck 1); shares
            of hand and eye.
        on_head: (V, 3) position about the middle of the ears in units of 0.1 m.
        seat, trunk: vertices of what one sits on, and of what a back rest touches.
        head: vertices of the head's skin, and `crown (1,)`, the highest of them.
        faces_of_vertex: (V, F) sparse, 1 where a vertex is a corner; `neighbours (V, V)`, sparse,
            takes the mean over a vertex and those beside it.
    """

    def __init__(self, file: Path) -> None:
        data = np.load(file)
        self.bone_names = [str(name) for name in data["bones"]]
        self.keypoint_names = [str(name) for name in data["keypoint_names"]]
        self.trait_names = [str(name) for name in data["traits_names"]]
        self.parents = [int(parent) for parent in data["parents"]]
        self._mean = torch.from_numpy(data["mean"].astype(np.float32) * UNIT)
        basis = data["basis"].astype(np.float32) * UNIT  # (C, P, 3)
        self._basis = torch.from_numpy(basis.reshape(len(basis), -1))
        first = sum(data["counts"].tolist()[:3])
        self._late_basis = torch.from_numpy(basis[:, first:].reshape(len(basis), -1).copy())
        self.people = torch.from_numpy(data["people"].astype(np.float32))
        self.traits = torch.from_numpy(data["traits"].astype(np.float32))
        counts = data["counts"].tolist()
        self.num_skin, self.num_vertices, self.num_points = counts[0], sum(counts[:3]), sum(counts)
        self.faces = torch.from_numpy(data["faces"].astype(np.int64))
        self.part_of_face = torch.from_numpy(data["part_of_face"].astype(np.int64))
        self.part = torch.repeat_interleave(torch.arange(3), torch.tensor(counts[:3]))
        weights = torch.zeros(self.num_points, len(self.parents))
        influences = torch.from_numpy(data["influences"].astype(np.int64))
        given = torch.from_numpy(data["weights"].astype(np.float32) / 65535)
        self._weights = weights.scatter_add_(1, influences, given)
        share = torch.zeros(len(self.keypoint_names), counts[3])
        owners = torch.from_numpy(data["keypoint_of_point"].astype(np.int64))
        share[owners, torch.arange(counts[3])] = torch.from_numpy(data["keypoint_share"])
        self._share = share
        self.template = self._mean[: self.num_vertices]
        self.heads = self._mean[self.num_points :]
        self.reference = {k: data[k] for k in ("reference_rotations", "reference_points")}
        keypoints = self._share @ self._mean[self.num_vertices : self.num_points]
        named = dict(zip(self.keypoint_names, keypoints.numpy().astype(np.float64)))
        self.attributes, self.on_head = _attributes(self, named)
        self.seat, self.trunk = _behind(self)
        self.head = (self.attributes[: self.num_skin, 0] > 0.5).nonzero()[:, 0]
        self.crown = self.on_head[:, 2].argmax(0, keepdim=True)
        self.faces_of_vertex, self.neighbours = _connections(self.faces, self.num_vertices)

    def to(self, device: torch.device) -> Human:
        """Return a copy on a device."""
        moved = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved

    def bone(self, name: str) -> int:
        return self.bone_names.index(name)

    def pose(self, shapes: Tensor, rotations: Tensor) -> Body:
        """Pose bodies; the head of the root stays where it is at rest.

        Args:
            shapes: (N, components).
            rotations: (N, J, 3, 3).
        """
        points = self._mean + (shapes @ self._basis).reshape(len(shapes), -1, 3)
        rest, heads = points[:, : self.num_points], points[:, self.num_points :]
        bones = self._chain(heads, rotations)
        blended = self._weights @ bones.flatten(2)
        columns = blended.reshape(len(shapes), -1, 3, 4).unbind(3)  # 4 (N, P, 3)
        posed = columns[3]
        for axis in range(3):
            posed = torch.addcmul(posed, columns[axis], rest[..., axis : axis + 1])
        keypoints = torch.einsum("kp,npc->nkc", self._share, posed[:, self.num_vertices :])
        return Body(
            vertices=posed[:, : self.num_vertices], keypoints=keypoints,
            rest=rest[:, : self.num_vertices], bones=bones,
        )  # fmt: skip

    def keypoints(self, shapes: Tensor, rotations: Tensor) -> Tensor:
        """Return the keypoints (N, K, 3) of bodies alone; see `pose`."""
        first = self.num_vertices
        points = self._mean[first:] + (shapes @ self._late_basis).reshape(len(shapes), -1, 3)
        count = self.num_points - first
        bones = self._chain(points[:, count:], rotations)
        blended = (self._weights[first:] @ bones.flatten(2)).reshape(len(shapes), -1, 3, 4)
        posed = (blended[..., :3] * points[:, :count, None]).sum(-1) + blended[..., 3]
        return torch.einsum("kp,npc->nkc", self._share, posed)

    def _chain(self, heads: Tensor, rotations: Tensor) -> Tensor:
        """(N, J, 3) and (N, J, 3, 3) -> what moves points at rest, (N, J, 3, 4)."""
        turned = heads - (rotations @ heads[..., None])[..., 0]
        own = torch.cat([rotations, turned[..., None]], -1)  # about its own head
        bones: list[Tensor] = []
        for j, parent in enumerate(self.parents):
            if parent < 0:
                bones.append(own[:, j])
                continue
            above = bones[parent]
            moved = above[..., :3] @ own[:, j]
            bones.append(torch.cat([moved[..., :3], moved[..., 3:] + above[..., 3:]], -1))
        return torch.stack(bones, 1)


def load_human(device: torch.device = CPU) -> Human:
    """Return what the file in the package holds, on a device."""
    return _loaded(device)


@cache
def _loaded(device: torch.device) -> Human:
    if device != CPU:
        return load_human().to(device)
    with resources.as_file(resources.files("posezoo") / "assets" / "body.npz") as file:
        with computing_on(CPU):
            return Human(file)


def rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """Return turns (..., 3, 3) about unit axes (..., 3) by radians (...)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    s, c = torch.sin(angle)[..., None, None], torch.cos(angle)[..., None, None]
    return torch.eye(3) + s * cross + (1 - c) * (cross @ cross)


def _attributes(human: Human, keypoints: dict[str, NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    """Compute `attributes` and `on_head` from the mean shape."""
    v = human.template.double().numpy()
    heads = dict(zip(human.bone_names, human.heads.double().numpy()))
    weights = human._weights[: human.num_vertices].numpy()

    def share(*beginnings: str) -> NDArray[np.float64]:
        chosen = [name.startswith(beginnings) for name in human.bone_names]
        total: NDArray[np.float64] = weights[:, chosen].sum(axis=1)
        return total

    hand = ("wrist", "finger", "metacarpal")
    along_arm, along_leg = np.zeros(len(v)), np.zeros(len(v))
    for end, side, sign in (("L", "left", 1), ("R", "right", -1)):
        own = v[:, 0] * sign > 0
        arm = [heads[f"{name}.{end}"] for name in ("upperarm01", "lowerarm01", "wrist")]
        along_arm[own] = _along([*arm, heads[f"finger3-3.{end}"]], v[own])
        leg = [keypoints[f"{side}_hip"], keypoints[f"{side}_knee"]]
        ends = [heads[f"foot.{end}"], heads[f"toe2-2.{end}"]]
        along_leg[own] = _along([*leg, *ends], v[own])
    low, high = heads["root"][2], heads["neck01"][2]
    ears = (keypoints["left_ear"] + keypoints["right_ear"]) / 2
    columns = [
        share("head", "eye", "neck03"), share("upperarm", "lowerarm", *hand),
        share("upperleg", "lowerleg", "foot", "toe"), along_arm, along_leg,
        (v[:, 2] - low) / (high - low), share(*hand), share("eye"),
    ]  # fmt: skip
    attributes = torch.from_numpy(np.stack(columns, 1)).float()
    return attributes, torch.from_numpy((v - ears) / 0.1).float()


def _behind(human: Human) -> tuple[Tensor, Tensor]:
    """Return `seat` and `trunk`."""
    a = human.attributes
    own = (human.part == BODY) & (a[:, ARM] < 0.5)
    thigh = (a[:, ALONG_LEG] > -0.2) & (a[:, ALONG_LEG] < 0.75) & (a[:, LEG] > 0.5)
    seat = own & (thigh | (a[:, UP_TRUNK] < 0.12) & (a[:, HEAD] < 0.5))
    trunk = own & (a[:, UP_TRUNK] < 0.5) & (a[:, ALONG_LEG] < 0.2)
    return seat.nonzero()[:, 0], trunk.nonzero()[:, 0]


def _connections(faces: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return `faces_of_vertex` and `neighbours`."""
    number = torch.arange(len(faces)).repeat_interleave(3)
    corners = torch.stack([faces.flatten(), number])
    of_vertex = _sparse(corners, torch.ones(3 * len(faces)), (count, len(faces)))
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    itself = torch.arange(count)[:, None].expand(-1, 2)
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1), itself]), dim=0)
    shares = 1 / torch.bincount(pairs[:, 0], minlength=count)[pairs[:, 0]]
    return of_vertex, _sparse(pairs.T, shares, (count, count))


def _sparse(places: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():  # torch calls the compressed form a beta
        warnings.simplefilter("ignore", UserWarning)
        found: Tensor = torch.sparse_coo_tensor(places, values, size).to_sparse_csr()
    return found


def gathered(matrix: Tensor, values: Tensor) -> Tensor:
    """Return a sparse matrix (n, m) times values (m, D), summed in the order of its columns on any
    device: cuSPARSE promises none."""
    return F.embedding_bag(
        matrix.col_indices(), values, matrix.crow_indices(), mode="sum",
        per_sample_weights=matrix.values(), include_last_offset=True,
    )  # fmt: skip


def _along(joints: list[NDArray[np.float64]], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far along a chain of joints the nearest place of it is, in segments."""
    best, value = np.full(len(points), np.inf), np.zeros(len(points))
    last = len(joints) - 2
    for i in range(last + 1):
        step = joints[i + 1] - joints[i]
        t = (points - joints[i]) @ step / (step @ step)
        t = np.clip(t, -0.5 if i == 0 else 0, 1.5 if i == last else 1)
        distance = np.linalg.norm(points - joints[i] - t[:, None] * step, axis=1)
        nearer = distance < best
        best[nearer], value[nearer] = distance[nearer], i + t[nearer]
    return value
