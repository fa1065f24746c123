"""What an exported file says about itself, as text under the key `posezoo` of its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, PoseZooError
from ..version import __version__
from ..zoo.config import PretrainedCfg

__all__ = ["CARD_KEY", "ProgramCard", "read_card"]

CARD_KEY = "posezoo"


@dataclass(frozen=True, kw_only=True)
class ProgramCard:
    """All that `PosePredictor` and `posezoo eval` need to know about a program.

    Attributes:
        cfg: crop, normalisation, skeleton and decoding.
        size: keypoints or classes of the output.
        outputs: the name of each output, in order.
        settings: see `ZooModel.settings`.
        origin: where the weights came from, see `ZooModel.origin`.
    """

    cfg: PretrainedCfg
    size: int
    outputs: tuple[str, ...]
    settings: Mapping[str, Any]
    origin: Mapping[str, str]

    def to_text(self) -> str:
        """Return JSON; for readers without posezoo the names of the keypoints are in it."""
        values = asdict(self) | {"cfg": self.cfg.to_dict(), "posezoo": __version__}
        if self.cfg.task == "pose":
            values["keypoints"] = list(self.cfg.skeleton.keypoint_names)
        return json.dumps(values)


def read_card(text: str | None, path: Path) -> ProgramCard:
    """Read the card of a program.

    Args:
        text: the entry of the metadata; None if there is none.
        path: for messages.

    Raises:
        CheckpointError: there is no card, or it cannot be right.
    """
    if text is None:
        raise CheckpointError(
            f"{path} was not written by posezoo: it has no metadata that say how to crop for it "
            "and to decode its output; write it with `posezoo export`"
        )
    try:
        card = json.loads(text)
        return ProgramCard(
            cfg=PretrainedCfg.from_dict(card["cfg"]),
            size=int(card["size"]),
            outputs=tuple(map(str, card["outputs"])),
            settings=dict(card["settings"]),
            origin={str(key): str(value) for key, value in card["origin"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, PoseZooError) as error:
        raise CheckpointError(
            f"the metadata of {path} are damaged or of another version of posezoo "
            f"({type(error).__name__}: {error}); export the model again"
        ) from error
