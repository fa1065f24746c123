"""Rendered people with exact keypoints: a data set that a seed makes, without a network.

Articulated bodies with clothes, shading, occluders and textured backgrounds, and annotations of
them in the forms of COCO, COCO-WholeBody and MPII. It stands in for photos where there are none;
numbers on it compare with no published number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ..datasets.coco import PERSON, keypoint_fields
from ..errors import InputError
from ..evaluation.metrics.pckh import MAT_NAMES
from ..skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16, Skeleton
from ..weights.files import replacing
from .body import HEAD_RADII, Body, sample_body
from .painting import PARTS, Outfit, Stage, paint_background, paint_body, random_color

__all__ = ["Scene", "coco_annotations", "render_scene", "write_coco", "write_mpii"]

Array = NDArray[np.float64]

_HEAD_POINTS = ("nose", "eye", "ear", "top")
_MIN_SHARE = 0.3  # of a person in sight, below which nobody would annotate keypoints


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture, uint8 RGB (H, W, 3), and its `P` people, nearest last.

    `keypoints (P, K, 3)` hold x, y in image pixels and v: 2 in sight, 1 hidden, 0 not labelled
    (then x = y = 0). `bboxes (P, 4)` are xyxy around what is in sight, `areas (P,)` its pixels;
    `head_bboxes (P, 4)` go around the head, hair aside, in sight or not.
    """

    image: NDArray[np.uint8]
    keypoints: Array
    bboxes: Array
    areas: Array
    head_bboxes: Array


def render_scene(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = (256, 256),
    people: int | None = None,
    skeleton: Skeleton = COCO_17,
) -> Scene:
    """Render one picture; the same arguments give the same bytes.

    Args:
        seed: whatever `numpy.random.default_rng` takes.
        size: (H, W) in pixels.
        people: how many are painted; None draws 1 to 3. Those with too little in sight are
            left out of the annotations.
        skeleton: which keypoints; their names must be those of COCO, COCO-WholeBody or MPII.

    Raises:
        InputError: a size under 32 pixels, no people, or a keypoint the body does not have.
    """
    if min(size) < 32 or (people is not None and people < 1):
        raise InputError(
            f"cannot render {people} people on {size[0]} x {size[1]} pixels (H x W); "
            "give at least 1 person and 32 x 32"
        )
    rng = np.random.default_rng(seed)
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2])) if people is None else people
    angle = rng.uniform(-2.6, -0.5)
    light = (float(np.cos(angle)), float(np.sin(angle)))
    stage = Stage(paint_background(rng, size), light)
    bodies = [sample_body(rng) for _ in range(count)]
    _check_names(skeleton, bodies[0])
    heights = np.sort(rng.uniform(0.55, 1.05, count) * size[0] * (0.92 if count == 1 else 0.8))
    columns = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / count
    places = []
    for i, body in enumerate(bodies):
        places.append(_place(rng, body, float(heights[i]), float(columns[i]), size))
        paint_body(stage, body, Outfit.sample(rng), places[i], float(heights[i]), i)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])):
        _paint_occluder(rng, stage)
    picture, labels = stage.finish()
    found = [
        _annotate(body, places[i], float(heights[i]), labels, i, skeleton)
        for i, body in enumerate(bodies)
    ]
    heads = [_head_box(b, place, float(h)) for b, place, h in zip(bodies, places, heights)]
    kept = [(*row, head) for row, head in zip(found, heads) if row is not None]
    return Scene(
        image=_develop(rng, picture),
        keypoints=np.array([row[0] for row in kept]).reshape(-1, skeleton.num_keypoints, 3),
        bboxes=np.array([row[1] for row in kept]).reshape(-1, 4),
        areas=np.array([row[2] for row in kept]),
        head_bboxes=np.array([row[3] for row in kept]).reshape(-1, 4),
    )


def _check_names(skeleton: Skeleton, body: Body) -> None:
    for name in skeleton.keypoint_names:
        if name not in body.points:
            raise InputError(
                f"rendered bodies have no keypoint {name!r} (skeleton {skeleton.name!r}); use the "
                "names of COCO, COCO-WholeBody or MPII"
            )


def _place(
    rng: np.random.Generator, body: Body, height: float, column: float, size: tuple[int, int]
) -> Array:
    """Return where the pelvis (x, y) goes: mostly inside the picture, now and then cut off."""
    xy = np.array([point[:2] for point in body.points.values()]) * height
    low, high = xy.min(axis=0), xy.max(axis=0)
    x = column * size[1] - (low[0] + high[0]) / 2
    bottom = rng.uniform(0.9, 1.0) if rng.random() < 0.85 else rng.uniform(1.0, 1.35)
    y = bottom * size[0] - high[1] - 0.02 * height
    return np.array([x, max(y, 0.03 * size[0] - low[1]) if rng.random() < 0.9 else y])


