"""Training of PCT (arXiv 2303.11638): the tokenizer, stage I, then the token classifier, stage II.

Backbones are fixed in both stages, in evaluation mode: they come from a heatmap model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ... import create_model
from ...datasets.people import training_people
from ...datasets.pictures import Pictures
from ...errors import InputError
from ...models.pct.network import PCTPose
from ...models.pct.tokenizer import PCTTokenizer
from ...zoo.config import PretrainedCfg
from ...zoo.model import ZooModel
from ...zoo.recipe import Recipe
from ..data import PersonDataset, TrainingBatch
from ..recipes import get_recipe
from .pose import PoseObjective

__all__ = [
    "PoseDataset",
    "TokenClassifierObjective",
    "TokenizerObjective",
    "commitment",
    "keypoint_smooth_l1",
    "update_codebook",
]

_DROP = 0.2
COMMITMENT = 15.0
_PADDING = 1.25  # of the boxes in training; tests have 1.12
_BETA = 0.05  # pixels
_DECAY = 0.9
_EPSILON = 1e-5
_TOP = (1, 2, 5)


def keypoint_smooth_l1(keypoints: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
    """Return the smooth L1 distance (beta 0.05 pixels), mean over batch, keypoints, x and y.

    Args:
        keypoints, targets: (B, K, 2) in input pixels.
        labelled: (B, K) boolean. Keypoints without label count in the mean, with 0.
    """
    losses = F.smooth_l1_loss(keypoints, targets, beta=_BETA, reduction="none")  # (B, K, 2)
    return losses.masked_fill(~labelled[..., None], 0.0).mean()


def commitment(embeddings: Tensor, codes: Tensor) -> Tensor:
    """Return the mean squared distance of embeddings (B, T, D) to their rows of the codebook.

    The gradient goes to the embeddings alone: the rows follow by `update_codebook`.
    """
    return F.mse_loss(embeddings, codes.detach())


@torch.no_grad()
def update_codebook(tokenizer: PCTTokenizer, embeddings: Tensor, ids: Tensor) -> None:
    """Move the codebook towards the running means of what was assigned to its rows.

    Exponential moving averages of counts and sums (arXiv 1711.00937, appendix A.1), decay 0.9;
    counts are smoothed with 1e-5 (Laplace) and stored smoothed. Of many processes each updates
    by the counts and sums of all.

    Args:
        tokenizer: changed in place.
        embeddings: (B, 34, 512).
        ids: (B, 34), their rows of the codebook before the update.
    """
    size, sums = tokenizer.ema_cluster_size, tokenizer.ema_w
    counts = torch.bincount(ids.flatten(), minlength=len(size)).to(size)  # (V,)
    added = torch.zeros_like(sums).index_add_(0, ids.flatten(), embeddings.flatten(0, 1).to(sums))
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
        torch.distributed.all_reduce(added)
    size.mul_(_DECAY).add_(counts, alpha=1 - _DECAY)
    total = size.sum()
    size.add_(_EPSILON).mul_(total / (total + len(size) * _EPSILON))
    sums.mul_(_DECAY).add_(added, alpha=1 - _DECAY)
    torch.div(sums, size[:, None], out=tokenizer.decoder.codebook)


class TokenizerObjective(PoseObjective):
    """Stage I: poses through tokens and back, with a part of their keypoints hidden.

    The codebook is updated once per forward, so `accumulate` above 1 updates it more often.
    The metric is the AP of reconstructed annotations: what a perfect classifier would reach.

    Attributes:
        drop: share of the labelled keypoints that the tokenizer has to fill in.
    """

    model: PCTTokenizer

    def __init__(self, recipe: Recipe, model: PCTTokenizer) -> None:
        super().__init__(recipe, model)
        self.metric = "reconstruction AP"
        self.drop = _DROP
        if model.backbone is not None:
            model.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> TokenizerObjective:
        super().train(mode)
        if self.model.backbone is not None:
            self.model.backbone.eval()
        return self

    def dataset(self, data: Path) -> PersonDataset:
        cfg = _training_cfg(self.cfg)
        kind = PersonDataset if self.model.image_guided else PoseDataset
        people = training_people(data, cfg, self.category)
        return kind(people, cfg, self.skeleton, self.augmentation, self.recipe.seed)

    def forward(self, batch: TrainingBatch) -> Tensor:  # type: ignore[override]
        model, device = self.model, batch.keypoints.device
        shown = batch.labelled
        if self.training:
            shown = shown & (torch.rand(shown.shape, device=device) > self.drop)
        features = None
        with self.autocast(device):
            if model.image_guided:
                with torch.no_grad():
                    features = model.forward_features(batch.images)
            embeddings = model.encoder(batch.keypoints, shown, features)
        embeddings = embeddings.to(model.decoder.codebook)
        with torch.no_grad():
            ids = model.decoder.nearest_ids(embeddings)
        codes = model.decoder.codebook[ids]  # (B, 34, 512)
        keypoints = model.decoder(embeddings + (codes - embeddings).detach())
        loss = keypoint_smooth_l1(keypoints, batch.keypoints, batch.labelled)
        loss = loss + COMMITMENT * commitment(embeddings, codes)
        if self.training:
            update_codebook(model, embeddings.detach(), ids)
        return loss


class PoseDataset(PersonDataset):
    """Augmented poses without pictures, for a tokenizer that needs none: `images (B, 0)`."""

    @property
    def pictures(self) -> Pictures:
        return {}

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        _, keypoints, _ = self.sample(index, np.random.default_rng((self.seed, epoch, index)))
        return torch.empty(0), keypoints


def _training_cfg(cfg: PretrainedCfg) -> PretrainedCfg:
    return replace(cfg, input=replace(cfg.input, bbox_padding=_PADDING))


class TokenClassifierObjective(PoseObjective):
    """Stage II: the tokens of the annotated pose, read from the image.

    Logged beside the loss: the share of tokens whose label is among the 1, 2 and 5 largest logits.
    A tokenizer gives the labels, the codebook and the decoder, and one guided by images the
    backbone, too: the original freezes two copies of one backbone.

    Args:
        recipe, model: see `Objective`.
        tokenizer: default: the one that the recipe names.

    Raises:
        InputError: no tokenizer is named, or it is not of the kind that the model belongs to.
    """

    model: PCTPose

    def __init__(
        self, recipe: Recipe, model: PCTPose, tokenizer: PCTTokenizer | None = None
    ) -> None:
        super().__init__(recipe, model)
        tokenizer = tokenizer or _load_tokenizer(recipe)
        if tokenizer.image_guided != model.image_guided:
            kind = "guided" if model.image_guided else "not guided"
            raise InputError(
                f"{recipe.model} needs a tokenizer that is {kind} by images, "
                f"not {recipe.tokenizer!r}"
            )
        model.decoder.load_state_dict(tokenizer.decoder.state_dict())
        if tokenizer.backbone is not None:
            model.backbone.load_state_dict(tokenizer.backbone.state_dict())
        self.encoder = tokenizer.encoder
        for fixed in (model.backbone, model.decoder, self.encoder):
            fixed.requires_grad_(False)

    def train(self, mode: bool = True) -> TokenClassifierObjective:
        super().train(mode)
        for fixed in (self.model.backbone, self.model.decoder, self.encoder):
            fixed.eval()
        return self

    def dataset(self, data: Path) -> PersonDataset:
        cfg = _training_cfg(self.cfg)
        people = training_people(data, cfg, self.category)
        return PersonDataset(people, cfg, self.skeleton, self.augmentation, self.recipe.seed)

    def forward(self, batch: TrainingBatch) -> Tensor:  # type: ignore[override]
        model, device = self.model, batch.keypoints.device
        with torch.no_grad(), self.autocast(device):
            features = model.forward_features(batch.images)
        with torch.no_grad():
            guide = features.to(model.decoder.codebook) if model.image_guided else None
            embeddings = self.encoder(batch.keypoints, batch.labelled, guide)
            ids = model.decoder.nearest_ids(embeddings)  # (B, 34)
        with self.autocast(device):
            output = model.forward_head(features)
        logits = output.logits.to(output.keypoints.dtype).flatten(0, 1)  # (B * 34, V)
        hits = logits.detach().topk(max(_TOP)).indices == ids.flatten()[:, None]  # (B * 34, 5)
        self.monitor = {f"top{k}": hits[:, :k].any(1).float().mean() for k in _TOP}
        loss = F.cross_entropy(logits, ids.flatten())
        return loss + keypoint_smooth_l1(output.keypoints, batch.keypoints, batch.labelled)


def _load_tokenizer(recipe: Recipe) -> PCTTokenizer:
    """Create the tokenizer of a recipe, by its name or from its file."""
    name = recipe.tokenizer
    if name is None:
        raise InputError(f"the recipe of {recipe.model} names no tokenizer; --set tokenizer=FILE")
    if Path(name).is_file():
        published = get_recipe(recipe.model).tokenizer or ""
        tokenizer: ZooModel = create_model(published, checkpoint=name)
    else:
        tokenizer = create_model(name, pretrained=True)
    if not isinstance(tokenizer, PCTTokenizer):
        raise InputError(f"{recipe.model} needs a tokenizer, not {name!r}")
    return tokenizer
