"""`posezoo list` and `posezoo info`: what there is. Neither imports torch or numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from ..weights.addresses import describe, kinds, listing, summary
from ..weights.pins import packaged_pins
from ..weights.trust import by_hand_reason, is_automatic, is_pinned
from ..zoo.catalog import get_pretrained_cfg, list_models, model_arguments
from ..zoo.config import PretrainedCfg, Task
from . import options
from .networks import is_exported_file

if TYPE_CHECKING:
    from ..engines.network import ExportedNetwork

__all__ = ["info", "list_command"]

_HEADER = ("name", "data", "input", "params", "GMACs", "reported", "licence", "weights")
_MAIN_METRICS = ("AP", "Whole AP", "top1", "PCKh")


@click.command("list", short_help="List models, with what they were reported to reach.")
@click.argument("pattern", default="*")
@click.option(
    "--task",
    type=click.Choice(["pose", "classification", "tokenizer"]),
    help="Only models for this task.",
)
@click.option(
    "--pretrained",
    is_flag=True,
    help="Only models whose weights come without hands: in the package, or fetched.",
)
@click.option("--tags", is_flag=True, help="One line per set of weights: architecture.tag.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_command(
    pattern: str, task: Task | None, pretrained: bool, tags: bool, as_json: bool
) -> None:
    """List models whose name matches PATTERN (shell wildcards, default all)."""
    names = list_models(pattern, task=task, pretrained=pretrained, tags=tags)
    cfgs = [(name, _shown(name, pretrained=pretrained)) for name in names]
    if as_json:
        click.echo(json.dumps([_as_dict(*row) for row in cfgs], indent=2))
        return
    rows = [_HEADER, *(_as_row(*row) for row in cfgs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    if names:
        for row in rows:
            click.echo("  ".join(text.ljust(w) for text, w in zip(row, widths)).rstrip())
    else:
        click.echo(f"no model matches {pattern!r}", err=True)


def _shown(name: str, *, pretrained: bool) -> PretrainedCfg:
    """Return the weights that a name is listed with: its default, or the first that are fetched."""
    cfg = get_pretrained_cfg(name)
    if not pretrained or is_automatic(cfg):
        return cfg
    return get_pretrained_cfg(list_models(f"{name}.*", pretrained=True, tags=True)[0])


def _as_dict(name: str, cfg: PretrainedCfg) -> dict[str, object]:
    pin, source = packaged_pins().get(cfg.name), cfg.source
    return {
        "name": name,
        "weights": cfg.name,
        "task": cfg.task,
        "dataset": cfg.dataset,
        "input_size": list(cfg.input.size),
        "params": cfg.params,
        "macs": cfg.macs,
        "reported": dict(cfg.metrics.values) if cfg.metrics else {},
        "has_weights": cfg.has_weights,
        "automatic": is_automatic(cfg),
        "by_hand": by_hand_reason(cfg),
        "unavailable": source.unavailable,
        "pinned": is_pinned(cfg),
        "size": pin.size if pin else 4 * cfg.params if cfg.params else None,
        "size_is_exact": pin is not None,
        "address_kinds": kinds(cfg),
        "addresses": listing(cfg),
        "license": source.license,
        "data_terms": source.dataset_license,
    }


def _as_row(name: str, cfg: PretrainedCfg) -> tuple[str, ...]:
    return (
        name,
        cfg.dataset,
        _size(cfg),
        f"{cfg.params / 1e6:.1f} M" if cfg.params else "-",
        f"{cfg.macs / 1e9:.1f}" if cfg.macs else "-",
        _reported(cfg),
        cfg.source.license or "-",
        summary(cfg) if cfg.has_weights else "none published",
    )


def _reported(cfg: PretrainedCfg) -> str:
    values = cfg.metrics.values if cfg.metrics else {}
    return next((f"{k} {100 * values[k]:.1f}" for k in _MAIN_METRICS if k in values), "-")


def _size(cfg: PretrainedCfg) -> str:
    return f"{cfg.input.size[0]}x{cfg.input.size[1]}"


@click.command(short_help="Show what is known about a model and its weights.")
@click.argument("name", shell_complete=options.complete_model)
@click.option("--json", "as_json", is_flag=True, help="The configuration as JSON.")
@click.option("--recipe", is_flag=True, help="How it is trained, as `train --set` takes it.")
def info(name: str, as_json: bool, recipe: bool) -> None:
    """Show what is known about the model NAME.

    NAME is architecture[.tag], local-dir:…, hf-hub:…, or a .pt2 or .onnx file of `posezoo export`.
    """
    if recipe:
        from ..training.recipes import get_recipe, settings_of

        for key, text in settings_of(get_recipe(name)).items():
            click.echo(f"{key}={text}")
        return
    network: ExportedNetwork | None = None
    if is_exported_file(name):
        from ..engines.programs import open_exported

        network = open_exported(name)
        cfg = network.pretrained_cfg
    elif ":" in name:
        from ..zoo.factory import resolve_cfg

        cfg = resolve_cfg(name)
    else:
        cfg = get_pretrained_cfg(name)
    if as_json:
        click.echo(json.dumps(cfg.to_dict(), indent=2))
        return
    click.echo(f"{cfg.name}: {cfg.description}")
    more = _arguments(cfg) if network is None else _facts_of_file(network)
    facts = _facts(cfg) | more
    for label, value in facts.items():
        if value:
            click.echo(f"  {label:11s} {value}")


def _facts(cfg: PretrainedCfg) -> dict[str, str | None]:
    source, decode, metrics = cfg.source, cfg.decode, cfg.metrics
    facts = {
        "task": f"{cfg.task}, {cfg.dataset}",
        "input": f"{_size(cfg)} (HxW)",
        "params": f"{cfg.params / 1e6:.2f} M" if cfg.params else None,
        "MACs": f"{cfg.macs / 1e9:.2f} G" if cfg.macs else None,
        "crop": f"{cfg.input.geometry}, padding {cfg.input.bbox_padding}" if decode else None,
        "decode": f"{decode.codec}, {decode.refine}, flip test {decode.flip_test}"
        if decode
        else None,
        "weights": describe(cfg),
        "addresses": f"\n  {'':11s} ".join(listing(cfg)),
        "sha256": source.sha256 or source.original_sha256,
        "license": source.license,
        "data terms": source.dataset_license,
        "paper": source.paper,
    }
    if metrics:
        values = "  ".join(f"{k} {100 * v:.1f}" for k, v in metrics.values.items())
        facts["reported"] = f"{values}\n  {'':11s} {metrics.protocol}; {metrics.url}"
    return facts


def _arguments(cfg: PretrainedCfg) -> dict[str, str | None]:
    arguments = model_arguments(cfg.architecture) | dict(cfg.model_args)
    return {"arguments": _listed(arguments)}


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in values.items())


def _facts_of_file(network: ExportedNetwork) -> dict[str, str | None]:
    """Return what an exported file says by itself: its weights need not be the published ones, nor
    its architecture one that is registered here."""
    from ..evaluation.provenance import is_published_file

    cfg, origin = network.pretrained_cfg, network.origin
    is_pose = cfg.task == "pose"
    others = {} if is_published_file(cfg, origin) else {"reported": None}
    return {
        **others,
        "weights": f"in the file, from {origin.get('origin_file', 'a model without a file')}",
        "addresses": None,
        "sha256": origin.get("origin_sha256"),
        "skeleton": f"{cfg.skeleton.name}, {network.num_keypoints} keypoints" if is_pose else None,
        "classes": None if is_pose else str(network.num_classes),
        "dtype": str(network.dtype).removeprefix("torch."),
        "arguments": _listed(cfg.model_args),
        "settings": _listed(network.settings()),
    }
