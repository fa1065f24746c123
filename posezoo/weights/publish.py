"""Upload to the Hub: one model folder, or every variant with its card and a golden output.

Everything written depends on the weights alone, so publishing twice changes nothing, and a run
that was interrupted is simply run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, PoseZooError
from ..zoo.catalog import get_pretrained_cfg, list_models
from ..zoo.factory import create_model
from ..zoo.wrapped import zoo_model
from . import hub
from .cache import CONFIG_FILE, WEIGHTS_FILE, CacheDir
from .cards import variant_card
from .files import write_text
from .saved import read_config, save_pretrained
from .tensors import write_safetensors

__all__ = ["PublishReport", "golden_of", "publish", "push_to_hub", "write_folder"]

GOLDEN_FILE = Path("test") / "golden.safetensors"


def push_to_hub(
    directory: str | Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a folder written by `save_pretrained` and return the commit's address.

    Raises:
        CheckpointError: the folder lacks model.safetensors or a valid config.json.
    """
    directory = Path(directory)
    if not (directory / WEIGHTS_FILE).is_file():
        raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}; write it with save_pretrained")
    read_config(directory / CONFIG_FILE)
    return hub.upload(directory, repo_id, private=private, token=token)


@dataclass(frozen=True, kw_only=True)
class PublishReport:
    """What became of one variant.

    Attributes:
        name: `architecture.tag`.
        repo_id: its repository.
        state: "published", "unchanged", "would publish", "no weights" or "failed".
        detail: the commit, or the reason.
    """

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
    cache_dir: CacheDir = None,
) -> Iterator[PublishReport]:
    """Publish every matching `architecture.tag` to `namespace`, one report each.

    A variant that fails does not stop the others.
    """
    for name in list_models(patterns, tags=True):
        cfg = get_pretrained_cfg(name)
        report = PublishReport(name=name, repo_id=f"{namespace}/{name}", state="failed", detail="")
        if cfg.source.unavailable is not None:
            yield replace(report, state="no weights", detail=cfg.source.unavailable)
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="posezoo-publish-") as folder:
                model = create_model(name, pretrained=True, cache_dir=cache_dir)
                write_folder(model, Path(folder))
                yield _upload(report, Path(folder), dry_run, private, token)
        except (PoseZooError, OSError) as error:
            yield replace(report, detail=str(error))


def _upload(
    report: PublishReport, folder: Path, dry_run: bool, private: bool, token: str | None
) -> PublishReport:
    before = hub.head_commit(report.repo_id, token)
    if dry_run:
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        return replace(report, state="would publish", detail=f"{size / 1e6:.1f} MB")
    url = push_to_hub(folder, report.repo_id, private=private, token=token)
    same = before is not None and before == hub.head_commit(report.repo_id, token)
    return replace(report, state="unchanged" if same else "published", detail=url)


def write_folder(model: nn.Module, folder: Path) -> None:
    """Write weights, configuration, card, and a golden input with its output."""
    model = zoo_model(model)
    save_pretrained(model, folder)
    write_text(folder / "README.md", variant_card(model.pretrained_cfg, model.origin))
    write_safetensors(golden_of(model), folder / GOLDEN_FILE, {"seed": "0"})


@torch.inference_mode()
def golden_of(model: nn.Module) -> dict[str, Tensor]:
    """Return seeded inputs and what the model makes of them, by name."""
    model = zoo_model(model)
    inputs = model.example_inputs(generator=torch.Generator().manual_seed(0))
    output = model(*inputs)
    outputs = (output,) if isinstance(output, Tensor) else tuple(output)
    named = {"input": inputs[0]} | {f"input.{i}": t for i, t in enumerate(inputs[1:], 1)}
    return named | {f"output.{i}": t.clone() for i, t in enumerate(outputs)}
