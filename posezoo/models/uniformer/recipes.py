"""UniFormer's trainings: pose by the authors' recipe, by which the published weights were made, and
ImageNet by DeiT's with the paper's changes. The authors also tracked a moving average of the
classifiers, but evaluated and published the weights themselves.
"""

from __future__ import annotations

from ...zoo.recipe import Augmentation, ClassAugmentation, Recipe

__all__ = ["RECIPES"]


def _pose(
    size: str, start: str, *, lr: float, images_per_gpu: int, drop_path: float = 0.0
) -> Recipe:
    return Recipe(
        model=f"uniformer_{size}",
        epochs=210,
        milestones=(170, 200),
        warmup_steps=500,
        lr=lr,
        batch_size=8 * images_per_gpu,
        weight_decay=0.01,
        model_args={"drop_path_rate": drop_path},
        augmentation=Augmentation(
            shift=0.2,
            scale=0.5,
            rotation=40.0,
            rotation_probability=0.6,
            half_body=0.3,
            half_body_more_than=7,
        ),
        start=start,
        frozen=tuple(f"backbone.stages.{i}.norm." for i in range(3)),  # no output depends on them
    )


def _classifier(model: str, *, drop_path: float, lr: float) -> Recipe:
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
        repeats=3,
        model_args={"drop_path_rate": drop_path},
        augmentation=ClassAugmentation(),
        eval_every=1,
    )


RECIPES = (
    _classifier("uniformer_small", drop_path=0.1, lr=1e-3),
    _classifier("uniformer_small_plus", drop_path=0.1, lr=1e-3),
    _classifier("uniformer_small_plus_dim64", drop_path=0.1, lr=1e-3),
    _classifier("uniformer_base", drop_path=0.3, lr=8e-4),
    _classifier("uniformer_base_ls", drop_path=0.3, lr=8e-4),
    _pose("s_256x192", "uniformer_small.in1k", lr=2e-3, images_per_gpu=128),
    _pose("s_384x288", "uniformer_small.in1k", lr=2e-3, images_per_gpu=128),
    _pose("s_448x320", "uniformer_small.in1k", lr=1e-3, images_per_gpu=64),
    _pose("b_256x192", "uniformer_base.in1k", lr=2e-3, images_per_gpu=128),
    _pose("b_384x288", "uniformer_base.in1k", lr=5e-4, images_per_gpu=32, drop_path=0.5),
    _pose("b_448x320", "uniformer_base.in1k", lr=5e-4, images_per_gpu=32),
)
