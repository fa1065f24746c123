"""The trainings of the packaged models: rendered people, small enough for one core of a CPU."""

from __future__ import annotations

from typing import Any

from ...zoo.recipe import Augmentation, Recipe

__all__ = ["RECIPES"]


def _rendered(model: str, **settings: Any) -> Recipe:
    return Recipe(
        model=model,
        weight_decay=0.01,
        decay_all=False,
        warmup_steps=50,
        sigma=1.5,
        rounded=False,
        augmentation=Augmentation(scale=0.15, rotation=10.0, shift=0.05),
        dtype="bfloat16",
        **settings,
    )


def _bodies(model: str, **settings: Any) -> Recipe:
    """Training on people with a real body, `--data render:SEED`."""
    return Recipe(
        model=model,
        weight_decay=0.02,
        decay_all=False,
        warmup_steps=100,
        sigma=1.5,
        rounded=False,
        ema=0.99,
        clip_norm=1.0,
        loss_factor=1000.0,
        augmentation=Augmentation(scale=0.3, rotation=18.0, shift=0.08),
        dtype="bfloat16",
        batch_size=32,
        eval_every=1,
        **settings,
    )


RECIPES = (
    _bodies("hrnet_s_128x96", epochs=6, lr=1.5e-3, start="hrnet_xs_192x144.rendered"),
    _bodies("hrnet_s_192x144", epochs=3, lr=1e-3, start="hrnet_s_128x96.bodies"),
    _bodies(
        "hrnet_s_wholebody_256x192",
        epochs=20,
        lr=1e-3,
        start="hrnet_s_192x144.bodies",
        model_args={"num_keypoints": 133},
    ),
    _rendered("hrnet_xs_128x96", epochs=28, batch_size=16, lr=2e-3, eval_every=2),
    _rendered(
        "hrnet_xs_192x144",
        epochs=3,
        batch_size=32,
        lr=1.5e-3,
        start="hrnet_xs_128x96.rendered",
        eval_every=1,
    ),
)
