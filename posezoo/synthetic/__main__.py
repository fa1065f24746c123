"""`python -m posezoo.synthetic FOLDER` renders a data set; `… bake FILE` makes the baked body."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..skeletons import COCO_17, COCO_WHOLEBODY_133, MPII_16
from .bodies import write_people
from .writing import write_coco, write_mpii

_COUNT = click.IntRange(min=1)
_KINDS = {"coco": COCO_17, "wholebody": COCO_WHOLEBODY_133, "mpii": MPII_16}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--kind", type=click.Choice(list(_KINDS)), default="coco", show_default=True)
@click.option(
    "--bodies",
    is_flag=True,
    help="People of a real body model, as in photographs, one to an image, instead of drawn ones.",
)
@click.option("--train", type=_COUNT, default=24000, show_default=True, help="Images to train on.")
@click.option("--val", type=_COUNT, default=400, show_default=True, help="Images to validate on.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True,
    help="Of validation; training has the next.",
)  # fmt: skip
def main(folder: Path, kind: str, bodies: bool, train: int, val: int, seed: int) -> None:
    """Render a data set in the layout of COCO, COCO-WholeBody or MPII into FOLDER."""
    skeleton = _KINDS[kind]
    splits = ("valid", "train") if skeleton is MPII_16 else ("val2017", "train2017")
    for split, images, own in zip(splits, (val, train), (seed, seed + 1)):
        if bodies:
            click.echo(write_people(folder, images, own, split=split, skeleton=skeleton))
        elif skeleton is MPII_16:
            click.echo(write_mpii(folder, images, own, split=split))
        else:
            click.echo(write_coco(folder, images, own, split=split, skeleton=skeleton))


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
