"""Training on rendered people that are made as they are needed: `--data render:SEED`, or
`--data render:SEED:FOLDER` with photos of one's own behind half of them.

An epoch is a fixed number of samples. Validation is on people of another
seed, rendered once into the folder of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.descriptors import COCO, COCO_WHOLEBODY
from ..datasets.pictures import Pictures
from ..errors import InputError
from ..skeletons import Skeleton
from ..synthetic.bodies.album import as_annotated, write_people
from ..synthetic.bodies.devices import computing_on, sent
from ..synthetic.bodies.photographer import Photographer
from ..zoo.config import PretrainedCfg
from ..zoo.recipe import Augmentation
from .data import PeopleSet
from .objectives import Objective

__all__ = ["RenderedPeople", "is_rendering", "relit", "render_for", "restyled"]

_PREFIX = "render:"
_EPOCH = 8_192  # samples
_VALIDATION = (400, 1_000_003)  # images, and what is added to the seed
_RESTYLED = 0.4  # of second views


class RenderedPeople(PeopleSet):
    """People rendered for a network's input, each seen twice in its batch, see `second_views`; a
    batch depends on the seed and its first (epoch, index).

    Args:
        cfg: whose input the crops are for.
        augmentation: shift, scale and rotation of the crops; people are as often on the left as on
            the right, so nothing is mirrored.
        device: what renders; default the CPU, where batches are in any case.
        backgrounds: a folder of photos, see `Photographer`.
    """

    def __init__(
        self, cfg: PretrainedCfg, augmentation: Augmentation, seed: int,
        device: str | torch.device | None = None, backgrounds: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(cfg, seed)
        self.backgrounds = backgrounds
        padding = cfg.input.bbox_padding or 1.25
        self.photographer = Photographer(
            seed, cfg.input.size, padding, augmentation, device, backgrounds
        )
        names = self.photographer.human.keypoint_names
        self._chosen = [names.index(name) for name in cfg.skeleton.keypoint_names]

    def __len__(self) -> int:
        return _EPOCH

    def several(self, keys: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor]]:
        epoch, index = keys[0]
        number = epoch * _EPOCH + index
        shots = self.photographer.shoot(number, -(-len(keys) // 2))
        keypoints = as_annotated(shots.keypoints[:, self._chosen], self.cfg.skeleton)
        rng = np.random.default_rng((self.seed, number, 2))
        with computing_on(self.photographer.device):
            images = sent(shots.images)
            views, points = second_views(images, sent(keypoints), self.cfg.skeleton, rng)
            images = self.normalised(torch.cat([images.float() / 255, views]))
        return list(zip(images.cpu(), torch.cat([keypoints, points.cpu()])))[: len(keys)]

    @property
    def pictures(self) -> Pictures:
        return {}

    def digest(self, data: Path) -> str:
        folder = self.backgrounds
        return f"{_PREFIX}{self.seed}" + (f":{folder.resolve()}" if folder else "")

    def summary(self) -> str:
        photos = f", half of them before photos of {self.backgrounds}" if self.backgrounds else ""
        return (
            f"people rendered from seed {self.seed}, {_EPOCH} per epoch, each seen two ways{photos}"
        )


def second_views(
    images: Tensor, keypoints: Tensor, skeleton: Skeleton, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Look at crops again, which costs a twentieth of new ones: mirrored, moved, in other light,
    with a piece of another crop over them, filtered at random.

    Args:
        images: uint8 (B, 3, H, W), on the default device.
        keypoints: (B, K, 3).

    Returns:
        Images (B, 3, H, W) from 0 to 1, and keypoints (B, K, 3).
    """
    count, _, height, width = images.shape
    zoom = np.exp(rng.normal(0, 0.1, count).clip(-0.2, 0.2))
    angle = np.radians(rng.normal(0, 12, count).clip(-30, 30))
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    shift = rng.uniform(-0.06, 0.06, (count, 2)) * [width, height]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = np.stack([np.stack([-c, -s], 1), np.stack([-s, c], 1)], 1)  # mirrors x
    offset = middle + shift - linear @ middle
    back = sent(torch.linalg.inv(torch.from_numpy(linear).float()))
    move = sent(np.concatenate([linear, offset[..., None]], 2)).float()
    grid = torch.stack(torch.meshgrid(
        torch.arange(float(width)), torch.arange(float(height)), indexing="xy"
    ), -1).reshape(1, -1, 2)  # fmt: skip
    source = (grid - move[:, None, :, 2]) @ back.mT
    scaled = (source + 0.5) * sent(np.array([2 / width, 2 / height], np.float32)) - 1
    covered = restyled(_patched(images.float() / 255, rng), rng)
    found = F.grid_sample(covered, scaled.reshape(count, height, width, 2), align_corners=False)
    found = relit(found, rng)
    points = keypoints[:, list(skeleton.flip_indices)].clone()
    points[..., :2] = points[..., :2] @ move[:, :, :2].mT + move[:, None, :, 2]
    limits = sent(np.array([width, height]))
    outside = ((points[..., :2] < -1) | (points[..., :2] > limits)).any(-1)
    points[outside] = 0
    return found, points * (points[..., 2:] > 0)


