"""`posezoo demo`: poses without a network, with what comes in the package."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command(short_help="Try the packaged weights on rendered people; offline.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("posezoo_demo.png"),
    show_default=True,
    help="Picture to write.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Rendered images to score.",
)
def demo(out: Path, images: int) -> None:
    """Find people and poses in a rendered scene and a photo with what comes in the package."""
    from ..zoo.catalog import OFFLINE_MODEL
    from .rendered import run_demo

    report = run_demo(out, images)
    values = "  ".join(f"{k} {100 * report.statistics[k]:.1f}" for k in ("AP", "AP50", "AP75"))
    click.echo(
        f"model    {OFFLINE_MODEL}: {report.params / 1e6:.1f} M parameters, in the package, as is\n"
        "         the detector of people\n"
        f"picture  {out}: {report.found} people in a rendered scene and a photo, found\n"
        f"         with their poses in {1000 * report.pose_seconds:.0f} ms on the CPU\n"
        f"scored   {values}\n"
        f"         {report.people} rendered people in {report.images} images the model has never "
        "seen; boxes given, flip test\n"
        f"time     {report.seconds:.0f} s, no network\n\n"
        "The same for a photo of yours, without a network, and with a better model:\n"
        f"  posezoo predict photo.jpg --model {OFFLINE_MODEL} --draw poses.png\n"
        "  posezoo predict photo.jpg --draw poses.png\n"
        "  posezoo list --pretrained"
    )
