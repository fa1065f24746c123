"""`posezoo app`: a page for a browser."""

from __future__ import annotations

import signal

import click

from . import options

__all__ = ["app"]


@click.command(short_help="Serve a page: drop a photo or film, see the poses.")
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=options.complete_model,
    help="A model to choose from; repeat for several. Default: all that need no hands.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address that is bound; 0.0.0.0 opens the page to the network.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Of the page."
)
def app(models: tuple[str, ...], host: str, port: int) -> None:
    """Serve a page for a browser on this machine, until Ctrl-C or SIGTERM."""
    from ..app import serving
    from ..zoo.catalog import get_pretrained_cfg

    for name in models:
        get_pretrained_cfg(name)  # names close ones
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uploads are removed as well
    with serving(models, host, port) as page:
        page.block_thread()
