"""`langevin-ext table`: the tables of the multi-scale paper, on models of one's own."""

import sys
import warnings
from pathlib import Path

import click

from .. import experiments
from ..data import open_dataset
from ..metrics import PixelFeatures
from ..samplers.upsampling import UPSAMPLERS
from ..scores import GaussianField
from .common import parse_device, parse_shape, read_model, sampling_arguments
from .image_sets import ImageSet
from .measures import FRECHET, METRICS, Evaluation
from .train import parse_size

SETTINGS = ("seed", "batch_size", "eps", "n_steps_each", "denoise", "upsample")


@click.command()
@click.argument("number", type=click.IntRange(1, 4))
@click.option("--low", metavar="FILE|NAME", help="Model of the low resolution: as --model of `sample`.")
@click.option("--high", metavar="FILE|NAME", help="Model of the high resolution.")
@click.option(
    "--shape", metavar="CxHxW", help="Image shape of an official checkpoint for --high; half of it for --low."
)
@click.option("--exact", metavar="HxW", help="Instead of models the exact score of a Gaussian field of this size.")
@click.option("-n", "--n", "n", default=100, show_default=True, help="Images that the seconds are for.")
@click.option("--samples", default=10_000, show_default=True, help="Samples of each scheme for the distances.")
@click.option(
    "--metric", type=click.Choice(FRECHET), help="[default: frechet-classifier; pixels as they are with --exact]"
)
@click.option("--reference", metavar="DATA", help="Images to compare with: any that `train` takes, at both sizes.")
@click.option("--split", type=click.Choice(["train", "test", "all"]), default="all", show_default=True)
@click.option("--classifier", help="digits, glyphs or a file of train-classifier.  [default: that of the dataset]")
@click.option("--weights", help="pytorch-fid's Inception weights.  [default: the file in torch hub's cache]")
@click.option("--steps-each", default="100", metavar="N[,N]", show_default=True, help="Langevin steps per noise level.")
@click.option("--eps", metavar="X[,X]", help="Step size at the last level (NCSN, Algorithm 1).  [default: 2e-5]")
@click.option("--denoise/--no-denoise", default=False, show_default=True, help="Last denoising step.")
@click.option(
    "--upsample",
    default="bicubic",
    show_default=True,
    metavar="NAME|FILE",
    help=f"{', '.join(UPSAMPLERS)}, or a checkpoint of `train-upsampler` or of FSRCNN (.pth).",
)
@click.option("--batch-size", default=100, show_default=True, help="Images at a time.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--time-rows/--no-time-rows",
    default=None,
    help="Time whole runs of each scheme; or add up its levels.  [default: whole runs where they are cheap]",
)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new.")
@click.option("--dry-run", is_flag=True, help="Print what would be run and stop.")
def table(number, low, high, shape, exact, n, samples, time_rows, out, dry_run, **options):
    """Run table NUMBER of the multi-scale paper (arXiv:2006.11166): every scheme, its time and its distance.

    1: quality and time; 2: where the high resolution starts; 3 and 4: where the resolution changes. What schemes have
    in common is run once. A table that was stopped is continued by the same command.
    """
    models, facts = read_pair(low, high, shape, exact, options["device"])
    taken = sampling_arguments({**options, "first": 0, "step_lr": None, "renoise": False, "precision": "auto"})
    arguments = {name: taken[name] for name in SETTINGS} | {"samples": samples}
    reference, features = comparison(models, options, exact)
    if dry_run:
        return click.echo(experiments.outline(number, *models, **arguments))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = experiments.table(
            number,
            *models,
            n=n,
            reference=reference,
            features=features,
            time_rows=time_rows,
            out=out,
            provenance={"command": sys.argv[1:], "models": facts, "reference": options["reference"]},
            **arguments,
        )
    click.echo(str(result))
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        click.echo(f"warning: {message}", err=True)
    click.echo(f"written to {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def read_pair(low, high, shape, exact, device):
    """The two models and what they are."""
    if exact is not None:
        if low or high or shape:
            raise ValueError("--exact takes the place of --low, --high and --shape, got both")
        size = parse_size(exact)
        field = GaussianField((1, *size))
        if device is not None:
            field.sigmas = field.sigmas.to(parse_device(device))
        return (field.pooled(2), field), {"exact": f"GaussianField of {size[0]}x{size[1]}"}
    if not low or not high:
        raise ValueError("--low and --high must both be given, or --exact")
    half = None
    if shape is not None:
        channels, height, width = parse_shape(shape)
        half = f"{channels}x{height // 2}x{width // 2}"
    pairs = [read_model(path, one, device) for path, one in ((low, half), (high, shape))]
    return tuple(model for model, _ in pairs), [fact for _, fact in pairs]


def comparison(models, options, exact):
    """The references of both resolutions, and the features."""
    if exact is not None:
        if options["reference"] or options["metric"] not in (None, "frechet-pixels"):
            raise ValueError("--exact compares pixels with the exact law: without --reference, --metric frechet-pixels")
        return None, PixelFeatures()
    if options["reference"] is None:
        raise ValueError("--reference must be given: the data that the models were trained on")
    source, split = options["reference"], options["split"]
    data = [open_dataset(source, tuple(model.shape[1:]), channels=model.shape[0], split=split) for model in models]
    _, kind = METRICS[options["metric"] or "frechet-classifier"]
    return data, Evaluation(*(ImageSet(source, one.images) for one in data), options).features(kind)
