"""`ExportedNetwork`: a program in an exported file, with the interface of a model."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..zoo.config import PretrainedCfg
from .card import ProgramCard

__all__ = ["ExportedNetwork", "Run", "require_device"]

Run = Callable[[Tensor], tuple[Tensor, ...]]
"""Images (B, 3, H, W), contiguous float32 on the CPU, to the outputs in order."""


class ExportedNetwork(nn.Module):
    """A network whose numbers an engine computes, on the CPU, without gradients.

    It has what `PosePredictor` and `posezoo eval` ask of a model, and no parameters.

    Attributes:
        pretrained_cfg, origin: as of the model that was exported.
        num_keypoints, num_classes: of the output; 0 for the one that it does not have.
        engine: what runs it.
        dtype: in which precision; images and outputs are float32 in any case.
    """

    pretrained_cfg: PretrainedCfg
    origin: Mapping[str, str]

    def __init__(self, card: ProgramCard, run: Run, engine: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.pretrained_cfg, self.origin = card.cfg, card.origin
        is_pose = card.cfg.task == "pose"
        self.num_keypoints = card.size if is_pose else 0
        self.num_classes = 0 if is_pose else card.size
        self.engine, self.dtype = engine, dtype
        self._card, self._run = card, run
        self._output: Any = namedtuple("ProgramOutput", card.outputs)  # type: ignore[misc]
        self.eval()

    def settings(self) -> dict[str, Any]:
        """Return what was set when the model was exported and decides its numbers."""
        return dict(self._card.settings)

    def forward(self, images: Tensor) -> Any:
        """Return what the exported model returned for images (B, 3, H, W).

        Several outputs are a named tuple with the model's own names.

        Raises:
            InputError: images of another shape, type or device.
        """
        size = (3, *self.pretrained_cfg.input.size)
        if images.shape[1:] != size or images.ndim != 4:
            raise InputError(
                f"images must have shape (B, 3, {size[1]}, {size[2]}), got {tuple(images.shape)}; "
                "an exported network takes the size it was exported with only"
            )
        if images.dtype != torch.float32 or images.device.type != "cpu":
            raise InputError(
                f"images are {images.dtype} on {images.device}; an exported network takes "
                "torch.float32 on the CPU"
            )
        outputs = self._run(images.contiguous())
        return outputs[0] if len(outputs) == 1 else self._output(*outputs)


def require_device(network: nn.Module, device: torch.device) -> None:
    """Refuse to run an exported network elsewhere than on the CPU.

    Raises:
        InputError: it would.
    """
    if isinstance(network, ExportedNetwork) and device.type != "cpu":
        raise InputError(
            f"device is {device}, and an exported network runs on the CPU; leave device out"
        )
