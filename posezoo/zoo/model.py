"""What the rest of the package may ask of a model: the base classes of the zoo.

A family derives its networks from `PoseModel`, `Classifier` or `Tokenizer` and overrides what is
special about it. Nothing outside a family's folder asks for anything that is not named here.

Letters in shapes, here and everywhere: B images or people of a batch, K keypoints, T tokens of a
pose, N persons or tokens, V entries of a codebook, C, D channels, (H, W) input pixels, (h, w)
cells of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..weights.keys import Conversion, rename_keys
from .config import PretrainedCfg

__all__ = [
    "Classifier",
    "DerivedBuffers",
    "Foldable",
    "HasGraph",
    "PoseModel",
    "PoseNetwork",
    "RecomputedBlocks",
    "Tokenizer",
    "ZooModel",
]


@runtime_checkable
class DerivedBuffers(Protocol):
    """A module with buffers that no file holds, because they follow from its arguments.

    timm's modules have the same method.
    """

    def init_non_persistent_buffers(self) -> None:
        """Compute them anew, on the device where they are."""


@runtime_checkable
class Foldable(Protocol):
    """A module with terms that are the same for all inputs in evaluation, such as a BatchNorm."""

    def fold(self) -> None:
        """Compute them once and make them part of the weights, in new tensors.

        The module gives the same output as before, can no longer be trained, and its state dict
        fits no other module. `posezoo.optimize` does this to a copy.
        """


@runtime_checkable
class HasGraph(Protocol):
    """A module, tensor -> tensor, that runs the same operators for all inputs of one shape.

    Nothing in it depends on values or draws noise. `posezoo.optimize` may run it as one graph.

    Attributes:
        graph_is_fused: whether oneDNN may join the operators in it, with weights of its own for
            each shape; otherwise they are those that ran before, called without Python.
    """

    graph_is_fused: bool


@runtime_checkable
class RecomputedBlocks(Protocol):
    """A module that runs a row of blocks and can forget what they computed.

    timm's stages have the same attribute.

    Attributes:
        grad_checkpointing: compute the blocks' activations again in the backward pass of
            training instead of keeping them.
    """

    grad_checkpointing: bool


@runtime_checkable
class PoseNetwork(Protocol):
    """All that `PosePredictor` asks of a network besides being a module: a network of one's own
    needs no base class.

    Attributes:
        pretrained_cfg: how to crop for it and to decode its output.
        num_keypoints: K of the output.
    """

    pretrained_cfg: PretrainedCfg
    num_keypoints: int


class ZooModel(nn.Module):
    """A model that `create_model` makes.

    Attributes:
        pretrained_cfg: how to feed and decode it; set when it is built.
        model_args: the arguments that were given when it was built.
        origin: where its weights came from, as text by name; empty for random weights.
        in_chans: channels of the images.
    """

    head_argument: ClassVar[str | None] = None
    """The model argument that is the size of the last layer, where it can be replaced."""

    without_autocast: ClassVar[tuple[str, ...]] = ()
    """Names of the parts that compute in the type of their weights under autocast, too."""

    pretrained_cfg: PretrainedCfg
    model_args: Mapping[str, Any]
    origin: Mapping[str, str]
    in_chans: int = 3

    def __init__(self) -> None:
        super().__init__()
        self.model_args = {}
        self.origin = {}

    def convert_state_dict(self, state: Mapping[str, Tensor]) -> Conversion:
        """Bring a checkpoint under our keys; ours stay as they are.

        Raises:
            ValueError: the file belongs to another kind of model.
        """
        return rename_keys(state, [])

    def reset_head(self, size: int) -> None:
        """Replace the last layer by a fresh one for `size` keypoints or classes.

        Raises:
            InputError: the model has no such layer, or `size` is out of range.
        """
        raise InputError(
            f"{self.pretrained_cfg.architecture} has no head to replace; choose a heatmap model"
        )

    def settings(self) -> dict[str, Any]:
        """Return what can be changed after building and decides the model's numbers."""
        return {}

    def current_args(self) -> dict[str, Any]:
        """Return the model arguments that build this model as it is now."""
        args = {**self.model_args, **self.settings()}
        if self.head_argument is not None:
            args[self.head_argument] = getattr(self, self.head_argument)
        return args

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass.

        Raises:
            InputError: the model has no blocks that can be recomputed.
        """
        parts = [m for m in self.modules() if isinstance(m, RecomputedBlocks)]
        if not parts:
            raise InputError(f"{self.pretrained_cfg.architecture} cannot recompute its blocks")
        for part in parts:
            part.grad_checkpointing = enable

    def init_from_imagenet(self) -> None:
        """Fill the part of the model that its paper starts from an ImageNet classifier.

        Raises:
            InputError: the model has no such part.
        """
        raise InputError(f"{self.pretrained_cfg.architecture} has no part trained on ImageNet")

    def forward_intermediates(self, x: Tensor, *, tokens: bool = False) -> Any:
        """Return the maps after each stage; families say which, and what else they can return.

        Args:
            x: normalised images (B, 3, H, W).
            tokens: return the regions of tokens too, which only TCFormer has.

        Raises:
            InputError: the model has no stages with maps, or no tokens that are regions.
        """
        what, others = "stages with maps", "UniFormer, TCFormer and PCT"
        if tokens:
            what, others = "tokens that are regions of the image", "TCFormer's models"
        raise InputError(f"{self.pretrained_cfg.architecture} has no {what}; {others} have")

    def example_inputs(
        self, batch: int = 1, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return random inputs that `forward` accepts, on the CPU, float32."""
        size = (batch, self.in_chans, *self.pretrained_cfg.input.size)
        return (torch.randn(size, generator=generator, dtype=torch.float32, device="cpu"),)


