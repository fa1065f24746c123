"""What `posezoo publish` does: fetch, convert, verify, write the card, upload.

Everything written depends on the weights alone, so publishing twice changes nothing, and a run
that was interrupted is simply run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PoseZooError
from ..zoo import catalog as _registry
from ..zoo.factory import create_model
from . import cards as _cards
from . import files as _checkpoints
from . import hub as _hub

__all__ = ["PublishReport", "golden_of", "publish", "write_folder"]

GOLDEN_FILE = Path("test") / "golden.safetensors"


@dataclass(frozen=True, kw_only=True)
class PublishReport:
    """What became of one variant: `state` is "published", "unchanged", "would publish",
    "no weights" or "failed"; `detail` is the commit, or the reason."""

    name: str
    repo_id: str
    state: str
    detail: str


def publish(
    patterns: list[str],
    namespace: str,
    *,
    dry_run: bool = False,
    private: bool = False,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Iterator[PublishReport]:
    """Publish every matching `architecture.tag` to `namespace`, one report each.

    A variant that fails does not stop the others.
    """
    for name in _registry.list_models(patterns, tags=True):
        cfg = _registry.get_pretrained_cfg(name)
        repo_id = f"{namespace}/{name}"
        if not cfg.has_weights:
            detail = cfg.source.unavailable or ""
            yield PublishReport(name=name, repo_id=repo_id, state="no weights", detail=detail)
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="posezoo-publish-") as folder:
                model = create_model(name, pretrained=True, cache_dir=cache_dir)
                write_folder(model, Path(folder))
                yield _upload(name, repo_id, Path(folder), dry_run, private, token)
        except (PoseZooError, OSError) as error:
            yield PublishReport(name=name, repo_id=repo_id, state="failed", detail=str(error))


def _upload(
    name: str, repo_id: str, folder: Path, dry_run: bool, private: bool, token: str | None
) -> PublishReport:
    before = _head(repo_id, token)
    if dry_run:
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        return PublishReport(
            name=name, repo_id=repo_id, state="would publish", detail=f"{size / 1e6:.1f} MB"
        )
    url = _hub.push_to_hub(folder, repo_id, private=private, token=token)
    state = "unchanged" if before is not None and before == _head(repo_id, token) else "published"
    return PublishReport(name=name, repo_id=repo_id, state=state, detail=url)


def _head(repo_id: str, token: str | None) -> str | None:
    """The commit the repository is at, None if it does not exist or cannot be seen."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return huggingface_hub.HfApi(token=token).model_info(repo_id).sha
    except RepositoryNotFoundError:
        return None


def write_folder(model: nn.Module, folder: Path) -> None:
    """Write weights, configuration, card, and a golden input with its output."""
    _hub.save_pretrained(model, folder)
    origin: Any = getattr(model, "origin", {})
    with _checkpoints.replacing(folder / "README.md") as temporary:
        card = _cards.variant_card(model.pretrained_cfg, origin)  # type: ignore[arg-type]
        temporary.write_text(card, encoding="utf-8")
    _checkpoints.write_safetensors(golden_of(model), folder / GOLDEN_FILE, {"seed": "0"})


@torch.inference_mode()
def golden_of(model: nn.Module) -> dict[str, Tensor]:
    """Return seeded inputs and what the model makes of them, by name."""
    generator = torch.Generator().manual_seed(0)
    cfg: Any = model.pretrained_cfg
    height, width = cfg.input.size
    image = torch.randn(1, 3, height, width, generator=generator)
    if cfg.task == "tokenizer":
        keypoints = 256 * torch.rand(1, 17, 2, generator=generator)
        inputs = [keypoints, torch.ones(1, 17)]
        if model.image_guided:
            inputs.append(model.forward_features(image))  # type: ignore[operator]
    else:
        inputs = [image]
    output = model(*inputs)
    outputs = (output,) if isinstance(output, Tensor) else tuple(output)
    named = {"input": inputs[0]} | {f"input.{i}": t for i, t in enumerate(inputs[1:], 1)}
    return named | {f"output.{i}": t.clone() for i, t in enumerate(outputs)}
