"""What a training starts from: published weights as far as they fit, a file, or nothing."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from .. import create_model, load_checkpoint
from ..datasets.descriptors import IMAGENET
from ..datasets.imagenet import class_names, wordnet_ids
from ..errors import InputError
from ..files import sha256_of
from ..skeletons import Skeleton
from ..zoo.config import SourceCfg
from ..zoo.model import Classifier, PoseModel, ZooModel
from ..zoo.recipe import Recipe

__all__ = ["fill", "give_classes", "give_skeleton", "start_of"]

_log = logging.getLogger(__name__)


def fill(model: ZooModel, recipe: Recipe, init: str | None) -> None:
    """Fill a new model as far as what it starts from reaches.

    Args:
        model: of the recipe, with random weights.
        recipe: its `start` is used where `init` is None.
        init: "scratch", "imagenet", a name with weights, or a file.

    Raises:
        InputError: nothing in it fits, or the recipe starts from a file that must be given.
    """
    start = init or recipe.start
    if start is None:
        raise InputError(
            f"the published training of {recipe.model} starts from a backbone that is in no "
            "table here; give its file with --init, or --init scratch"
        )
    if start == "scratch":
        return
    if start == "imagenet":
        model.init_from_imagenet()
        return
    if Path(start).is_file():
        loaded = load_checkpoint(model, start, strict=False).loaded
    else:
        donor = create_model(start, pretrained=True).state_dict()
        target = model.state_dict()
        fitting = {k: v for k, v in donor.items() if k in target and v.shape == target[k].shape}
        loaded = load_checkpoint(model, fitting, strict=False).loaded
    if not loaded:
        raise InputError(f"nothing in {start} fits {recipe.model}")
    total = len(model.state_dict())
    _log.info("%s: %d of %d tensors from %s", recipe.model, len(loaded), total, start)


def start_of(recipe: Recipe, init: str | None) -> dict[str, str | None]:
    """Return what `fill` starts from, for the record: its name, and the hash of a file."""
    start = init or recipe.start
    is_file = start is not None and Path(start).is_file()
    return {"init": start, "init_sha256": sha256_of(start) if start and is_file else None}


def give_classes(model: ZooModel, data: Path) -> None:
    """Give a classifier a fresh head where the folder of the data has classes of its own.

    Raises:
        DataError: there is no folder of classes.
    """
    if not isinstance(model, Classifier):
        return
    names = class_names(data / IMAGENET.train.images)
    if len(names) < 2 or set(names) & set(wordnet_ids()):
        return  # the reader says what is wrong, if anything is
    model.reset_head(len(names))
    model.pretrained_cfg = replace(
        model.pretrained_cfg, tag="", dataset=f"{len(names)} classes of one's own",
        source=SourceCfg(), metrics=None, params=None, macs=None,
    )  # fmt: skip


def give_skeleton(model: ZooModel, skeleton: Skeleton) -> None:
    """Replace the head by a fresh one for keypoints of one's own, which become part of the
    configuration that `save_pretrained` writes.

    Raises:
        InputError: the model finds no poses, or its keypoints are not those of a last layer.
    """
    cfg = model.pretrained_cfg
    if not isinstance(model, PoseModel):
        raise InputError(f"{cfg.architecture} has no head to replace; choose a heatmap model")
    model.reset_head(skeleton.num_keypoints)
    model.pretrained_cfg = replace(
        cfg, tag="", dataset=skeleton.name, own_skeleton=skeleton, source=SourceCfg(),
        metrics=None, params=None, macs=None,
    )  # fmt: skip
