"""How a model is trained, as data, and changes to it given as text. See `posezoo.training`."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from ..errors import InputError

__all__ = ["Augmentation", "ClassAugmentation", "Recipe", "override", "settings_of"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much of a person's crop is changed, and how often.

    Attributes:
        flip: probability of mirroring.
        half_body: probability of cropping to the upper or lower half only, where more than
            `half_body_more_than` keypoints are labelled.
        shift: largest shift of the centre in each direction as a share of the box, and
            `shift_probability`.
        scale: standard deviation of the factor on the box, which is clipped to 1 - scale and
            1 + scale.
        rotation: standard deviation in degrees, clipped at twice that, and
            `rotation_probability`.
        color, grid: probabilities of other colours and of a grid of holes, see `pixels`.

    Raises:
        InputError: a probability outside 0 to 1, or an amount that is negative or without bound.
    """

    flip: float = 0.5
    half_body: float = 0.0
    half_body_more_than: int = 8
    shift: float = 0.0
    shift_probability: float = 0.3
    scale: float = 0.0
    rotation: float = 0.0
    rotation_probability: float = 0.6
    color: float = 0.0
    grid: float = 0.0

    def __post_init__(self) -> None:
        _check_shares(
            self, "flip", "half_body", "shift_probability", "scale", "rotation_probability",
            "color", "grid",
        )  # fmt: skip
        for name in ("half_body_more_than", "shift", "rotation"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"augmentation.{name} is {value}; it must be finite, 0 or above")


@dataclass(frozen=True, kw_only=True)
class ClassAugmentation:
    """How images of classes are changed; the defaults are those of DeiT (arXiv 2012.12877).

    Attributes:
        auto_augment: timm's name of a RandAugment policy. Colour jitter is part of it; a
            separate one, as the published commands give, is ignored by timm beside it.
        erase: probability of erasing a rectangle with noise.
        mixup, cutmix: alpha of each; where both are above 0, a batch gets either with 0.5.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        InputError: a share outside 0 to 1, or a negative alpha.
    """

    auto_augment: str = "rand-m9-mstd0.5-inc1"
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(self, "erase", "label_smoothing")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"augmentation.{name} is {value}; it must be finite, 0 or above")


def _check_shares(settings: Augmentation | ClassAugmentation, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"augmentation.{name} is {value}; it must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. Where the rate falls as a cosine, it changes with each step.

    Attributes:
        model: the architecture.
        objective: what is trained: heatmaps of a pose model, PCT's tokenizer ("tokens"), PCT's
            classifier of tokens, or a classifier of images.
        epochs: passes through the training set.
        batch_size: samples per step, all processes together.
        lr: the highest learning rate.
        optimizer: timm's name of it.
        weight_decay: as in AdamW.
        decay_all: whether norms and biases are decayed too.
        layer_decay: factor on the rate from each Swin block to the one before it.
        milestones: epochs after which the rate is a tenth; without them it falls as a cosine.
        final_lr: where the cosine ends, as a share of `lr`.
        warmup_steps, warmup_epochs: how long the rate rises, added together.
        warmup_start: where it begins, as a share of `lr`.
        clip_norm: largest norm of the gradient.
        ema: decay of a moving average of the weights, which is then evaluated and kept.
        repeats: copies of a sample in a row, see `EpochSampler`.
        sigma: of the target Gaussians, in heatmap cells.
        rounded: whether they are centred on whole cells, see `gaussian_targets`.
        loss_factor: factor on the mean squared error.
        model_args: arguments of the architecture.
        augmentation: of people, or of images of classes.
        start: what the weights start from: "scratch", "imagenet" (the part of the model that its
            paper takes from an ImageNet classifier), or a name with weights. None where the
            authors started from a file that is not registered.
        tokenizer: whose tokens PCT's classifier learns, a name or a file.
        frozen: beginnings of the names of parameters that are not trained.
        dtype: type of the forward pass.
        accumulate: parts of a batch that are run one after the other.
        eval_every: epochs between two evaluations.
        seed: of everything random.

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


def settings_of(recipe: Recipe) -> dict[str, str]:
    """Return all fields as text, in the form that `override` takes those that can be changed."""
    plain = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    plain.pop("augmentation")
    inner = {f"augmentation.{k}": v for k, v in asdict(recipe.augmentation).items()}
    return {key: _text(value) for key, value in {**plain, **inner}.items()}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{k}:{v}" for k, v in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


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
        valid = getattr(hint, "__name__", str(hint))
        if typing.get_origin(hint) is Literal:
            valid = ", ".join(typing.get_args(hint))
        raise InputError(f"setting {key} is {text!r}; valid: {valid}") from error
