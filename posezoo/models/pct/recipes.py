"""PCT's three trainings: heatmap backbone, tokenizer (stage I), token classifier (stage II)."""

from __future__ import annotations

from dataclasses import replace

from ...zoo.recipe import Augmentation, Recipe

__all__ = ["RECIPES"]

_AUGMENTATION = Augmentation(
    shift=0.16,
    scale=0.5,
    rotation=40.0,
    rotation_probability=0.6,
    half_body=0.3,
    color=1.0,
    grid=0.5,
)


def _heatmaps(size: str, *, lr: float, weight_decay: float, layer_decay: float) -> Recipe:
    """Its start is SimMIM's backbone, which is not registered."""
    return Recipe(
        model=f"hmp_swin_{size}",
        epochs=150,
        batch_size=256,
        lr=lr,
        weight_decay=weight_decay,
        decay_all=False,
        layer_decay=layer_decay,
        warmup_steps=500,
        augmentation=_AUGMENTATION,
        start=None,
        frozen=("backbone.norm.",),
        eval_every=5,
    )


def _tokenizer(size: str, start: str) -> Recipe:
    """Stage I; the published layer decay touches nothing that is trained."""
    return Recipe(
        model=f"pct_tokenizer_swin_{size}",
        objective="tokens",
        epochs=50,
        batch_size=512,
        lr=1e-2,
        weight_decay=0.15,
        decay_all=False,
        warmup_steps=500,
        augmentation=_AUGMENTATION,
        start=start,
        eval_every=5,
    )


def _classifier(size: str) -> Recipe:
    """Stage II; the backbone comes with a tokenizer that is guided by it."""
    return Recipe(
        model=f"pct_swin_{size}",
        objective="token_classes",
        epochs=210,
        batch_size=256,
        lr=8e-4,
        weight_decay=0.05,
        decay_all=False,
        warmup_steps=500,
        augmentation=_AUGMENTATION,
        tokenizer=f"pct_tokenizer_swin_{size}",
        eval_every=5,
    )


RECIPES = (
    _heatmaps("base", lr=5e-4, weight_decay=0.05, layer_decay=0.9),
    _heatmaps("large", lr=3.33e-4, weight_decay=0.0625, layer_decay=0.9),
    _heatmaps("huge", lr=2.5e-4, weight_decay=0.1, layer_decay=0.95),
    _tokenizer("base", "hmp_swin_base"),
    _tokenizer("large", "hmp_swin_large"),
    _tokenizer("huge", "hmp_swin_huge"),
    _tokenizer("base_woimgguide", "scratch"),
    _classifier("base"),
    _classifier("large"),
    _classifier("huge"),
    replace(_classifier("base_woimgguide"), start="hmp_swin_base"),
)
