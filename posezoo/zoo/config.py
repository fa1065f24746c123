"""What belongs to one set of weights besides the numbers: `PretrainedCfg` and its parts.

The field names are the JSON keys of `config.json` (below the key `posezoo`), one to one.
Sizes are (H, W), colours RGB, metrics fractions in [0, 1].
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ..skeletons import Skeleton, get_skeleton

__all__ = [
    "DecodeCfg",
    "Geometry",
    "InputCfg",
    "MetricsCfg",
    "PretrainedCfg",
    "SourceCfg",
    "Task",
]

Task = Literal["pose", "classification", "tokenizer"]
Geometry = Literal["mmpose0", "mmpose1", "tokenpose", "udp"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class SourceCfg:
    """Where the weights come from and what may be done with them.

    `sha256` is the hash of our `model.safetensors` on the Hub; `original_sha256` that of the
    authors' file, whole or its first 8 hex digits. `original_urls` are tried in order and may
    be `https://…`, `gdrive:<id>` or `hf:<repo>/<file>`; `original_page` is a page that needs a
    browser. `packaged` is a file in `posezoo/weights`, which is installed with the package and
    needs no other place. `unavailable` says why there are no weights at all.
    """

    hf_hub_id: str | None = None
    hf_revision: str | None = None
    sha256: str | None = None
    original_urls: tuple[str, ...] = ()
    original_page: str | None = None
    original_filename: str | None = None
    original_sha256: str | None = None
    packaged: str | None = None
    license: str | None = None
    dataset_license: str | None = None
    paper: str | None = None
    unavailable: str | None = None

    def __post_init__(self) -> None:
        if self.unavailable and (self.original_urls or self.original_page or self.packaged):
            raise ValueError("a source cannot be unavailable and name a place")


@dataclass(frozen=True, kw_only=True)
class InputCfg:
    """What the network wants to see.

    `geometry` names the crop convention (box to centre, crop matrix and back-projection) of
    pose models, `crop_pct` the central part of the resized image for classifiers.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    bbox_padding: float | None = None
    geometry: Geometry | None = None
    crop_pct: float | None = None


@dataclass(frozen=True, kw_only=True)
class DecodeCfg:
    """How a pose network's output becomes keypoints. `heatmap_size` and kernels in cells."""

    codec: Literal["heatmap", "regression"]
    heatmap_size: tuple[int, int] | None = None
    refine: Literal["quarter", "dark", "dark_udp", "none"] = "none"
    blur_kernel: int | None = None
    flip_test: bool = True
    shift_heatmap: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricsCfg:
    """Values reported by the authors (fractions), with the protocol and the place they stand."""

    values: Mapping[str, float]
    protocol: str
    url: str


@dataclass(frozen=True, kw_only=True)
class PretrainedCfg:
    """One set of weights for one architecture.

    `model_args` are arguments of the builder that these weights need (values such as an epsilon
    that no tensor shows); `macs` counts the multiply-adds of one image. `own_skeleton` are the
    keypoints of a model that was trained on other ones than those of a known data set.
    """

    architecture: str = ""
    tag: str = ""
    task: Task
    dataset: str
    description: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    source: SourceCfg = field(default_factory=SourceCfg)
    input: InputCfg
    decode: DecodeCfg | None = None
    metrics: MetricsCfg | None = None
    params: int | None = None
    macs: int | None = None
    own_skeleton: Skeleton | None = None

    @property
    def name(self) -> str:
        """`architecture.tag`."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    @property
    def skeleton(self) -> Skeleton:
        """The keypoints of a pose model: its own, or those of its data set.

        Raises:
            UnknownModelError: (a KeyError) the data set has no keypoints.
        """
        return self.own_skeleton or get_skeleton(self.dataset)

    @property
    def has_weights(self) -> bool:
        """Whether weights can be had at all, be it by hand."""
        return self.source.unavailable is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `from_dict` is the inverse."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PretrainedCfg:
        """Build from `to_dict` output.

        Raises:
            ValueError: a key is unknown or missing, or a value has the wrong type.
        """
        return _build(cls, data, "")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


T = TypeVar("T")


def _build(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass `cls` from a mapping, checking names and types on the way."""
    if not isinstance(data, Mapping):
        raise ValueError(f"config field {where or 'posezoo'!r} must be an object, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(f"unknown config field {where + unknown[0]!r}; valid: {', '.join(fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"config field {where + missing[0]!r} is missing")
    return cls(**{key: _coerce(hints[key], value, where + key) for key, value in data.items()})


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Turn a JSON value into the annotated type, or raise ValueError."""
    if hint is Any:
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _coerce(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where + ".")
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            return tuple(_coerce(k, v, where) for k, v in zip(kinds, value))
    elif origin is Literal:
        if value in args:
            return value
    elif origin is not None and isinstance(value, Mapping):  # Mapping[str, float]
        return {str(k): _coerce(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"config field {where!r} is {value!r}, expected {hint}")
