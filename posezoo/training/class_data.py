"""Images of classes to train on: RandAugment, erasing, mixing of images, soft targets.

The augmentation is timm's, which draws from three global generators. They are seeded for each
sample and each batch by (seed, epoch, index) and restored afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.mixup import Mixup
from torch import Tensor

from ..datasets.imagenet import ClassSample
from ..datasets.pictures import Pictures
from ..errors import InputError
from ..transforms import load_image
from ..zoo.config import PretrainedCfg
from ..zoo.recipe import ClassAugmentation
from .data import Batch, TrainingSet, digest_of

__all__ = ["ClassBatch", "ClassDataset", "seeded"]

Sample = tuple[Tensor, int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ClassBatch(Batch):
    """Images with `targets (B, classes)`, the share of each class."""

    targets: Tensor


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the upper bits of each colour. The published policy may ask for none of them, which
    is black; Pillow from 13 on refuses that.
    """
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


class ClassDataset(TrainingSet):
    """Images of ImageNet, augmented, and mixed with each other when stacked.

    `dataset[epoch, index]` is a normalised image (3, H, W), its class, and (epoch, index).

    Quirk: mixup and CutMix draw once per batch and mix each image with its opposite in the
    batch, as published. So what is mixed depends on how many processes share the batch.
    """

    def __init__(
        self,
        samples: Sequence[ClassSample],
        cfg: PretrainedCfg,
        num_classes: int,
        augmentation: ClassAugmentation,
        seed: int,
    ) -> None:
        self.samples, self.seed = samples, seed
        self.transform: Any = create_transform(
            input_size=(3, *cfg.input.size),
            is_training=True,
            auto_augment=augmentation.auto_augment,
            interpolation=cfg.input.interpolation,
            mean=cfg.input.mean,
            std=cfg.input.std,
            re_prob=augmentation.erase,
            re_mode="pixel",
        )
        for op in (op for step in self.transform.transforms for op in getattr(step, "ops", ())):
            if op.name.startswith("Posterize"):
                op.aug_fn = _posterize
        mixed = augmentation.mixup > 0 or augmentation.cutmix > 0
        self.mix = Mixup(
            mixup_alpha=augmentation.mixup,
            cutmix_alpha=augmentation.cutmix,
            prob=1.0 if mixed else 0.0,
            label_smoothing=augmentation.label_smoothing,
            num_classes=num_classes,
        )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def pictures(self) -> Pictures:
        return {sample.path: None for sample in self.samples}

    def digest(self, data: Path) -> str:
        labels = np.array([sample.label for sample in self.samples])
        return digest_of(data, [sample.path for sample in self.samples], labels.tobytes())

    def summary(self) -> str:
        """Say how many images of how many classes there are."""
        return f"{len(self)} images of {len({sample.label for sample in self.samples})} classes"

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        sample = self.samples[key[1]]
        with seeded(self.seed, *key):
            return self.transform(Image.fromarray(load_image(sample.path))), sample.label, key

    def collate(self, samples: Sequence[Sample]) -> ClassBatch:
        """Stack and mix.

        Raises:
            InputError: an odd number of images, which do not pair up.
        """
        if len(samples) % 2:
            raise InputError(
                f"a process has {len(samples)} images of each batch, which do not pair up to be "
                "mixed; set batch_size to an even number per process"
            )
        images = torch.stack([image for image, _, _ in samples])
        labels = torch.tensor([label for _, label, _ in samples])
        with seeded(self.seed, *samples[0][2], 1):
            images, targets = self.mix(images, labels)
        return ClassBatch(images=images, targets=targets)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Give Python's, numpy's and torch's CPU generator the state that `key` gives, then
    their own back."""
    word = int(np.random.SeedSequence(key).generate_state(1)[0])
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(word)
        np.random.seed(word)
        torch.default_generator.manual_seed(word)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
