"""What belongs to one set of weights besides the numbers: `PretrainedCfg` and its parts.

The field names are the JSON keys of `config.json` (below the key `posezoo`), one to one.
Sizes are (H, W), colours RGB, metrics fractions in [0, 1]. A configuration that cannot be right
is refused when it is made.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import InputError
from ..skeletons import Skeleton, get_skeleton
from .address import Address

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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
_RETIRED = ("hf_hub_id", "hf_revision", "original_urls")  # in config.json of earlier versions
_LARGEST_SIDE = 16_384  # pixels
_HASH = re.compile(r"[0-9a-f]{64}")
_HASH_OR_START = re.compile(r"[0-9a-f]{8}([0-9a-f]{56})?")


def _check(fits: bool, name: str, value: Any, valid: str) -> None:
    if not fits:
        raise InputError(f"{name} is {value!r}, expected {valid}")


@dataclass(frozen=True, kw_only=True)
class SourceCfg:
    """Where the weights come from and what may be done with them.

    Attributes:
        addresses: of the authors' file, tried in order; which may be asked is decided in
            `posezoo.weights.trust`.
        original_page: a page where the authors' file can be fetched with a browser.
        original_filename: what the file is called there.
        original_sha256: hash of the authors' file, all 64 hex digits or the first 8.
        packaged: a file of ours in `posezoo/assets`, installed with the package; no other
            address is asked.
        sha256: hash of that file, 64 hex digits.
        license: licence of the weights as the Hub abbreviates it, such as `apache-2.0`.
        dataset_license: terms of the data they were trained on, in words.
        paper: title, authors or venue, and `arXiv:` or `doi:` number.
        unavailable: why there are no weights at all; None where there are.
    """

    addresses: tuple[Address, ...] = ()
    original_page: str | None = None
    original_filename: str | None = None
    original_sha256: str | None = None
    packaged: str | None = None
    sha256: str | None = None
    license: str | None = None
    dataset_license: str | None = None
    paper: str | None = None
    unavailable: str | None = None

    def __post_init__(self) -> None:
        if self.unavailable and (self.addresses or self.original_page or self.packaged):
            raise InputError("a source cannot be unavailable and name an address")
        for name, value, pattern, valid in (
            ("sha256", self.sha256, _HASH, "64 hex digits"),
            (
                "original_sha256",
                self.original_sha256,
                _HASH_OR_START,
                "64 hex digits or the first 8",
            ),
        ):
            _check(value is None or bool(pattern.fullmatch(value)), name, value, valid)
        _check(
            self.packaged is None or "/" not in self.packaged,
            "packaged", self.packaged, "the name of a file in posezoo/assets",
        )  # fmt: skip
        if (self.packaged is None) != (self.sha256 is None):
            raise InputError("a packaged file needs its sha256, and only a packaged file has one")


@dataclass(frozen=True, kw_only=True)
class InputCfg:
    """What the network wants to see.

    Attributes:
        size: (H, W) of the input, pixels.
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel, by which the difference is divided.
        interpolation: of the resized image (classifiers).
        bbox_padding: factor on the side lengths of a person's box before it is cropped.
        geometry: the crop convention (`posezoo.geometry`): box to centre and size, crop matrix,
            way back to image pixels. Pose models and tokenizers.
        crop_pct: side of the central crop as a fraction of the resized image's shorter side.
            Classifiers.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    bbox_padding: float | None = None
    geometry: Geometry | None = None
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        _check_size("input size", self.size)
        fits = len(self.mean) == 3 and all(map(math.isfinite, self.mean))
        _check(fits, "mean", self.mean, "three numbers")
        fits = len(self.std) == 3 and all(0 < value < math.inf for value in self.std)
        _check(fits, "std", self.std, "three numbers above 0")
        fits = self.bbox_padding is None or 0 < self.bbox_padding <= 10
        _check(fits, "bbox_padding", self.bbox_padding, "a factor above 0, at most 10")
        fits = self.crop_pct is None or 0 < self.crop_pct <= 1
        _check(fits, "crop_pct", self.crop_pct, "a fraction above 0, at most 1")


def _check_size(name: str, size: tuple[int, int]) -> None:
    fits = len(size) == 2 and all(0 < side <= _LARGEST_SIDE for side in size)
    _check(fits, name, size, f"(H, W), both from 1 to {_LARGEST_SIDE}")


