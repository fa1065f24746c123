"""One recipe per published training: what to change where stands in the four papers' code.

`uniformer_*`: the authors' recipe, by which the published weights were made. `tcformer_*`: the
original one. `hmp_*`, `pct_tokenizer_*`, `pct_*`: PCT's three stages. `tokenpose_*`, `tmpose_*`:
theirs are the same.
Classifiers: DeiT's, with what the two papers change. `*_xs_*`: posezoo's own, which made the
weights in the package. None of the originals synchronised BatchNorm between GPUs (UniFormer's
setting for it was connected to nothing). Where the rate falls as a cosine, the originals changed
it once an epoch; here it changes with each step.
"""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import InputError, UnknownModelError
from .augment import Augmentation, ClassAugmentation

__all__ = ["RECIPES", "Recipe", "get_recipe", "override"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained.

    `objective` is what is trained, see `objectives`. `batch_size` counts all processes together.
    `milestones` (epochs, each times 0.1) make a step schedule, without them the rate falls as a
    cosine to `final_lr` of itself, step by step. It is warmed up over `warmup_steps` and
    `warmup_epochs` from `warmup_start` of itself. `clip_norm` bounds the norm of the gradient.
    `ema` is the decay of a moving average of the weights, which is then what is evaluated and
    kept. `repeats` see `data.EpochSampler`. `decay_all` decays norms and biases too. `sigma` is in
    heatmap cells; `rounded` see `targets.gaussian_targets`. `loss_factor` scales the mean squared
    error. `start` is what the published training started from, see `loop.train`; None is a file
    that is not registered. `tokenizer` is what PCT's second stage learns the tokens of, a name or a
    file. `frozen` are beginnings of the names of parameters that are not trained.

    Raises:
        InputError: a number outside its range.
    """

    model: str
    objective: Literal["heatmap", "tokens", "token_classes", "classes"] = "heatmap"
    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["adam", "adamw"] = "adamw"
    weight_decay: float = 0.0
    decay_all: bool = True
    layer_decay: float | None = None
    milestones: tuple[int, ...] = ()
    final_lr: float = 1e-5
    warmup_steps: int = 0
    warmup_epochs: int = 0
    warmup_start: float = 1e-3
    clip_norm: float | None = None
    ema: float | None = None
    repeats: int = 1
    sigma: float = 2.0
    rounded: bool = True
    loss_factor: float = 1.0
    model_args: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Augmentation | ClassAugmentation = field(default_factory=Augmentation)
    start: str | None = "scratch"
    tokenizer: str | None = None
    frozen: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    accumulate: int = 1
    eval_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for names, needed, is_valid in _VALID:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_valid(value):
                    raise InputError(f"{name} is {value}; it must be {needed}")
        if self.accumulate > self.batch_size:
            raise InputError(
                f"accumulate is {self.accumulate}, more parts than the {self.batch_size} samples "
                "of a batch; lower it, or raise batch_size"
            )


_VALID: list[tuple[tuple[str, ...], str, Callable[[Any], bool]]] = [
    (("epochs", "batch_size", "accumulate", "eval_every", "repeats"), "at least 1",
     lambda value: value >= 1),
    (("lr", "sigma", "loss_factor", "clip_norm"), "a finite number above 0",
     lambda value: 0 < value < math.inf),
    (("weight_decay", "warmup_steps", "warmup_epochs", "seed"), "a finite number, 0 or above",
     lambda value: 0 <= value < math.inf),
    (("final_lr", "warmup_start"), "a share, 0 to 1", lambda value: 0 <= value <= 1),
    (("layer_decay",), "above 0 and at most 1", lambda value: 0 < value <= 1),
    (("ema",), "between 0 and 1, such as 0.9999", lambda value: 0 < value < 1),
    (("milestones",), "epochs from 1 on, ascending",
     lambda value: list(value) == sorted(set(value)) and min(value, default=1) >= 1),
]  # fmt: skip

_STEPS: dict[str, Any] = {"epochs": 210, "milestones": (170, 200), "warmup_steps": 500}

# name: learning rate, images per GPU on 8 GPUs, drop path
_UNIFORMER = {
    "s_256x192": (2e-3, 128, 0.0),
    "s_384x288": (2e-3, 128, 0.0),
    "s_448x320": (1e-3, 64, 0.0),
    "b_256x192": (2e-3, 128, 0.0),
    "b_384x288": (5e-4, 32, 0.5),
    "b_448x320": (5e-4, 32, 0.0),
}
_HALF_BODY: dict[str, Any] = {"half_body": 0.3, "rotation_probability": 0.6}
_PCT = Augmentation(shift=0.16, scale=0.5, rotation=40.0, color=1.0, grid=0.5, **_HALF_BODY)
_TOKENPOSE = Augmentation(scale=0.35, rotation=45.0, **_HALF_BODY)
_MPII = Augmentation(scale=0.25, rotation=30.0, rotation_probability=0.6)


def _uniformer(variant: str) -> Recipe:
    lr, per_gpu, drop_path = _UNIFORMER[variant]
    return Recipe(
        model=f"uniformer_{variant}",
        lr=lr,
        batch_size=8 * per_gpu,
        weight_decay=0.01,
        model_args={"drop_path_rate": drop_path},
        augmentation=Augmentation(
            shift=0.2, scale=0.5, rotation=40.0, half_body_more_than=7, **_HALF_BODY
        ),
        start=f"uniformer_{'small' if variant.startswith('s') else 'base'}.in1k",
        frozen=tuple(f"backbone.stages.{i}.norm." for i in range(3)),  # they lead nowhere
        **_STEPS,
    )


def _tcformer(model: str, per_gpu: int, start: str) -> Recipe:
    return Recipe(
        model=model,
        lr=5e-4,
        batch_size=8 * per_gpu,
        weight_decay=0.01,
        augmentation=Augmentation(shift=0.16, scale=0.5, rotation=40.0, **_HALF_BODY),
        start=start,
        **_STEPS,
    )


def _hmp(size: str, lr: float, weight_decay: float, layer_decay: float) -> Recipe:
    return Recipe(
        model=f"hmp_swin_{size}",
        epochs=150,
        batch_size=256,
        lr=lr,
        weight_decay=weight_decay,
        decay_all=False,
        layer_decay=layer_decay,
        warmup_steps=500,
        augmentation=_PCT,
        start=None,
        frozen=("backbone.norm.",),
        eval_every=5,
    )


def _pct_tokenizer(size: str, start: str) -> Recipe:
    """Stage I; its layer decay touches nothing that is trained."""
    return Recipe(
        model=f"pct_tokenizer_swin_{size}",
        objective="tokens",
        epochs=50,
        batch_size=512,
        lr=1e-2,
        weight_decay=0.15,
        decay_all=False,
        warmup_steps=500,
        augmentation=_PCT,
        start=start,
        eval_every=5,
    )


def _pct(size: str, start: str) -> Recipe:
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
        augmentation=_PCT,
        start=start,
        tokenizer=f"pct_tokenizer_swin_{size}",
        eval_every=5,
    )


def _tokenpose(
    model: str, batch_size: int, sigma: float = 2.0, augmentation: Augmentation = _TOKENPOSE
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
        start="imagenet" if "_b_" in model or "_l_" in model else "scratch",
        eval_every=1,
    )


def _classifier(
    model: str, drop_path: float, lr: float = 1e-3, *, repeats: int = 1, clip: float | None = None
) -> Recipe:
    """UniFormer also tracked a moving average, but evaluated and published the weights."""
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
        clip_norm=clip,
        repeats=repeats,
        model_args={"drop_path_rate": drop_path},
        augmentation=ClassAugmentation(),
        eval_every=1,
    )


def _rendered(model: str, **settings: Any) -> Recipe:
    """posezoo's own, for rendered people: small enough for one core of a CPU."""
    defaults: dict[str, Any] = {
        "weight_decay": 0.01,
        "decay_all": False,
        "warmup_steps": 50,
        "sigma": 1.5,
        "rounded": False,
        "augmentation": Augmentation(scale=0.15, rotation=10.0, shift=0.05),
        "dtype": "bfloat16",
        "eval_every": 1,
    }
    return Recipe(model=model, **(defaults | settings))


_RECIPES = [
    _classifier("uniformer_small", 0.1, repeats=3),
    _classifier("uniformer_small_plus", 0.1, repeats=3),
    _classifier("uniformer_small_plus_dim64", 0.1, repeats=3),
    _classifier("uniformer_base", 0.3, 8e-4, repeats=3),
    _classifier("uniformer_base_ls", 0.3, 8e-4, repeats=3),
    _classifier("tcformer_light", 0.1),
    _classifier("tcformer", 0.1),
    _classifier("tcformer_large", 0.3, clip=1.0),
    *map(_uniformer, _UNIFORMER),
    _tcformer("tcformer_mta_256x192", 64, "tcformer.in1k"),
    _tcformer("tcformer_large_mta_384x288", 16, "tcformer_large.in1k"),
    _hmp("base", 5e-4, 0.05, 0.9),
    _hmp("large", 3.33e-4, 0.0625, 0.9),
    _hmp("huge", 2.5e-4, 0.1, 0.95),
    *(_pct_tokenizer(size, f"hmp_swin_{size}") for size in ("base", "large", "huge")),
    _pct_tokenizer("base_woimgguide", "scratch"),
    *(_pct(size, "scratch") for size in ("base", "large", "huge")),
    _pct("base_woimgguide", "hmp_swin_base"),
    _tokenpose("tokenpose_t_256x192", 128),
    _tokenpose("tokenpose_s_v1_256x192", 128),
    _tokenpose("tokenpose_s_v2_256x192", 48),
    _tokenpose("tokenpose_b_256x192", 128),
    _tokenpose("tokenpose_l_d6_256x192", 64),
    _tokenpose("tokenpose_l_d24_256x192", 64),
    _tokenpose("tokenpose_l_d24_384x288", 128, sigma=3.0),
    _tokenpose("tokenpose_l_d6_256x256", 64, augmentation=_MPII),
    _tokenpose("tmpose_b_256x192", 128),
    _tokenpose("tmpose_l_d6_256x192", 128),
    _tokenpose("tmpose_l_d24_256x192", 128),
    _tokenpose("tmpose_l_d6_256x256", 128, augmentation=_MPII),
    _rendered("hrnet_xs_128x96", epochs=28, batch_size=16, lr=2e-3, eval_every=2),
    _rendered(
        "hrnet_xs_192x144", epochs=3, batch_size=32, lr=1.5e-3, start="hrnet_xs_128x96.rendered"
    ),
    _rendered(
        "tokenpose_xs_128x96",
        epochs=5,
        batch_size=32,
        lr=1e-3,
        warmup_steps=100,
        start="hrnet_xs_128x96.rendered",
        frozen=("trunk.",),
    ),
]
RECIPES: dict[str, Recipe] = {recipe.model: recipe for recipe in _RECIPES}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of an architecture.

    Raises:
        UnknownModelError: there is none; close names are listed.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
        raise UnknownModelError(f"no recipe {name!r}; did you mean {', '.join(close)}?")
    return RECIPES[name]


def override(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """Return the recipe with fields given as text, `augmentation.flip` and the like included.

    Raises:
        InputError: no such field, or a text that is no such value.
    """
    for key, text in settings.items():
        name, _, inner = key.partition(".")
        if inner and name == "augmentation":
            value: Any = replace(
                recipe.augmentation, **{inner: _parse(type(recipe.augmentation), inner, text, key)}
            )
        else:
            value = _parse(Recipe, key, text, key)
        recipe = replace(recipe, **{name: value})
    return recipe


def _parse(cls: type, name: str, text: str, key: str) -> Any:
    hints = typing.get_type_hints(cls)
    fixed = ("model", "objective", "model_args", "augmentation", "start", "frozen")
    plain = {n: h for n, h in hints.items() if n not in fixed}
    if name not in plain:
        raise InputError(f"no setting {key!r}; valid: {', '.join(plain)}, augmentation.flip …")
    hint = plain[name]
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint in (int, float, str):
            return hint(text)
        if typing.get_origin(hint) is Literal:
            return typing.get_args(hint)[typing.get_args(hint).index(text)]
        if typing.get_origin(hint) is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        if text == "none":
            return None
        return text if str in typing.get_args(hint) else float(text)
    except (ValueError, KeyError) as error:
        kind = getattr(hint, "__name__", hint)
        raise InputError(f"setting {key}={text!r} is not of type {kind}") from error
