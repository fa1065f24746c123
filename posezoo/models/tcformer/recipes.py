"""TCFormer's trainings: ImageNet by DeiT's recipe, a little changed, and whole body by its own."""

from __future__ import annotations

from ...zoo.recipe import Augmentation, ClassAugmentation, Recipe

__all__ = ["RECIPES"]


def _wholebody(model: str, start: str, *, images_per_gpu: int) -> Recipe:
    return Recipe(
        model=model,
        epochs=210,
        milestones=(170, 200),
        warmup_steps=500,
        lr=5e-4,
        batch_size=8 * images_per_gpu,
        weight_decay=0.01,
        augmentation=Augmentation(
            shift=0.16, scale=0.5, rotation=40.0, rotation_probability=0.6, half_body=0.3
        ),
        start=start,
    )


def _classifier(model: str, *, drop_path: float, clip_norm: float | None = None) -> Recipe:
    lr = 1e-3
    return Recipe(
        model=model,
        objective="classes",
        epochs=300,
        batch_size=1024,
        lr=lr,
        weight_decay=0.05,
        decay_all=False,
        final_lr=1e-5 / lr,
        warmup_epochs=5,
        warmup_start=1e-6 / lr,
        clip_norm=clip_norm,
        model_args={"drop_path_rate": drop_path},
        augmentation=ClassAugmentation(),
        eval_every=1,
    )


RECIPES = (
    _classifier("tcformer_light", drop_path=0.1),
    _classifier("tcformer", drop_path=0.1),
    _classifier("tcformer_large", drop_path=0.3, clip_norm=1.0),
    _wholebody("tcformer_mta_256x192", "tcformer.in1k", images_per_gpu=64),
    _wholebody("tcformer_large_mta_384x288", "tcformer_large.in1k", images_per_gpu=16),
)
