"""Upload to the Hub: one model folder, or every variant with its card and a golden output.

Everything written depends on the weights alone, so publishing twice changes nothing, and a run
that was interrupted is simply run again. What was published is pinned in `pins.json`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, PoseZooError, UnknownModelError, WeightsUnavailableError
from ..files import sha256_of, write_text
from ..zoo.catalog import get_pretrained_cfg, matching
from ..zoo.factory import create_model
from ..zoo.wrapped import zoo_model
from . import hub
from .cache import CONFIG_FILE, WEIGHTS_FILE, CacheDir
from .cards import variant_card
from .pins import PINS_FILE, Pin, as_text, read_pins
from .saved import read_config, save_pretrained
from .tensors import write_safetensors
from .web import Web

__all__ = [
    "PublishReport",
    "check_published",
    "golden_of",
    "publish",
    "push_to_hub",
    "write_folder",
]

GOLDEN_FILE = Path("test") / "golden.safetensors"


def push_to_hub(
    directory: str | Path, repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Upload a folder written by `save_pretrained` and return the commit's address.

    Raises:
        CheckpointError: the folder lacks model.safetensors or a valid config.json.
        WeightsUnavailableError: the Hub refuses it or cannot be reached.
    """
    return _push(Path(directory), repo_id, private=private, token=token)[1]


def _push(directory: Path, repo_id: str, *, private: bool, token: str | None) -> tuple[str, str]:
    """Upload a folder; return the commit and its address."""
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
        state: of publishing "published", "unchanged", "would publish", "no weights" or "failed";
            of checking "as pinned", "moved on", "changed" or "failed".
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
    pins_file: Path = PINS_FILE,
) -> Iterator[PublishReport]:
    """Publish every matching `architecture.tag` to `namespace`, one report each, and pin it.

    A variant that fails does not stop the others. A dry run does not ask the Hub about them.

    Raises:
        UnknownModelError: a pattern that matches nothing.
    """
    for name in matching(patterns):
        cfg = get_pretrained_cfg(name)
        report = PublishReport(name=name, repo_id=f"{namespace}/{name}", state="failed", detail="")
        if cfg.source.unavailable is not None:
            yield replace(report, state="no weights", detail=cfg.source.unavailable)
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="posezoo-publish-") as temporary:
                folder = Path(temporary)
                write_folder(create_model(name, pretrained=True, cache_dir=cache_dir), folder)
                if dry_run:
                    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                    yield replace(report, state="would publish", detail=f"{size / 1e6:.1f} MB")
                else:
                    yield _publish_one(report, folder, pins_file, private, token)
        except (PoseZooError, OSError) as error:
            yield replace(report, detail=" ".join(str(error).split()))


def _publish_one(
    report: PublishReport, folder: Path, pins_file: Path, private: bool, token: str | None
) -> PublishReport:
    weights = folder / WEIGHTS_FILE
    sha256, size = sha256_of(weights), weights.stat().st_size
    commit, url = _push(folder, report.repo_id, private=private, token=token)
    pin = Pin(repository=report.repo_id, revision=commit, sha256=sha256, size=size)
    pins = read_pins(pins_file)
    if pins.get(report.name) == pin:
        return replace(report, state="unchanged", detail=url)
    write_text(pins_file, as_text({**pins, report.name: pin}))
    return replace(report, state="published", detail=url)


def check_published(
    patterns: list[str], *, pins: Mapping[str, Pin] | None = None, web: Web | None = None
) -> Iterator[PublishReport]:
    """Compare what the Hub states about every matching pinned variant with its pin.

    Raises:
        UnknownModelError: a pattern that matches nothing.
    """
    pins = read_pins(PINS_FILE) if pins is None else pins
    names = [name for name in matching(patterns) if name in pins]
    if not names:
        raise UnknownModelError(f"{PINS_FILE.name} pins nothing that matches {' '.join(patterns)}")
    for name in names:
        pin = pins[name]
        report = PublishReport(name=name, repo_id=pin.repository, state="as pinned", detail="")
        try:
            found, newest = (
                hub.stated(hub.HubFile(pin.repository, WEIGHTS_FILE, revision), web or Web())
                for revision in (pin.revision, None)
            )
        except WeightsUnavailableError as error:
            yield replace(report, state="failed", detail=str(error))
            continue
        if (found.hash, found.size) != (pin.sha256, pin.size):
            what = f"sha256 {found.hash[:16]}…, {found.size} bytes"
            yield replace(report, state="changed", detail=f"{what} at {pin.revision[:8]}")
        elif newest.hash != pin.sha256:
            yield replace(report, state="moved on", detail=f"main has sha256 {newest.hash[:16]}…")
        else:
            yield replace(report, detail=pin.revision)


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
