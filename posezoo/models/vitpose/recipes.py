"""The training of ViTPose on COCO, by the authors' recipe for one data set.

ViTPose+ was trained on six data sets at once; its recipes here are those of its size for one, with
the other experts fixed: for fine-tuning from its weights.
"""

from __future__ import annotations

from ...zoo.recipe import Augmentation, Recipe

__all__ = ["RECIPES"]

_EXPERTS = 6


def _recipe(
    model: str, *, layer_decay: float, drop_path: float, blocks_with_experts: int = 0
) -> Recipe:
    unused = (
        f"{i}.mlp.experts.{k}." for i in range(blocks_with_experts) for k in range(1, _EXPERTS)
    )
    return Recipe(
        model=model,
        epochs=210,
        milestones=(170, 200),
        warmup_steps=500,
        lr=5e-4,
        batch_size=8 * 64,
        weight_decay=0.1,
        decay_all=False,
        layer_decay=layer_decay,
        clip_norm=1.0,
        rounded=False,  # UDP's targets
        model_args={"drop_path_rate": drop_path},
        augmentation=Augmentation(
            shift=0.16, scale=0.5, rotation=40.0, rotation_probability=0.6, half_body=0.3
        ),
        start=None,  # MAE's backbone, which is not registered
        frozen=tuple(f"blocks.{name}" for name in unused),
    )


RECIPES = (
    _recipe("vitpose_b_simple_256x192", layer_decay=0.75, drop_path=0.3),
    _recipe("vitpose_b_256x192", layer_decay=0.75, drop_path=0.3),
    _recipe("vitpose_plus_s_256x192", layer_decay=0.8, drop_path=0.1, blocks_with_experts=12),
    _recipe("vitpose_plus_b_256x192", layer_decay=0.75, drop_path=0.3, blocks_with_experts=12),
    _recipe("vitpose_plus_l_256x192", layer_decay=0.8, drop_path=0.5, blocks_with_experts=24),
    _recipe("vitpose_plus_h_256x192", layer_decay=0.85, drop_path=0.55, blocks_with_experts=32),
)