def _paint_occluder(rng: np.random.Generator, stage: Stage) -> None:
    """Paint a post, board or ball in front of everything."""
    height, width = stage.size
    center = rng.uniform([0, 0.3 * height], [width, height])
    reach = rng.normal(0, 0.12, 2) * [width, height]
    radius = float(rng.uniform(0.015, 0.06) * height)
    stage.limb(center - reach, center + reach, (radius, radius), random_color(rng))


def _develop(rng: np.random.Generator, picture: Image.Image) -> NDArray[np.uint8]:
    """Make a photo of a painting: blur, exposure, tint, noise."""
    blurred = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.9))))
    pixels = np.asarray(blurred, np.float32)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0, 8)
    return np.clip(pixels * gain.astype(np.float32) + noise, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------- annotations


def _annotate(
    body: Body, place: Array, height: float, labels: NDArray[np.int32], index: int,
    skeleton: Skeleton,
) -> tuple[Array, Array, float] | None:  # fmt: skip
    """Return keypoints (K, 3), the box and the area of what is in sight, or None."""
    first = 1 + index * len(PARTS)
    own = (labels >= first) & (labels < first + len(PARTS))
    rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
    area = float(own.sum())
    # a body of one part's depth covers about a tenth of its height squared
    if area < max(60.0, _MIN_SHARE * 0.09 * height**2):
        return None
    box = np.array([columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0])
    keypoints = np.zeros((skeleton.num_keypoints, 3))
    for k, name in enumerate(skeleton.keypoint_names):
        x, y = place + body.points[name][:2] * height
        if not (box[0] - 2 <= x <= box[2] + 2 and box[1] - 2 <= y <= box[3] + 2):
            continue  # outside the picture, or with a part of which nothing is in sight
        if not (0 <= x < labels.shape[1] and 0 <= y < labels.shape[0]):
            continue
        if _faces_away(body, name):
            continue
        front = int(labels[int(y + 0.5) if y + 0.5 < labels.shape[0] else -1,
                           int(x + 0.5) if x + 0.5 < labels.shape[1] else -1]) - first  # fmt: skip
        seen = 0 <= front < len(PARTS) and PARTS[front] in _carriers(name)
        keypoints[k] = x, y, 2 if seen else 1
    return (keypoints, box, area) if keypoints[:, 2].any() else None


def _head_box(body: Body, place: Array, height: float) -> Array:
    """Return the box xyxy around the ellipsoid of the head."""
    center = place + body.head[:2] * height
    reach = np.linalg.norm(body.head_axes * HEAD_RADII, axis=1)[:2] * height
    return np.concatenate([center - reach, center + reach])


def _faces_away(body: Body, name: str) -> bool:
    """Tell whether a point of the head is on its far side."""
    if name.startswith("face-") or name.split("_")[-1] in ("nose", "eye", "ear"):
        limit = 0.03 if name.endswith("ear") else 0.012
        return bool(body.points[name][2] - body.head[2] > limit)
    return False


def _carriers(name: str) -> tuple[str, ...]:
    """Return the parts on which a keypoint sits."""
    side, _, joint = name.partition("_")
    if name.startswith("face-") or name.split("_")[-1] in _HEAD_POINTS:
        return ("head",)
    parts = {
        "hip": ("torso", f"{side}_thigh"),
        "knee": (f"{side}_thigh", f"{side}_shin"),
        "ankle": (f"{side}_shin", f"{side}_foot"),
        "shoulder": ("torso", f"{side}_upper_arm"),
        "elbow": (f"{side}_upper_arm", f"{side}_forearm"),
        "wrist": (f"{side}_forearm", f"{side}_hand"),
        "heel": (f"{side}_foot", f"{side}_shin"),
        "big_toe": (f"{side}_foot",),
        "small_toe": (f"{side}_foot",),
        "neck": ("torso", "head"),
    }
    if side in ("left", "right"):
        return parts.get(joint, (f"{side}_hand", f"{side}_forearm"))
    return ("torso", "head")


# ------------------------------------------------------------------------------- files


def coco_annotations(
    scene: Scene, image_id: int, first_id: int, skeleton: Skeleton = COCO_17
) -> list[dict[str, Any]]:
    """Return the people of a scene as annotations of COCO or COCO-WholeBody.

    Args:
        scene: rendered with the skeleton.
        image_id: of the scene.
        first_id: of the first person; the others follow.
        skeleton: COCO's or COCO-WholeBody's.
    """
    fields = keypoint_fields(skeleton)
    rows = []
    for i, (points, box, area) in enumerate(zip(scene.keypoints, scene.bboxes, scene.areas)):
        row: dict[str, Any] = {
            "id": first_id + i, "image_id": image_id, "category_id": PERSON, "iscrowd": 0,
            "bbox": _xywh(box), "area": float(area),
            "num_keypoints": int((points[slice(*fields["keypoints"]), 2] > 0).sum()),
        }  # fmt: skip
        for name, span in fields.items():
            part = np.round(points[slice(*span)], 2)
            row[name] = part.ravel().tolist()
            if name == "keypoints":
                continue
            seen, stem = part[part[:, 2] > 0, :2], name.removesuffix("_kpts")
            row[f"{stem}_valid"] = bool(len(seen))
            if stem != "foot":
                around = [seen.min(axis=0), seen.max(axis=0)] if len(seen) else [[0, 0], [0, 0]]
                row[f"{stem}_box"] = _xywh(np.concatenate(around))
        rows.append(row)
    return rows


def _xywh(box: Array) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _check_count(images: int) -> None:
    if images < 1:
        raise InputError(f"cannot write a data set of {images} images; give at least 1")


def write_coco(
    folder: Path,
    images: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (256, 256),
    split: str = "val2017",
    skeleton: Skeleton = COCO_17,
) -> Path:
    """Write a data set in the layout of COCO or COCO-WholeBody; return its annotation file.

    Raises:
        InputError: no images; else see `render_scene`.
    """
    _check_count(images)
    (folder / split).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    people: list[dict[str, Any]] = []
    pictures = []
    for image_id in range(1, images + 1):
        scene = render_scene((seed, image_id), size, skeleton=skeleton)
        name = f"{image_id:012d}.jpg"
        Image.fromarray(scene.image).save(folder / split / name, quality=92)
        pictures.append(
            {"id": image_id, "file_name": name, "height": size[0], "width": size[1]}
        )  # fmt: skip
        people += coco_annotations(scene, image_id, len(people) + 1, skeleton)
    name = f"person_keypoints_{split}.json"
    if skeleton is COCO_WHOLEBODY_133:
        name = f"coco_wholebody_{split.removesuffix('2017')}_v1.0.json"
    file = folder / "annotations" / name
    body = list(skeleton.keypoint_names[slice(*skeleton.parts["body"])])
    categories = [{"id": PERSON, "name": "person", "keypoints": body}]
    content = {"images": pictures, "annotations": people, "categories": categories}
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content))
    return file