def relit(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the light of images (B, 3, H, W) from 0 to 1: its colour, brightness and gamma."""
    count = len(images)
    gain = sent(rng.normal(1, 0.12, (count, 3, 1, 1)) * rng.normal(1, 0.15, (count, 1, 1, 1)))
    power = sent(np.exp(rng.normal(0, 0.2, (count, 1, 1, 1)))).float()
    return (images.clamp(1e-4, 1) ** power * gain.float()).clamp(0, 1)


def _patched(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Put a rectangle of the next image over some of the images, as something in front."""
    count, _, height, width = images.shape
    result = images.clone()
    for i in np.flatnonzero(rng.random(count) < 0.35):
        h, w = (int(n * rng.uniform(0.1, 0.45)) for n in (height, width))
        y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
        v, u = int(rng.integers(height - h)), int(rng.integers(width - w))
        result[i, :, y : y + h, x : x + w] = images[(i + 1) % count, :, v : v + h, u : u + w]
    return result


def restyled(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Filter some images by random kernels that mix their colours, so that shapes are learnt and
    not the looks of the renderer (random convolutions, arXiv 2007.13003). Black stays black."""
    drawn = np.flatnonzero(rng.random(len(images)) < _RESTYLED)
    if not len(drawn):
        return images
    chosen, count = sent(drawn), len(drawn)
    kernels = rng.normal(0, 1, (count, 3, 3, 3, 3))
    kernels *= rng.random((count, 1, 1, 1, 1)) < 0.6  # the others mix colours only
    kernels[..., 1, 1] += rng.normal(0, 1, (count, 3, 3))
    found = images[chosen]
    filtered = F.conv2d(
        F.pad(found, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[None],
        sent(kernels).float().flatten(0, 1), groups=count,
    )[0].reshape(found.shape)  # fmt: skip
    mean, deviation = (f(found, (2, 3), keepdim=True) for f in (torch.mean, torch.std))
    spread, middle = torch.std(filtered, (2, 3), keepdim=True), filtered.mean((2, 3), keepdim=True)
    filtered = (filtered - middle) / (spread + 1e-3) * deviation + mean
    share = sent(rng.uniform(0.2, 1, (count, 1, 1, 1))).float()
    inside = (found > 0).any(1, keepdim=True)
    result = images.clone()
    result[chosen] = (found + share * (filtered - found)).clamp(0, 1) * inside
    return result


def is_rendering(data: Path) -> bool:
    """Tell whether `--data` asks for rendered people."""
    return str(data).startswith(_PREFIX)


def render_for(
    objective: Objective, data: Path, out: Path, device: torch.device
) -> tuple[Path, RenderedPeople]:
    """Return the folder with validation images, rendered on the CPU if need be, and the training
    set, which is rendered on the device.

    Raises:
        InputError: not "render:" and a whole number, no photos in the folder after it, or a model
            of other keypoints.
    """
    seed, _, photos = str(data).removeprefix(_PREFIX).partition(":")
    if not seed.isdecimal() or str(data).endswith(":"):
        raise InputError(
            f"data is {str(data)!r}; give {_PREFIX} and a whole number, like render:0, and after "
            "another colon a folder of photos for backgrounds if there is one"
        )
    cfg = objective.cfg
    augmentation = objective.recipe.augmentation
    data_set = {s.name: s for s in (COCO, COCO_WHOLEBODY)}.get(cfg.dataset)
    if data_set is None or not isinstance(augmentation, Augmentation):
        raise InputError(
            f"{cfg.name} does not learn COCO's keypoints or those of COCO-WholeBody; rendered "
            "people have those"
        )
    backgrounds = Path(photos) if photos else None
    samples = RenderedPeople(cfg, augmentation, int(seed), device, backgrounds)
    folder = out / "rendered"
    images, other = _VALIDATION
    if not (folder / "annotations" / data_set.val.annotations[0]).is_file():
        write_people(folder, images, int(seed) + other, skeleton=cfg.skeleton)
    return folder, samples
