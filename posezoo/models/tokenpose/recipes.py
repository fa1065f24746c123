"""TokenPose's and TMPose's trainings, which are the same, and that of the packaged model."""

from __future__ import annotations

from ...zoo.recipe import Augmentation, Recipe

__all__ = ["RECIPES"]

_COCO = Augmentation(scale=0.35, rotation=45.0, rotation_probability=0.6, half_body=0.3)
_MPII = Augmentation(scale=0.25, rotation=30.0, rotation_probability=0.6)


def _recipe(
    model: str,
    batch_size: int,
    *,
    start: str = "imagenet",
    sigma: float = 2.0,
    augmentation: Augmentation = _COCO,
) -> Recipe:
    return Recipe(
        model=model,
        epochs=300,
        batch_size=batch_size,
        lr=1e-3,
        optimizer="adam",
        milestones=(200, 260),
        sigma=sigma,
        rounded=False,
        loss_factor=0.5,
        augmentation=augmentation,
        start=start,
        eval_every=1,
    )


RECIPES = (
    _recipe("tokenpose_t_256x192", 128, start="scratch"),
    _recipe("tokenpose_s_v1_256x192", 128, start="scratch"),
    _recipe("tokenpose_s_v2_256x192", 48, start="scratch"),
    _recipe("tokenpose_b_256x192", 128),
    _recipe("tokenpose_l_d6_256x192", 64),
    _recipe("tokenpose_l_d24_256x192", 64),
    _recipe("tokenpose_l_d24_384x288", 128, sigma=3.0),
    _recipe("tokenpose_l_d6_256x256", 64, augmentation=_MPII),
    _recipe("tmpose_b_256x192", 128),
    _recipe("tmpose_l_d6_256x192", 128),
    _recipe("tmpose_l_d24_256x192", 128),
    _recipe("tmpose_l_d6_256x256", 128, augmentation=_MPII),
    Recipe(  # posezoo's own, on rendered people
        model="tokenpose_xs_128x96",
        epochs=5,
        batch_size=32,
        lr=1e-3,
        weight_decay=0.01,
        decay_all=False,
        warmup_steps=100,
        sigma=1.5,
        rounded=False,
        augmentation=Augmentation(scale=0.15, rotation=10.0, shift=0.05),
        start="hrnet_xs_128x96.rendered",
        frozen=("trunk.",),
        dtype="bfloat16",
        eval_every=1,
    ),
    Recipe(  # on rendered bodies, `--data render:SEED`; the mask is TMPose's
        model="tmpose_s_192x144",
        epochs=12,
        batch_size=32,
        lr=1e-3,
        weight_decay=0.02,
        decay_all=False,
        warmup_steps=100,
        sigma=1.5,
        rounded=False,
        ema=0.99,
        clip_norm=1.0,
        loss_factor=1000.0,
        augmentation=Augmentation(scale=0.3, rotation=18.0, shift=0.08),
        start="hrnet_s_192x144.bodies",
        dtype="bfloat16",
        eval_every=1,
    ),
)