def write_mpii(
    folder: Path,
    images: int,
    seed: int = 0,
    *,
    size: tuple[int, int] = (256, 256),
    split: str = "valid",
) -> Path:
    """Write `images/`, `annot/{split}.json` in the form of the HRNet lineage, and beside it
    `gt_{split}.mat`, which scores are computed from; return the annotation file.

    Coordinates in the files count from 1. The scale is that of the box around what is in sight,
    the centre 15 scales above its middle, from where readers move it down again.

    Raises:
        InputError: no images; else see `render_scene`.
    """
    from scipy.io import savemat

    _check_count(images)
    for name in ("images", "annot"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    heads = []
    for number in range(1, images + 1):
        scene = render_scene((seed, number), size, skeleton=MPII_16)
        name = f"{split}_{number:06d}.jpg"
        Image.fromarray(scene.image).save(folder / "images" / name, quality=92)
        for points, box in zip(scene.keypoints, scene.bboxes):
            labelled = points[:, 2] > 0
            scale = float((box[2:] - box[:2]).max()) / 200
            center = (box[:2] + box[2:]) / 2 + 1 - [0, 15 * scale]
            joints = np.where(labelled[:, None], np.round(points[:, :2], 2) + 1, -1.0)
            rows.append({
                "image": name, "center": center.tolist(), "scale": scale,
                "joints": joints.tolist(), "joints_vis": labelled.astype(int).tolist(),
            })  # fmt: skip
        heads += list(scene.head_bboxes.reshape(-1, 2, 2) + 1)
    file = folder / "annot" / f"{split}.json"
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(rows))
    savemat(folder / "annot" / f"gt_{split}.mat", {
        "dataset_joints": np.array([MAT_NAMES], dtype=object),
        "jnt_missing": 1 - np.array([row["joints_vis"] for row in rows], dtype=float).T,
        "pos_gt_src": np.moveaxis(np.array([row["joints"] for row in rows]), 0, -1),
        "headboxes_src": np.moveaxis(np.array(heads), 0, -1),
    })  # fmt: skip
    return file


_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--kind", type=click.Choice(["coco", "wholebody", "mpii"]), default="coco", show_default=True
)
@click.option("--train", type=_COUNT, default=24000, show_default=True, help="Images to train on.")
@click.option("--val", type=_COUNT, default=400, show_default=True, help="Images to validate on.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True,
    help="Of validation; training has the next.",
)  # fmt: skip
def main(folder: Path, kind: str, train: int, val: int, seed: int) -> None:
    """Render a data set in the layout of COCO, COCO-WholeBody or MPII into FOLDER."""
    if kind == "mpii":
        click.echo(write_mpii(folder, val, seed))
        click.echo(write_mpii(folder, train, seed + 1, split="train"))
        return
    skeleton = COCO_17 if kind == "coco" else COCO_WHOLEBODY_133
    click.echo(write_coco(folder, val, seed, skeleton=skeleton))
    click.echo(write_coco(folder, train, seed + 1, split="train2017", skeleton=skeleton))
