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
    """Find poses in rendered people with the weights in the package; offline."""
    from .rendered import MODEL, run_demo

    report = run_demo(out, images)
    values = "  ".join(f"{k} {100 * report.statistics[k]:.1f}" for k in ("AP", "AP50", "AP75"))
    click.echo(
        f"model    {MODEL}: {report.params / 1e6:.1f} M parameters, in the package\n"
        f"picture  {out}: {report.found} people, "
        f"poses found in {1000 * report.pose_seconds:.0f} ms on the CPU\n"
        f"scored   {values}\n"
        f"         {report.people} rendered people in {report.images} images the model has never "
        "seen; boxes given, flip test\n"
        f"time     {report.seconds:.0f} s, no network\n\n"
        "The poses below, in rendered bodies and in a photo, are found by hrnet_s_192x144.bodies,\n"
        "also in the package, which is for photos without a network. For better poses:\n"
        "  posezoo list --pretrained\n"
        "  posezoo predict photo.jpg --draw poses.png"
    )
