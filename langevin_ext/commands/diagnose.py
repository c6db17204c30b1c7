"""`langevin-ext diagnose`: whether Langevin dynamics with a trained score can be trusted."""

import sys
from pathlib import Path

import click

from .. import __version__, diagnostics
from .._files import atomic_path
from ..data import open_dataset
from ..training import shipped
from .common import open_output, read_model, write_json

ALL = "all"


@click.command()
@click.option(
    "--model",
    "path",
    required=True,
    metavar="FILE|NAME",
    help="Checkpoint of `train`, an official NCSN or NCSNv2 .pth, or a shipped one: " + ", ".join(shipped("score")),
)
@click.option("--shape", metavar="CxHxW", help="Image shape of an official checkpoint; default: Cx32x32.")
@click.option("--data", required=True, help="What the model was trained on, as for `train`.")
@click.option(
    "--split",
    type=click.Choice(["train", ALL]),
    default="train",
    show_default=True,
    help="Which part of DATA; its test part is the held-out data, unless it was trained on all.",
)
@click.option("--held-out", metavar="DATA", help="Other held-out data; all of it is taken.")
@click.option("--images", default=512, show_default=True, help="Images of each set whose losses are taken.")
@click.option("--chains", default=24, show_default=True, help="Chains of the sampler, and from each set.")
@click.option("--draws", default=1, show_default=True, help="Noise draws per image and level.")
@click.option("--eps", type=float, help="Step size at the last level (NCSN, Algorithm 1).  [default: 2e-5]")
@click.option("--step-lr", type=float, help="The same in the released code's convention, eps = 2 step_lr.")
@click.option("--steps-each", default=100, show_default=True, help="Steps per level of the sampler's chains.")
@click.option("--start-steps", default=20, show_default=True, help="Steps at each level of the chains from data.")
@click.option("--init", type=click.Choice(["uniform", "normal"]), default="uniform", show_default=True)
@click.option("--alarm", default=0.01, show_default=True, help="Share of false alarms for a perfect score.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new.")
def diagnose(path, shape, data, split, held_out, images, steps_each, device, out, **options):
    """Say whether Langevin dynamics with a score can be trusted, and if not, what to do.

    Losses on training and held-out data, chains from both, and the sampler's own chain are compared with what an exact
    score would give; a check fails where the difference is beyond chance. Writes diagnosis.json, .md and .png.
    """
    model, facts = read_model(path, shape, device)
    train = open_like(model, data, split)
    fresh = held_out_data(model, data, split, held_out)
    folder = open_output(out)
    found = diagnostics.diagnose(model, train, fresh, n=images, n_steps_each=steps_each, **options)
    click.echo(found)
    about = {"command": sys.argv[1:], "version": __version__, "model": facts}
    sets = {"data": describe(train), "held_out": fresh and describe(fresh)}
    with atomic_path(folder / "diagnosis.md") as temporary:
        temporary.write_text(f"# {facts['path']} on {train!r}\n\n{found.markdown()}\n![measurements](diagnosis.png)\n")
    found.plot(folder / "diagnosis.png")
    write_json(folder / "diagnosis.json", about | sets | found.to_dict())
    click.echo(f"written to {folder}: diagnosis.json, diagnosis.md, diagnosis.png")


def open_like(model, data, split):
    """A dataset in the form of the model's samples; vectors have no size that could be changed."""
    channels, *size = model.shape
    if size == [1, 1]:
        return open_dataset(data, split=split)
    return open_dataset(data, tuple(size), channels=channels, split=split)


def held_out_data(model, data, split, held_out):
    """What the model was not trained on: the data asked for, the test part, or nothing."""
    if held_out is not None:
        return open_like(model, held_out, ALL)
    return None if split == ALL else open_like(model, data, "test")


def describe(dataset):
    return {"name": repr(dataset), "fingerprint": dataset.fingerprint}