@dataclass(frozen=True, kw_only=True)
class DecodeCfg:
    """How a pose network's output becomes keypoints.

    Attributes:
        codec: what the network puts out: one map per keypoint, or coordinates.
        heatmap_size: (h, w) of the maps, cells.
        refine: how a maximum gets below one cell: a quarter cell towards the larger neighbour,
            the step of DARK (arXiv:1910.06278) or of UDP (arXiv:1911.07524), or not at all.
        blur_kernel: side of the Gaussian of both steps, cells, an odd number.
        flip_test: whether the reported numbers average the image with its mirror image.
        shift_heatmap: whether mirrored maps move one cell to the right before averaging.
    """

    codec: Literal["heatmap", "regression"]
    heatmap_size: tuple[int, int] | None = None
    refine: Literal["quarter", "dark", "dark_udp", "none"] = "none"
    blur_kernel: int | None = None
    flip_test: bool = True
    shift_heatmap: bool = False

    def __post_init__(self) -> None:
        if self.heatmap_size is not None:
            _check_size("heatmap_size", self.heatmap_size)
        if self.refine.startswith("dark"):
            fits = self.blur_kernel in range(3, 100, 2)
            _check(fits, "blur_kernel", self.blur_kernel, "an odd number of cells from 3 to 99")


@dataclass(frozen=True, kw_only=True)
class MetricsCfg:
    """Values reported by the authors.

    Attributes:
        values: by name, fractions in [0, 1]; a `loss` may be any number from 0.
        protocol: data set, boxes, flip test and precision behind them, in words.
        url: the page that states them.
    """

    values: Mapping[str, float]
    protocol: str
    url: str

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            fits = 0 <= value <= 1 or (name == "loss" and 0 <= value < math.inf)
            _check(fits, name, value, "a fraction")


@dataclass(frozen=True, kw_only=True)
class PretrainedCfg:
    """One set of weights for one architecture.

    Attributes:
        architecture: the registered name of the graph.
        tag: the name of the weights among those of the architecture; empty for one's own.
        task: what the model does.
        dataset: what it was trained on; for poses also whose keypoints it finds.
        description: one line, lower case.
        model_args: arguments of the architecture that these weights need, such as an epsilon
            that no tensor shows.
        source: where they come from.
        input: what the network wants to see.
        decode: how its output becomes keypoints; pose models only.
        metrics: what the authors reported; None if nothing.
        params: number of parameters.
        macs: multiply-adds of one image.
        own_skeleton: the keypoints, where they are not those of a known data set.
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

    def __post_init__(self) -> None:
        if self.task != "pose" and (self.decode or self.own_skeleton):
            raise InputError(
                f"{self.name!r} is a {self.task} model; only pose models have a decode and an "
                "own_skeleton"
            )
        is_heatmap = self.decode is not None and self.decode.codec == "heatmap"
        if is_heatmap and not (self.decode and self.decode.heatmap_size and self.input.geometry):
            raise InputError(
                f"{self.name!r} has a heatmap codec and needs heatmap_size and geometry"
            )
        for name, count in (("params", self.params), ("macs", self.macs)):
            _check(count is None or count > 0, name, count, "a number above 0")

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
        """Whether there are weights at all, be it to fetch with a browser."""
        return self.source.unavailable is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `from_dict` is the inverse."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PretrainedCfg:
        """Build from `to_dict` output.

        Raises:
            InputError: (a ValueError) a key is unknown or missing, or a value cannot be right.
        """
        if isinstance(data, Mapping) and isinstance(data.get("source"), Mapping):
            kept = {k: v for k, v in data["source"].items() if k not in _RETIRED}
            data = {**data, "source": kept}
        return _build(cls, data, "")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


T = TypeVar("T", bound="DataclassInstance")


def _build(cls: type[T], data: Any, where: str) -> T:
    """Build the dataclass `cls` from a mapping, checking names and types on the way."""
    if not isinstance(data, Mapping):
        raise InputError(f"config field {where or 'posezoo'!r} must be an object, got {data!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise InputError(f"unknown config field {where + unknown[0]!r}; valid: {', '.join(fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"config field {where + missing[0]!r} is missing")
    return cls(**{key: _coerce(hints[key], value, where + key) for key, value in data.items()})


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Turn a JSON value into the annotated type, or raise InputError."""
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
        if abs(value) <= sys.float_info.max:  # neither NaN nor infinity, nor an endless integer
            return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    valid = "a finite number" if hint is float else getattr(hint, "__name__", hint)
    raise InputError(f"config field {where!r} is {repr(value)[:80]}, expected {valid}")
