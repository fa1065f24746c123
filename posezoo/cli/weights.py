"""`posezoo fetch`, `convert`, `verify`, `push`, `publish`: weights on disk and on the Hub."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import InputError
from . import options
from .guards import keep_inputs

__all__ = ["convert", "fetch", "publish", "push", "verify"]


@click.command(short_help="Download, verify and convert weights.")
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--to",
    "folder",
    type=options.PATH,
    help="Folder to add them to, for POSEZOO_MIRROR; default: only the cache.",
)
def fetch(names: tuple[str, ...], folder: Path | None) -> None:
    """Fetch, verify and convert the weights of NAMES (or patterns), to be used offline."""
    from ..weights.collect import fetch_all

    failed = 0
    for report in fetch_all(list(names), folder):
        failed += not report.is_fine
        click.echo(f"{report.name:42s} {report.detail}", err=not report.is_fine)
    sys.exit(1 if failed else 0)


@click.command(short_help="Convert the authors' checkpoint to safetensors.")
@click.argument("source", type=options.PATH)
@click.option(
    "--model", "name", help="Registered name: architecture[.tag]; default: found by hash or keys."
)
@click.option(
    "--out",
    type=options.PATH,
    help="Folder to write; default, for the published file only: where pretrained=True looks.",
)
def convert(source: Path, name: str | None, out: Path | None) -> None:
    """Convert the authors' checkpoint SOURCE to safetensors. Nothing in it is executed."""
    from ..weights.cache import CONFIG_FILE, WEIGHTS_FILE
    from ..weights.convert import convert_own

    if out is not None:
        keep_inputs([source], [out / WEIGHTS_FILE, out / CONFIG_FILE])
    report = convert_own(source, name, out)
    click.echo(f"model    {report.name}")
    click.echo(f"input    sha256 {report.sha256}: {report.checked}")
    click.echo(
        f"tensors  {report.read} read, {report.used} used, {report.read - report.used} ignored"
    )
    for reason, count in report.ignored.items():
        click.echo(f"         {count} ignored: {reason}")
    click.echo(f"output   sha256 {report.output_sha256}")
    click.echo(f"written  {report.directory}")


@click.command(short_help="Check stored weights against their hashes.")
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the weights of NAMES (default: all that are in the cache) against their hashes."""
    from ..weights.locate import verify_cached

    damaged = 0
    for report in verify_cached(list(names) or ["*"]):
        damaged += report.state == "damaged"
        click.echo(f"{report.name:42s} {report.state:10s} {report.detail}")
    sys.exit(1 if damaged else 0)


@click.command(short_help="Upload a folder of weights to the Hub.")
@click.argument("directory", type=options.PATH)
@click.option("--repo", required=True, help="Hub repository: org/name.")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
def push(directory: Path, repo: str, private: bool) -> None:
    """Upload DIRECTORY, written by `posezoo convert` or save_pretrained, to the Hub."""
    from ..weights.publish import push_to_hub

    click.echo(push_to_hub(directory, repo, private=private))


@click.command(short_help="Fetch, convert, verify, upload and pin weights.")
@click.argument("patterns", nargs=-1)
@click.option("--namespace", help="Hub user or organisation; needed except for --check.")
@click.option("--dry-run", is_flag=True, help="Do everything but upload; the Hub is not asked.")
@click.option("--check", is_flag=True, help="Compare the Hub with pins.json; nothing is uploaded.")
@click.option("--private", is_flag=True, help="Make new repositories private.")
@click.option("--pins", type=options.PATH, help="File of pins; default: the package's pins.json.")
def publish(
    patterns: tuple[str, ...],
    namespace: str | None,
    dry_run: bool,
    check: bool,
    private: bool,
    pins: Path | None,
) -> None:
    """Fetch, convert, verify, upload and pin every architecture.tag that matches PATTERNS."""
    from ..weights import publish as library
    from ..weights.pins import PINS_FILE, read_pins

    names, file = list(patterns) or ["*"], pins or PINS_FILE
    if check:
        reports = library.check_published(names, pins=read_pins(file))
    elif namespace is None:
        raise InputError("--namespace is needed: the Hub user or organisation to publish to")
    else:
        reports = library.publish(
            names, namespace, dry_run=dry_run, private=private, pins_file=file
        )
    wrong = 0
    for report in reports:
        wrong += report.state in ("failed", "changed", "moved on")
        click.echo(f"{report.repo_id:52s} {report.state:14s} {report.detail}")
    sys.exit(1 if wrong else 0)
