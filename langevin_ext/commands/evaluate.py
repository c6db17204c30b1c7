"""`langevin-ext evaluate`: how far samples are from data, by one metric or several."""

import sys
import warnings
from pathlib import Path

import click
import torch

from .. import __version__
from ..metrics import save_statistics
from ..metrics.frechet import measured
from .common import write_json
from .image_sets import open_set
from .measures import FEATURES, FRECHET, METRICS, Evaluation
from .train import parse_size


@click.command()
@click.argument("samples")
@click.argument("reference")
@click.option(
    "--metric",
    "names",
    multiple=True,
    required=True,
    type=click.Choice(list(METRICS)),
    help="May be given several times.",
)
@click.option(
    "--features",
    type=click.Choice(list(FEATURES)),
    help="For metrics not named after some.  [default: inception for kid and inception-score, else pixels]",
)
@click.option("--classifier", help="digits, glyphs or a file of train-classifier.  [default: that of the dataset]")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="At most this many images of each set, the first; memorisation takes all of REFERENCE.",
)
@click.option("--size", help="Size of the images, SIZE or HxW.  [default: that of SAMPLES]")
@click.option("--weights", help="pytorch-fid's Inception weights.  [default: the file in torch hub's cache]")
@click.option(
    "--bootstrap",
    default=0,
    type=click.IntRange(min=0),
    show_default=True,
    help="Replicates for the spread of a Frechet distance.",
)
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap and of kid's subsets.")
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write; must be new.")
@click.option(
    "--picture", type=click.Path(path_type=Path), help="PNG of the nearest pairs of memorisation; must be new."
)
@click.option(
    "--save-statistics",
    "statistics",
    type=click.Path(path_type=Path),
    help="Write mean and covariance of REFERENCE's features as pytorch-fid does, NAME.npz; must be new.",
)
def evaluate(samples, reference, names, size, limit, out, statistics, **options):
    """Compare SAMPLES with REFERENCE.

    Each is samples.npz or the folder that `sample` wrote, a folder or zip of images, any dataset that `train` takes
    with :train, :test or :all after it (default all), or, for Frechet distances, statistics (.npz with mu and sigma).
    REFERENCE is brought to the size and channels of SAMPLES. Distances are comparable at equal counts only.
    """
    for option, path in (("--out", out), ("--picture", options["picture"]), ("--save-statistics", statistics)):
        if path is not None and path.exists():
            raise ValueError(f"{option} must be a new file, got {path}, which exists")
    frechet_names = [name for name in names if name in FRECHET]
    if statistics is not None and len(frechet_names) != 1:
        raise ValueError(f"--save-statistics needs one Frechet distance ({', '.join(FRECHET)}), got {frechet_names}")
    sets = open_sets(samples, reference, parse_size(size), limit)
    evaluation = Evaluation(*sets, options)
    for role, one in zip(("samples", "reference"), sets, strict=True):
        click.echo(f"{role:10} {one}")
    results = {name: measure(name, evaluation) for name in dict.fromkeys(names)}
    if statistics is not None:
        write_statistics(statistics, evaluation, METRICS[frechet_names[0]][1])
    if out is not None:
        write_json(out, record(evaluation, results, limit))


def open_sets(samples, reference, size, limit):
    """Both sets, the reference in the form of the samples."""
    first = open_set(samples, size, limit=limit)
    if first.shape is None or first.shape[0] not in (1, 3):
        return first, open_set(reference, size, limit=limit)
    return first, open_set(reference, first.shape[1:], first.shape[0], limit)


def measure(name, evaluation):
    """Computes one metric and prints it, with warnings as sentences."""
    function, kind = METRICS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        text, facts = function(evaluation, kind)
    click.echo(f"{name:18} {text}")
    for warning in caught:
        click.echo(f"warning: {warning.message}", err=True)
    return facts | {"warnings": [str(warning.message) for warning in caught]}


def write_statistics(path, evaluation, kind):
    rows, features, reference = evaluation.rows(1, kind), evaluation.named(kind), evaluation.sets[1]
    found = measured(rows, features)
    about = {"source": reference.source, "size": list(reference.shape), **reference.facts, **found.provenance}
    save_statistics(path, found.mean, found.covariance, about)
    click.echo(f"written: {path}, {path.with_suffix('.json')}")


def record(evaluation, results, limit):
    """What --out holds: the results and all that they depend on."""
    sets = {
        role: {"source": one.source, "count": count, "shape": one.shape, **one.facts}
        for role, one, count in zip(("samples", "reference"), evaluation.sets, evaluation.counts(), strict=True)
    }
    options = {name: str(value) if isinstance(value, Path) else value for name, value in evaluation.options.items()}
    versions = {"version": __version__, "torch": torch.__version__}
    return {"command": sys.argv[1:], **versions, **sets, "limit": limit, "options": options, "metrics": results}
