"""`python -m posezoo.synthetic FOLDER` renders a data set; `… bake FILE` makes the baked body."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..skeletons import COCO_17, COCO_WHOLEBODY_133
from .bodies import write_people
from .writing import write_coco, write_mpii

_COUNT = click.IntRange(min=1)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--kind",
    type=click.Choice(["coco", "wholebody", "mpii", "bodies"]),
    default="coco",
    show_default=True,
)
@click.option("--train", type=_COUNT, default=24000, show_default=True, help="Images to train on.")
@click.option("--val", type=_COUNT, default=400, show_default=True, help="Images to validate on.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True,
    help="Of validation; training has the next.",
)  # fmt: skip
def main(folder: Path, kind: str, train: int, val: int, seed: int) -> None:
    """Render a data set in the layout of COCO, COCO-WholeBody or MPII into FOLDER.

    The kind "bodies" is COCO's too, with people of a real body model instead of drawn ones.
    """
    if kind == "bodies":
        click.echo(write_people(folder, val, seed))
        click.echo(write_people(folder, train, seed + 1, split="train2017"))
        return
    if kind == "mpii":
        click.echo(write_mpii(folder, val, seed))
        click.echo(write_mpii(folder, train, seed + 1, split="train"))
        return
    skeleton = COCO_17 if kind == "coco" else COCO_WHOLEBODY_133
    click.echo(write_coco(folder, val, seed, skeleton=skeleton))
    click.echo(write_coco(folder, train, seed + 1, split="train2017", skeleton=skeleton))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def bake(file: Path) -> None:
    """Write the baked body to FILE; needs the extra `render`."""
    from .bodies.bake import bake as write

    for name, value in write(file).items():
        click.echo(f"{name}  {value:.3g}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["bake"]:
        bake(sys.argv[2:])
    main()
