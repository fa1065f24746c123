"""posezoo: accurate human-pose models with verified weights.

model = posezoo.create_model("uniformer_s_256x192", pretrained=True)
result = posezoo.PosePredictor(model)("photo.jpg", bboxes)
"""

from . import errors
from .codecs import build_codec
from .predictor import PosePredictor
from .results import PoseResult
from .skeletons import Skeleton, get_skeleton
from .transforms import build_transform
from .version import __version__
from .weights.files import LoadReport, load_checkpoint
from .weights.hub import push_to_hub, save_pretrained
from .zoo.config import PretrainedCfg
from .zoo.factory import create_model
from .zoo.registry import get_pretrained_cfg, is_model, list_models

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
    "push_to_hub",
    "save_pretrained",
]
