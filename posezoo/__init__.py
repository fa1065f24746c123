"""posezoo: accurate human-pose models with verified weights.

model = posezoo.create_model("uniformer_s_256x192", pretrained=True)
result = posezoo.PosePredictor(model)("photo.jpg", bboxes)
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .codecs import build_codec
    from .optimization import optimize
    from .predictor import PosePredictor
    from .results import PoseResult
    from .skeletons import Skeleton, get_skeleton
    from .transforms import build_transform
    from .weights.load import LoadReport, load_checkpoint
    from .weights.publish import push_to_hub
    from .weights.saved import save_pretrained
    from .zoo.catalog import get_pretrained_cfg, is_model, list_models
    from .zoo.config import PretrainedCfg
    from .zoo.factory import create_model

# where each public name is defined; imported when it is first used, so that listing models and
# `posezoo --help` need not wait for torch
_HOMES = {
    "codecs": ("build_codec",),
    "optimization": ("optimize",),
    "predictor": ("PosePredictor",),
    "results": ("PoseResult",),
    "skeletons": ("Skeleton", "get_skeleton"),
    "transforms": ("build_transform",),
    "weights.load": ("LoadReport", "load_checkpoint"),
    "weights.publish": ("push_to_hub",),
    "weights.saved": ("save_pretrained",),
    "zoo.catalog": ("get_pretrained_cfg", "is_model", "list_models"),
    "zoo.config": ("PretrainedCfg",),
    "zoo.factory": ("create_model",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "LoadReport",
    "PosePredictor",
    "PoseResult",
    "PretrainedCfg",
    "Skeleton",
    "build_codec",
    "build_transform",
    "create_model",
    "errors",
    "get_pretrained_cfg",
    "get_skeleton",
    "is_model",
    "list_models",
    "load_checkpoint",
    "optimize",
    "push_to_hub",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'posezoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
