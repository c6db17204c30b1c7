"""`langevin-ext merge`: the samples of several machines as those of one."""

from pathlib import Path

import click

from .. import plots
from ..sharding.arrays import Images
from ..sharding.merge import merge
from .common import is_small


@click.command("merge")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new.")
def merge_command(folders, out):
    """Put together what `sample` has drawn into FOLDERS on machines that do not know of each other.

    Each had its part by --first and -n. The parts must be finished, have the same settings and the same model, and
    neither overlap nor leave a gap; what fits not is named.
    """
    settings = merge(folders, out)
    x = Images(out / "samples.npz").head(100)
    if x.shape[1] in (1, 3):
        plots.image_grid(x, out / "grid.png", smooth=is_small(x))
    last = settings["first"] + settings["n"] - 1
    click.echo(f"{settings['n']} samples, {settings['first']} to {last}, of {len(folders)} folders; written to {out}")
