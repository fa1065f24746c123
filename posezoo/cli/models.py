"""`posezoo list` and `posezoo info`: what there is. Neither imports torch or numpy."""

from __future__ import annotations

import json

import click

from ..weights.addresses import describe
from ..zoo.catalog import get_pretrained_cfg, list_models, model_arguments
from ..zoo.config import PretrainedCfg, Task

__all__ = ["info", "list_command"]


@click.command("list")
@click.argument("pattern", default="*")
@click.option(
    "--task",
    type=click.Choice(["pose", "classification", "tokenizer"]),
    help="Only models for this task.",
)
@click.option("--pretrained", is_flag=True, help="Only models with weights.")
@click.option("--tags", is_flag=True, help="One line per set of weights: architecture.tag.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def list_command(
    pattern: str, task: Task | None, pretrained: bool, tags: bool, as_json: bool
) -> None:
    """List models whose name matches PATTERN (shell wildcards, default all)."""
    names = list_models(pattern, task=task, pretrained=pretrained, tags=tags)
    rows = [(name, get_pretrained_cfg(name)) for name in names]
    if as_json:
        click.echo(json.dumps([_as_dict(*row) for row in rows], indent=2))
        return
    for row in rows:
        click.echo(_as_line(*row))
    if not names:
        click.echo(f"no model matches {pattern!r}", err=True)


def _as_dict(name: str, cfg: PretrainedCfg) -> dict[str, object]:
    return {
        "name": name,
        "task": cfg.task,
        "dataset": cfg.dataset,
        "input_size": list(cfg.input.size),
        "params": cfg.params,
        "macs": cfg.macs,
        "has_weights": cfg.has_weights,
    }


def _as_line(name: str, cfg: PretrainedCfg) -> str:
    params = f"{cfg.params / 1e6:.1f} M" if cfg.params else "-"
    macs = f"{cfg.macs / 1e9:.1f} GMACs" if cfg.macs else "-"
    note = "" if cfg.has_weights else "  (no published weights)"
    return f"{name:42s} {cfg.dataset:15s} {_size(cfg):>8s} {params:>9s} {macs:>12s}{note}"


def _size(cfg: PretrainedCfg) -> str:
    return f"{cfg.input.size[0]}x{cfg.input.size[1]}"


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The configuration as JSON.")
def info(name: str, as_json: bool) -> None:
    """Show what is known about the model NAME: architecture[.tag], local-dir:… or hf-hub:…"""
    if ":" in name:
        from ..zoo.factory import resolve_cfg

        cfg = resolve_cfg(name)
    else:
        cfg = get_pretrained_cfg(name)
    if as_json:
        click.echo(json.dumps(cfg.to_dict(), indent=2))
        return
    click.echo(f"{cfg.name}: {cfg.description}")
    for label, value in _facts(cfg).items():
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
        "original": ", ".join(source.original_urls) or source.original_page,
        "license": source.license,
        "data terms": source.dataset_license,
        "paper": source.paper,
    }
    if metrics:
        values = "  ".join(f"{k} {100 * v:.1f}" for k, v in metrics.values.items())
        facts["reported"] = f"{values}\n  {'':11s} {metrics.protocol}; {metrics.url}"
    arguments = model_arguments(cfg.architecture) | dict(cfg.model_args)
    facts["arguments"] = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
    return facts