class PoseModel(ZooModel):
    """Crops of persons (B, 3, H, W) in, the input of the configuration's codec out.

    Attributes:
        num_keypoints: K of the output.
    """

    head_argument: ClassVar[str | None] = "num_keypoints"

    num_keypoints: int

    @property
    def has_token_regions(self) -> bool:
        """Whether `token_regions` works."""
        return False

    def kept_cells(self) -> Tensor | None:
        """Return which cells of the crop take part, (h, w) bool; None where all do."""
        return None

    def token_regions(self, images: Tensor) -> list[Tensor]:
        """Return for each stage the token that every cell belongs to, (B, h, w) int64 each.

        Args:
            images: normalised crops (B, 3, H, W).

        Raises:
            InputError: the model's tokens are no regions of the image.
        """
        raise InputError(
            f"{self.pretrained_cfg.name} has no tokens that are regions of the image; "
            "TCFormer's pose models have"
        )


class Classifier(ZooModel):
    """Images (B, 3, H, W) in, logits (B, num_classes) out.

    Attributes:
        num_classes: 0 where the last layer was removed.
        num_features: width of what the last layer sees.
    """

    head_argument: ClassVar[str | None] = "num_classes"

    num_classes: int
    num_features: int

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last features of images (B, 3, H, W)."""
        raise NotImplementedError

    def forward_head(self, features: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Return logits (B, num_classes), or the vector (B, num_features) before them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, 3, H, W)."""
        return self.forward_head(self.forward_features(x))


class Tokenizer(ZooModel):
    """Poses (B, K, 2) in input pixels to discrete tokens and back.

    Attributes:
        num_keypoints: K.
        image_guided: whether it also needs the features of the crop.
    """

    num_keypoints: int
    image_guided: bool

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the features of crops (B, 3, H, W) that guide the encoder.

        Raises:
            InputError: the tokenizer is not guided by images.
        """
        raise NotImplementedError

    def encode(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        """Return the token ids (N, T), int64, of poses (N, K, 2) with visibility (N, K)."""
        raise NotImplementedError

    def decode(self, ids: Tensor) -> Tensor:
        """Return the keypoints (N, K, 2), input pixels, of token ids (N, T)."""
        raise NotImplementedError

    def complete(
        self, keypoints: Tensor, visible: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        """Return the poses with hidden keypoints filled in, (N, K, 2) in input pixels."""
        raise NotImplementedError

    def nearest(self, keypoints: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Return the closest poses of the token space, (N, K, 2) in input pixels."""
        raise NotImplementedError

    @torch.no_grad()
    def example_inputs(
        self, batch: int = 1, generator: torch.Generator | None = None
    ) -> tuple[Tensor, ...]:
        """Return poses, their visibility and, where they are needed, image features."""
        (images,) = super().example_inputs(batch, generator)
        size = (batch, self.num_keypoints, 2)
        keypoints = torch.rand(size, generator=generator, dtype=torch.float32, device="cpu")
        keypoints = 256 * keypoints
        visible = torch.ones(size[:2], dtype=torch.float32, device="cpu")
        if not self.image_guided:
            return keypoints, visible
        return keypoints, visible, self.forward_features(images)
