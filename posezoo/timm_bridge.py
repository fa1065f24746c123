"""The ImageNet classifiers inside timm, on request.

    from posezoo.timm_bridge import register_with_timm
    register_with_timm()
    model = timm.create_model("uniformer_small", pretrained=True)

Afterwards `timm.list_models`, `timm.data.resolve_data_config` and timm's `validate.py` know them.
The weights come the same way as in `posezoo.create_model`, verified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .errors import InputError
from .zoo.catalog import get_pretrained_cfg, list_models
from .zoo.config import PretrainedCfg
from .zoo.factory import create_model

__all__ = ["register_with_timm"]

default_cfgs: dict[str, Any] = {}  # where timm's register_model looks


def register_with_timm() -> list[str]:
    """Register every classifier whose name timm does not know, and return their names.

    Calling it again changes nothing.
    """
    import timm
    from timm.models import generate_default_cfgs, register_model

    names = [n for n in list_models(task="classification") if not timm.is_model(n)]
    tagged = [t for n in names for t in list_models(f"{n}.*", task="classification", tags=True)]
    default_cfgs.update(
        generate_default_cfgs({t: _timm_cfg(get_pretrained_cfg(t)) for t in tagged})
    )
    for name in names:
        register_model(_entrypoint(name))
    return names


def _timm_cfg(cfg: PretrainedCfg) -> dict[str, Any]:
    """The part of our configuration that timm has fields for."""
    return {
        "url": next((a.link for a in cfg.source.addresses), ""),  # for timm's lists
        "input_size": (3, *cfg.input.size),
        "mean": cfg.input.mean,
        "std": cfg.input.std,
        "interpolation": cfg.input.interpolation,
        "crop_pct": cfg.input.crop_pct,
        "num_classes": 1000,
        "classifier": "head",
        "license": cfg.source.license,
    }


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """A builder as timm calls it; `pretrained_cfg` carries the tag that was asked for."""

    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: str | None = None,
        **model_args: Any,
    ) -> nn.Module:
        if pretrained_cfg_overlay:
            raise ValueError(f"{name} takes no pretrained_cfg_overlay; change the model afterwards")
        if unsupported := sorted({"features_only", "out_indices"} & set(model_args)):
            raise InputError(
                f"{name} does not take {unsupported[0]} from timm; its maps at strides 4, 8, 16 "
                "and 32 are model.forward_intermediates(images)"
            )
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else ""
        model = create_model(
            f"{name}.{tag}" if tag else name,
            pretrained=pretrained,
            cache_dir=cache_dir,
            **model_args,
        )
        cfg = model.pretrained_cfg
        ours = _timm_cfg(cfg) | {"num_classes": model.num_classes, "architecture": name}
        model.pretrained_cfg = model.default_cfg = ours  # type: ignore[assignment]
        return model.train()  # timm hands models out in training mode

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"posezoo's {name}."
    return build
