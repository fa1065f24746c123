"""`posezoo convert`, `verify`, `push` and `publish`: weights on disk and on the Hub."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..zoo.catalog import get_pretrained_cfg
from . import options

__all__ = ["convert", "publish", "push", "verify"]


@click.command()
@click.argument("source", type=options.PATH)
@click.option("--model", "name", required=True, help="Registered name: architecture[.tag].")
@click.option(
    "--out",
    type=options.PATH,
    help="Folder to write; default: where pretrained=True looks first.",
)
def convert(source: Path, name: str, out: Path | None) -> None:
    """Convert the authors' checkpoint SOURCE to safetensors. Nothing in it is executed."""
    from ..weights.convert import convert_file

    report = convert_file(source, get_pretrained_cfg(name), out)
    click.echo(f"input    sha256 {report.sha256}")
    click.echo(
        f"tensors  {report.read} read, {report.used} used, {report.read - report.used} ignored"
    )
    for reason, count in report.ignored.items():
        click.echo(f"         {count} ignored: {reason}")
    click.echo(f"output   sha256 {report.output_sha256}")
    click.echo(f"written  {report.directory}")


@click.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the weights of NAMES (default: all that are in the cache) against their hashes."""
    from ..weights.locate import verify_cached

    damaged = 0
    for report in verify_cached(list(names) or ["*"]):
        damaged += report.state == "damaged"
        click.echo(f"{report.name:42s} {report.state:10s} {report.detail}")
    sys.exit(1 if damaged else 0)


@click.command()
@click.argument("directory", type=options.PATH)
@click.option("--repo", required=True, help="Hub repository: org/name.")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
def push(directory: Path, repo: str, private: bool) -> None:
    """Upload DIRECTORY, written by `posezoo convert` or save_pretrained, to the Hub."""
    from ..weights.publish import push_to_hub

    click.echo(push_to_hub(directory, repo, private=private))


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--namespace", required=True, help="Hub user or organisation.")
@click.option("--dry-run", is_flag=True, help="Do everything but upload.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
def publish(patterns: tuple[str, ...], namespace: str, dry_run: bool, private: bool) -> None:
    """Fetch, convert, verify and upload every architecture.tag that matches PATTERNS."""
    from ..weights import publish as library

    failed = 0
    reports = library.publish(list(patterns) or ["*"], namespace, dry_run=dry_run, private=private)
    for report in reports:
        failed += report.state == "failed"
        click.echo(f"{report.repo_id:52s} {report.state:14s} {report.detail}")
    sys.exit(1 if failed else 0)
